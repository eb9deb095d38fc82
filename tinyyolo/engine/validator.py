"""The validator: AI-TOD's metrics in pixels of the original image, on detections kept in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.data import build_dataloader
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import LOGGER
from ultralytics.utils.ops import scale_boxes

from tinyyolo import ranks, together
from tinyyolo.boxes.convert import convert
from tinyyolo.compat import own_data, own_ranks
from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import IGNORED, Annotations, by_id, of_classes, subset
from tinyyolo.datasets.formats.coco import write_results
from tinyyolo.datasets.formats.coco_tables import positions
from tinyyolo.datasets.formats.decode import parse_json
from tinyyolo.datasets.images import opened
from tinyyolo.datasets.train.dataset import TinyDataset
from tinyyolo.datasets.train.loader import share_out
from tinyyolo.datasets.train.opened import Pixels
from tinyyolo.datasets.train.skipped import keep_skipped, keep_skipped_of_all, report_left_out
from tinyyolo.detectors.base import Detector, filled
from tinyyolo.detectors.postprocess import AUTO, SHOWN_SCORE, class_indices, of_run, score_words
from tinyyolo.engine.keys import BEST, LAST, OWN
from tinyyolo.engine.predict.results import TinyResults
from tinyyolo.engine.predict.scenes import is_fixed, set_half, stride_of
from tinyyolo.engine.predict.whole import Whole
from tinyyolo.engine.prepare import data_dict, split_dataset
from tinyyolo.evaluation import AITOD_MAX_DETS, evaluate, format_table, operating_scores, write_json
from tinyyolo.evaluation.confusion import confusion_counts
from tinyyolo.evaluation.detections import from_columns
from tinyyolo.evaluation.errors import find_errors
from tinyyolo.evaluation.metrics import FEW
from tinyyolo.export.runtime import Runtime, detections_in
from tinyyolo.io import name_fault, place_in, some
from tinyyolo.scenes.tiling import Tiling

LEAST_SCORE = 0.001  # of a detection that counts, for a model whose YAML says nothing of it
HEADLINE = ("AP", "AP50", "AP75", "AP_vt", "AP_t", "AP_s", "AP_m", "AR1500")
DECIMALS, SCORE_DECIMALS = 3, 7  # of px and of scores: what predictions.json says is what is scored
TOO_LITTLE = f"fewer than {FEW} objects, or no right detection"
CHOSEN = f"select={LAST} keeps the last epoch; or report another split"
PICTURES = 8  # images of the comparison picture


class TinyMetrics:
    """Figures of the last evaluation by name: `metrics.AP`, `metrics["AP_vt"]`, `metrics.per_class["ship"]["AP"]`.

    Fractions; -1 where there is no object of that size, as COCO's tools have it.
    """

    def __init__(self) -> None:
        self.result: dict[str, Any] = {}
        self.thresholds: dict[str, float] = {}  # by class name, what `predict` shows it from; empty if not known
        self.speed: dict[str, float] = {}
        self.save_dir: Path | None = None

    @classmethod
    def of_run(cls, folder: Path) -> TinyMetrics:
        """The figures that a validation has left in its folder."""
        metrics = cls()
        file = folder / "metrics.json"
        metrics.result = parse_json(file.read_bytes(), file)
        metrics.thresholds, metrics.save_dir = metrics.result.pop("thresholds", {}), folder
        return metrics

    def __getattr__(self, name: str) -> Any:
        result = self.__dict__.get("result", {})
        if name in result:
            return result[name]
        raise AttributeError(f"no metric {name!r}; there are: {', '.join(result) or 'none before validation'}")

    def __getitem__(self, name: str) -> Any:
        return self.result[name]

    @property
    def keys(self) -> list[str]:
        """Columns of results.csv."""
        return [f"metrics/{name}" for name in HEADLINE]

    @property
    def fitness(self) -> float:
        """What training maximises: AP; 0 without objects."""
        return max(self.result["AP"], 0.0)

    @property
    def results_dict(self) -> dict[str, float]:
        """Headline figures under the engine's keys."""
        return {f"metrics/{name}": self.result[name] for name in HEADLINE} | {"fitness": self.fitness}

    def __repr__(self) -> str:
        return format_table(self.result) if self.result else "TinyMetrics(no evaluation yet)"


