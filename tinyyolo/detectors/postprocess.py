"""From candidates to detections, by the same rules and settings wherever a model runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tinyyolo.boxes.convert import convert
from tinyyolo.boxes.nms import MinScore, above, candidate_score, pick, select, suppress
from tinyyolo.config import UserError, construct, kind_fault, shown, whole, within
from tinyyolo.io import some

AUTO = "auto"  # conf=auto: each class from the score on that its validation found
SHOWN_SCORE = 0.25  # of a detection that is shown, where no validation has found a better one
MOST_NAMED = 20  # classes in a line


@dataclass(frozen=True)
class Postprocess:
    """How candidates become detections; the defaults are the published test settings.

    Attributes:
        score: detections must score more than this; a number, or one for each class.
        iou: NMS threshold within a class.
        max_det: at most this many detections an image.
        votes: so many candidates vote on a detection, see `boxes.nms.vote`; 1 for none.
        classes: keep these class indices only; None keeps all.
        agnostic: suppress across classes.
        max_candidates: at most this many enter NMS, the best ones.
    """

    score: float | tuple[float, ...] = 0.05
    iou: float = 0.5
    max_det: int = 3000
    votes: int = 1
    classes: tuple[int, ...] | None = None
    agnostic: bool = False
    max_candidates: int = 30_000

    def __post_init__(self) -> None:
        within(0, 1, score=self.score, iou=self.iou)
        whole(1, max_det=self.max_det, votes=self.votes, max_candidates=self.max_candidates)

    @classmethod
    def of(cls, test: Mapping[str, Any], **fallback: Any) -> Postprocess:
        """The settings of a model YAML's `test:` (all but classes and agnostic), over `fallback` where it is silent.

        Raises:
            UserError: an unknown key, or a value of the wrong kind or out of its range.

        Examples:
            >>> Postprocess.of({"iou": 0.6}, score=0.001).iou, Postprocess.of({"iou": 0.6}, score=0.001).score
            (0.6, 0.001)
        """
        own: Postprocess = construct(cls, test, "test", classes=None, agnostic=False)  # these two are a run's
        if not isinstance(own.score, (int, float)):
            raise UserError(f"test.score={shown(own.score)}: expected a number; conf= of predict takes one a class")
        return replace(own, **{key: value for key, value in fallback.items() if key not in test})

    def over(self, args: Mapping[str, Any], names: Mapping[int, str]) -> Postprocess:
        """These settings under a run's keys conf, iou, max_det, classes, agnostic_nms and single_cls; null is no word.

        Args:
            args: the run's arguments.
            names: the model's classes.

        Raises:
            UserError: a class that the model does not have.
        """
        given = {"score": args.get("conf"), "iou": args.get("iou"), "max_det": args.get("max_det")}
        single = bool(args.get("single_cls"))  # all is one class, and `classes` are those of the data
        if not single and (wanted := class_indices(args.get("classes"), names)) is not None:
            given["classes"] = tuple(wanted)
        agnostic = single or bool(args.get("agnostic_nms"))
        return replace(self, agnostic=agnostic, **{key: value for key, value in given.items() if value is not None})

    def __call__(self, boxes: Tensor, scores: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Detections of every image.

        Args:
            boxes: (B, N, 4) xyxy in pixels.
            scores: (B, N, C).

        Returns:
            Per image boxes (K, 4), scores (K,), labels (K,) int64, by falling score.
        """
        options = (self.score, self.iou, self.max_det, self.max_candidates, self.classes, self.agnostic, self.votes)
        return [select(b, s, *options) for b, s in zip(boxes, scores, strict=True)]

    def candidates(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What may become a detection or vote on one, of candidates (N, 4), (N, C): boxes, scores, labels (P,)."""
        return pick(boxes, scores, self.least, self.classes)

    @property
    def least(self) -> MinScore:
        """What `candidates` score more than."""
        return candidate_score(self.score, self.votes)

    def able(self, scores: Tensor, labels: Tensor) -> Tensor:
        """(P,) bool: which candidates may become detections; the others only vote."""
        return above(scores, self.score, labels)

    def of_candidates(
        self,
        boxes: Tensor,
        scores: Tensor,
        labels: Tensor,
        max_det: int | None = None,
        able: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Detections of a whole scene from the `candidates` of its parts; the `max_det` of an image does not count.

        `able` are the rows of those that may become detections, in an order in which equal scores come.
        """
        return suppress(boxes, scores, labels, self.score, self.iou, max_det, self.agnostic, self.votes, able)

    def of_output(self, y: Tensor | tuple[Tensor, ...] | list[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Detections of every image from a network's output: (B, 4 + C, N), cxcywh and class scores, or (that, ...)."""
        return self(*boxes_and_scores(y))


def boxes_and_scores(y: Tensor | tuple[Tensor, ...] | list[Tensor]) -> tuple[Tensor, Tensor]:
    """Boxes (B, N, 4) float32 xyxy and scores (B, N, C) of a network's output (B, 4 + C, N), or (that, ...)."""
    rows = (y if isinstance(y, Tensor) else y[0]).transpose(1, 2)
    return convert(rows[..., :4].float(), "cxcywh", "xyxy"), rows[..., 4:]


def output_of(boxes: Tensor, scores: Tensor) -> Tensor:
    """A network's output of boxes (B, N, 4) xyxy and scores (B, N, C); see `boxes_and_scores`."""
    return torch.cat([convert(boxes, "xyxy", "cxcywh"), scores], dim=-1).transpose(1, 2)


def of_run(model: Any, args: Mapping[str, Any], score: float) -> Postprocess:
    """The settings of a run: the model's own, under the keys of the run; its conf may be auto or scores by class.

    Args:
        model: a Detector, the engine's wrapper of one, or of an export.
        args: the run's arguments.
        score: for a model that says nothing of it.

    Raises:
        UserError: an export that does not carry its settings, or a class that the model does not have.
    """
    for holder in (model, getattr(model, "model", None)):
        if isinstance(test := getattr(holder, "test", None), Mapping):
            conf = class_scores(args.get("conf"), model.names, getattr(holder, "thresholds", None), score)
            return Postprocess.of(test, score=score).over({**args, "conf": conf}, model.names)
    raise UserError(f"{args.get('model')}: no export of this version of tinyyolo: export the checkpoint again")


def class_scores(conf: Any, names: Mapping[int, str], thresholds: Sequence[float] | None, score: float) -> Any:
    """What `conf=` says: auto and scores by class become one for each class; a number and null stay.

    Args:
        conf: auto, {class: score} whose other classes are auto, a number, or None.
        names: the model's classes.
        thresholds: its own scores, (C,); None if it has none.
        score: of every class of such a model.

    Raises:
        UserError: no such class, or one that is named twice.

    Examples:
        >>> names = {0: "car", 1: "ship"}
        >>> class_scores("auto", names, [0.1, 0.2], 0.25), class_scores("auto", names, None, 0.25)
        ((0.1, 0.2), 0.25)
        >>> class_scores({"ship": 0.5}, names, [0.1, 0.2], 0.25), class_scores({"0": 0.5}, names, None, 0.25)
        ((0.1, 0.5), (0.5, 0.25))
    """
    if conf == AUTO and thresholds is None:
        return score
    if conf != AUTO and not isinstance(conf, Mapping):
        return conf
    out = dict(zip(names, thresholds or [score] * len(names), strict=True))
    given: dict[int, Any] = {}
    for key, value in conf.items() if isinstance(conf, Mapping) else ():
        number = isinstance(key, str) and key.isdecimal() and key not in names.values()  # keys of YAML are text
        for index in class_indices(int(key) if number else key, names, "conf") or ():
            if index in given:
                raise UserError(f"conf={shown(dict(conf))}: {names[index]} stands there twice")
            given[index] = float(value)
    return tuple((out | given).values())


def score_words(scores: Sequence[float], names: Mapping[int, str], classes: Sequence[int] | None = None) -> str:
    """'ship 0.12, car 0.3': scores (C,) by the names of `classes`; None for all."""
    chosen = names if classes is None else classes
    return ", ".join(some([f"{names[i]} {scores[i]:.4g}" for i in chosen], MOST_NAMED, ""))


def thresholds_fault(given: Any, classes: int) -> str:
    """Why something that a file holds is no list of scores by class, or ''; None is one, of a model without.

    Examples:
        >>> thresholds_fault([0.1, 2], 2), thresholds_fault([0.1], 2), thresholds_fault(None, 2)
        ('thresholds=[0.1, 2]: expected numbers from 0 to 1', 'thresholds=[0.1]: expected 2, one a class', '')
    """
    if given is None:
        return ""
    said, place = kind_fault(given, list[float])
    if said:
        return f"thresholds{place}: {said}"
    if len(given) != classes:
        return f"thresholds={shown(given)}: expected {classes}, one a class"
    return "" if all(0 <= score <= 1 for score in given) else f"thresholds={shown(given)}: expected numbers from 0 to 1"


def class_indices(classes: Any, names: Mapping[int, str], key: str = "classes") -> list[int] | None:
    """Class indices of what stands behind `classes=`: a number, a name, or a list of either; None for all.

    `key` is what a message calls it.

    Raises:
        UserError: no such class; names the choices.

    Examples:
        >>> class_indices(["ship", 0], {0: "car", 1: "ship"}), class_indices(1, {0: "car", 1: "ship"})
        ([1, 0], [1])
    """
    if classes is None:
        return None
    index: dict[Any, int] = {name: i for i, name in names.items()}
    index |= {i: i for i in names}
    wanted = list(classes) if isinstance(classes, (list, tuple, set)) else [classes]
    for item in wanted or ["[]"]:
        if isinstance(item, (bool, float)) or not isinstance(item, (int, str)) or item not in index:
            choices = ", ".join(f"{i} {name}" for i, name in names.items())
            raise UserError(f"{key}={item}: no such class; Choices: {choices}")
    return list(dict.fromkeys(index[item] for item in wanted))