class TinyValidator(DetectionValidator):
    """Validates any tinyyolo detector; `metrics` is a `TinyMetrics`."""

    # Upstream starts these as None or as things of its own.
    data: Any
    device: Any
    names: Any
    metrics: Any
    own: Mapping[str, Any] = OWN  # keys that upstream does not know, and the `max_det` that was asked for

    def __init__(self, dataloader: Any = None, save_dir: Path | None = None, args: Any = None, _callbacks: Any = None):
        given = (args if isinstance(args, Mapping) else vars(args)).get("conf")
        super().__init__(dataloader, save_dir, args, _callbacks)
        self.args.conf = given  # upstream puts a score of its own for none: here the model's own counts
        self.metrics = TinyMetrics()
        self.pad_colour: list[float] | None = None  # of a Detector, or of what an export says of itself
        self.thresholds: list[float] | None = None  # of the model's classes, for `predict`

    def __call__(self, trainer: Any = None, model: Any = None, **kwargs: Any) -> Any:
        """Run, reading data YAMLs by our own loader."""
        known = self.data  # of a training; each YAML is read once
        with own_ranks(), own_data(data_dict if known is None else lambda name: known):
            return super().__call__(trainer, model, **kwargs)

    def get_dataloader(self, dataset_path: str | None, batch_size: int) -> Any:
        """A loader over a split; upstream's would drop classes by their number."""
        options = {"augment": False, "rect": self.args.rect, "classes": self.data_classes()}
        looks = {**vars(self.args), **self.own}
        options["corner"] = self.pad_colour is not None
        options["tiling"] = Tiling.of(looks, stride_of(self.wrapper), is_fixed(self.wrapper))
        dataset = split_dataset(self.data, dataset_path or self.args.split, self.args, "val", batch_size, **options)
        loader = build_dataloader(dataset, batch_size, self.args.workers, shuffle=False, device=self.device)
        share_out(loader, ranks.rank(), ranks.size(), fill=False)
        return loader

    def get_model(self, model: Any, trainer: Any = None) -> Any:
        """As upstream; of a checkpoint what says how scenes are looked at, and how images are filled up."""
        found = super().get_model(model, trainer)
        self.pad_colour = getattr(found, "pad_colour", self.pad_colour)
        self.wrapper = SimpleNamespace(model=found)
        return found

    def data_classes(self) -> list[int] | None:
        """The data's indices of the classes that `classes` names; numbers there are the model's."""
        own = self.data["spec"].names
        if self.args.classes is None or self.args.single_cls:  # a model of one class knows no names to choose from
            return class_indices(self.args.classes, own)
        wanted = class_indices(self.args.classes, self.names) or []
        return class_indices([self.names[i] for i in wanted], own)

    def init_metrics(self, model: Any) -> None:
        """Empty the memory; match the model's classes with the data's by name."""
        self.names = model.names
        detector: Any = model if isinstance(model, Detector) else getattr(model, "model", None)
        self.trained = dict(detector.args or {}) if isinstance(detector, Detector) and not is_last(detector) else {}
        self.rules = of_run(model, vars(self.args), LEAST_SCORE)
        if isinstance(runtime := getattr(model, "model", None), Runtime):
            runtime.rules = self.rules
        self.truth = by_id(ground_truth(self.dataloader.dataset, self.data_classes()))
        self.image_of = positions(self.dataloader.dataset.annotations.image_ids, self.truth.image_ids)
        self.class_of = match_classes(self.names, self.truth)
        wrapper = SimpleNamespace(model=model) if isinstance(model, Detector) else model
        set_half(wrapper, not self.training and self.own["half"])
        most = self.own.get("max_det")
        self.whole = Whole(self.dataloader.dataset, wrapper, self.rules, self.args.batch, most)
        self.found: dict[int, np.ndarray] = {}  # image of the truth -> (K, 6): the model's class, x, y, w, h, score
        self.pictures: dict[int, str | Pixels] = {}
        self.missing: set[int] = set()  # images of the truth that could not be read

    def get_desc(self) -> str:
        """Text of the progress bar."""
        return "validating"

    def postprocess(self, preds: Any) -> list[dict[str, Tensor]]:
        """Detections by the model's test settings under the run's keys; no time limit, so no image is dropped."""
        return [{"bboxes": b, "conf": s, "cls": labels} for b, s, labels in detections_in(preds, self.rules)]

    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
        """As upstream; images that have gone are noted."""
        if news := batch.pop("news"):
            self.dataloader.dataset.note(news)
            keep_skipped(self.dataloader.dataset, self.save_dir)
        batch = super().preprocess(batch)
        if self.pad_colour is not None:
            batch["img"] = filled(batch["img"], batch["content_hw"], self.pad_colour)
        return batch

    def update_metrics(self, preds: list[dict[str, Tensor]], batch: dict[str, Any]) -> None:
        """Keep a batch's detections in pixels of the original images."""
        for i, found in enumerate(preds):
            if (row := int(batch["image_index"][i])) < 0:
                self.missing.add(int(self.image_of[~row]))
                continue
            image, path, scene = int(self.image_of[row]), batch["im_file"][i], row in self.whole.rows
            shape, padding = batch["ori_shape"][i], batch["ratio_pad"][i]
            if not scene:
                boxes: Any = scale_boxes(batch["img"].shape[2:], found["bboxes"].clone(), shape, ratio_pad=padding)
            elif (seen := self.whole.found_in(path)) is not None:
                found, shape = seen
                boxes = found["bboxes"]
            else:
                keep_skipped(self.dataloader.dataset, self.save_dir)
                self.missing.add(image)
                continue
            xywh = convert(boxes.cpu().double().numpy().reshape(-1, 4), "xyxy", "xywh").round(DECIMALS)
            label, score = (found[key].cpu().double().numpy() for key in ("cls", "conf"))
            self.found[image] = np.column_stack([label, xywh, score.round(SCORE_DECIMALS)])
            if self.args.save_txt:
                name = self.dataloader.dataset.annotations.file_names[int(batch["image_index"][i])]
                name = Path(name).name if name_fault(name) else name  # it lies outside the split's image folder
                file = place_in(self.save_dir, str(Path("labels", name).with_suffix(".txt")))
                self.save_one_txt({**found, "bboxes": boxes}, self.args.save_conf, shape, file)
            if self.args.plots and len(self.pictures) < PICTURES:
                self.pictures[image] = self.whole.pixels(path) if scene else path

    def save_one_txt(self, predn: dict[str, Tensor], save_conf: bool, shape: tuple[int, int], file: Path) -> None:
        """As upstream, but whole or not at all, in place of an older run's."""
        file.unlink(missing_ok=True)
        rows = torch.cat([predn["bboxes"], predn["conf"][:, None], predn["cls"][:, None].to(predn["conf"])], dim=1)
        TinyResults(np.zeros(shape[:2], np.uint8), "", dict(self.names), boxes=rows).save_txt(file, save_conf)

    def gather_stats(self) -> None:
        """Bring the detections of all processes together, each image's from the one that looked at it.

        The losses become such that the mean over this process's batches is that over the batches of all.
        """
        if not together.several():
            return
        for found, missing in together.gathered((self.found, self.missing)):
            self.found |= found
            self.missing |= missing
        if any(together.gathered(bool(self.dataloader.dataset.lost))):
            keep_skipped_of_all(self.dataloader.dataset, self.save_dir)
        if self.training:
            own = len(self.dataloader)
            share = own / sum(together.gathered(own))
            self.loss = {key: together.summed(value) * share for key, value in self.loss.items()}

    def get_stats(self) -> dict[str, float]:
        """The headline figures under the engine's keys, in every process; the first one evaluates."""
        found = together.from_first(self.judged)
        self.metrics.result, self.metrics.thresholds, self.thresholds = found
        return dict(self.metrics.results_dict)

    def judged(self) -> tuple[dict[str, Any], dict[str, float], list[float] | None]:
        """Evaluate; all figures, and the classes' scores by name and in order."""
        if self.missing:
            self.leave_out()
        self.detections = self.collected()
        result = evaluate(self.truth, self.detections, max_dets=self.whole.limits, arrays=bool(self.args.plots))
        self.precision: Any = result.get("precision")
        arrays = {"precision", "recall", "scores", "lrp"}
        self.metrics.result = {key: value for key, value in result.items() if key not in arrays}
        self.find_thresholds()
        return self.metrics.result, self.metrics.thresholds, self.thresholds

    def find_thresholds(self) -> None:
        """The scores from which on `predict` shows each class, also `metrics.thresholds`, by name."""
        counts = np.bincount(self.truth.labels[self.truth.labels >= 0], minlength=len(self.truth.names)).tolist()
        objects = {name: counts[i] for i, name in self.truth.names.items()}
        found, self.common = operating_scores(self.metrics.result, objects, self.names.values())
        self.thresholds = [found[name] for name in self.names.values()] if found else None
        self.metrics.thresholds = found

    def leave_out(self) -> None:
        """Take images that could not be read out of the figures, their objects too: nothing was looked for in them."""
        kept = np.ones(len(self.truth), dtype=bool)
        kept[list(self.missing)] = False
        names = [self.truth.file_names[i] for i in sorted(self.missing)]
        words = ", ".join(some(names, PICTURES, ""))
        LOGGER.warning(f"{len(names):,} images could not be read and do not count, nor do their objects: {words}")
        moved = np.cumsum(kept) - 1
        self.truth = subset(self.truth, kept)
        self.found = {int(moved[i]): rows for i, rows in self.found.items()}
        self.pictures = {int(moved[i]): file for i, file in self.pictures.items()}

    def collected(self) -> Annotations:
        """All detections of classes that the data have, exactly as predictions.json says them."""
        images = sorted(self.found)
        rows = np.concatenate([self.found[image] for image in images])
        image = np.repeat(images, [len(self.found[image]) for image in images])
        labels = rows[:, 0].astype(int).tolist()
        own = np.array([self.class_of.get(i, IGNORED) for i in labels], np.int64)
        known = own != IGNORED
        self.strangers = Counter(self.names[i] for i in labels if i not in self.class_of)
        rows, source = rows[known], str(self.truth.path)
        return from_columns(self.truth, source, image[known], own[known], rows[:, 1:5], rows[:, 5])

    def finalize_metrics(self) -> None:
        """Write metrics.json and, outside training or with save_json, predictions.json; pictures with `plots`."""
        self.metrics.speed, self.metrics.save_dir = self.speed, self.save_dir
        if not ranks.first():
            return
        found = {**self.metrics.result, "thresholds": self.metrics.thresholds}
        if not self.training and (chosen := self.chosen_among()):
            found["best_of_epochs_on_this_split"] = chosen
        write_json(found, self.save_dir / "metrics.json")
        if not self.training or self.args.save_json:
            write_results(self.save_dir / "predictions.json", self.detections)
        if self.args.plots:
            self.draw()

    def print_results(self) -> None:
        """The table, in percent: one line during training or without `verbose`, else every class."""
        if not ranks.first():
            return
        result = self.metrics.result
        short = format_table({name: result[name] for name in HEADLINE})
        if self.training:
            LOGGER.info(short)
            return
        LOGGER.info("\n" + format_table(result) if self.args.verbose else short)
        if limits := self.whole.limits[len(AITOD_MAX_DETS) :]:
            words = f"`tinyyolo evaluate` takes that as max_dets={limits[0]}"
            LOGGER.info(f"AP of up to {limits[0]:,} detections an image, as there are scenes; {words}")
        report_left_out(self.dataloader.dataset)
        if chosen := self.chosen_among():
            LOGGER.info(f"these weights are the best of {chosen} epochs on this very split: {CHOSEN}")
        self.print_thresholds()
        if self.strangers:
            counts = ", ".join(f"{count:,} {name}" for name, count in self.strangers.most_common())
            LOGGER.warning(f"not counted, as {self.truth.path} has no such class: {counts}")
        LOGGER.info(f"Metrics, predictions and pictures: {self.save_dir}")

    def chosen_among(self) -> int:
        """Of how many epochs the weights are the best on the split that is reported; 0 if nothing was chosen on it."""
        trained, data = self.trained, self.data
        same = trained.get("data") == data["yaml_file"] and data.get(trained.get("split")) == data.get(self.args.split)
        if not same or trained.get("select", BEST) != BEST or not trained.get("val", True):
            return 0
        return int(trained["epochs"]) if trained.get("epochs", 1) > 1 else 0

    def print_thresholds(self) -> None:
        """What conf=auto of `predict` is by this validation, in a line."""
        if self.thresholds is None:
            LOGGER.info(f"conf={AUTO} of predict: {SHOWN_SCORE}, as there are {TOO_LITTLE}")
            return
        said = f"conf={AUTO} of predict: {score_words(self.thresholds, self.names)}"
        if self.common:
            said += (
                f" ({', '.join(some(self.common, PICTURES, ''))}: of all classes together, as there are {TOO_LITTLE})"
            )
        LOGGER.info(said)

    def draw(self) -> None:
        """Predictions beside ground truth, AP by size, precision over recall, and which class was taken for which."""
        from tinyyolo import plots

        folder, result = self.save_dir, self.metrics.result
        if self.pictures:
            shown = self.metrics.thresholds or dict.fromkeys(self.truth.names.values(), SHOWN_SCORE)
            shown = {name: score for name, score in shown.items() if name in self.truth.names.values()}
            sure = find_errors(self.truth, self.detections, threshold=shown, max_dets=self.whole.limits)
            read = partial(opened, rendering=self.dataloader.dataset.rendering)
            self.on_plot(plots.compare_images(sure, self.pictures, folder / "predictions.jpg", read))
        sizes = {key.removeprefix("AP_"): value for key, value in result.items() if key.startswith("AP_")}
        self.on_plot(plots.ap_by_size({"AP": sizes}, folder / "ap_by_size.png"))
        names = list(result["per_class"])
        curves = {name: self.precision[0, :, k, 0, -1] for k, name in enumerate(names)}  # at IoU .5, all sizes
        self.on_plot(plots.pr_curves(curves, folder / "pr_curve.png"))
        errors = find_errors(self.truth, self.detections, max_dets=self.whole.limits)
        names = [errors.truth.names[i] for i in range(len(errors.truth.names))]
        self.on_plot(plots.confusion_matrix(confusion_counts(errors), names, folder / "confusion_matrix.png"))

    def plot_val_samples(self, *_: Any, **__: Any) -> None:
        """Drawn once, at the end, by `draw`."""

    plot_predictions = plot_val_samples


def is_last(model: Detector) -> bool:
    """Whether a detector is that of a run's last.pt, on which nothing was chosen."""
    return model.pt_path is not None and Path(model.pt_path).name == "last.pt"


def ground_truth(dataset: TinyDataset, classes: Sequence[int] | None) -> Annotations:
    """Objects of `classes` (None: all) in exactly the images that the dataset shows; one class for single_cls."""
    images = np.zeros(len(dataset.annotations), dtype=bool)
    images[dataset.rows] = True
    notes = subset(dataset.annotations, images)
    notes = notes if classes is None else of_classes(notes, classes)
    if not dataset.single_cls:
        return notes
    objects = notes.labels >= 0
    return replace(
        notes,
        names={0: "item"},
        category_ids=notes.category_ids[:1],
        labels=np.where(objects, 0, notes.labels),
        box_categories=np.where(objects, notes.category_ids[0], notes.box_categories),
    )


def match_classes(names: Mapping[int, str], truth: Annotations) -> dict[int, int]:
    """The model's class index -> the truth's, by name. UserError: they have no class in common."""
    ids = {name: i for i, name in truth.names.items()}
    out = {index: ids[name] for index, name in names.items() if name in ids}
    if not out:
        own = ", ".join(names.values())
        raise UserError(f"{truth.path}: none of its classes ({', '.join(ids)}) is one of the model's ({own})")
    return out
