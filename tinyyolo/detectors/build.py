"""From a resolved model YAML to a model: the only place that turns names into classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tinyyolo.assigners import ASSIGNERS, Assigner, RandomSampler
from tinyyolo.backbones import BACKBONES
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.boxes.coders import DeltaCoder
from tinyyolo.config import Table, UserError, above, build, construct, shown, suggest, whole
from tinyyolo.detectors import tensor_files
from tinyyolo.detectors.auto import settle
from tinyyolo.detectors.base import IMAGENET_MEAN, IMAGENET_STD, Detector
from tinyyolo.detectors.one_stage import OneStage
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.detectors.two_stage import TwoStage
from tinyyolo.detectors.weights import imagenet_note, load_backbone
from tinyyolo.heads import HEADS, ROI_HEADS, RPN_HEADS
from tinyyolo.necks import NECKS

DEFAULT_CLASSES = 8  # AI-TOD's; the engine rebuilds with the data's own number
# The sections of a head's section, by the class in the head's signature.
PARTS: dict[type, Table] = {
    Assigner: ASSIGNERS,
    RandomSampler: {"random": RandomSampler},
    AnchorGrid: {"grid": AnchorGrid},
    DeltaCoder: {"delta": DeltaCoder},
}
REST = ("nc", "train", "published")
# Keys at the top beside the heads: what they may be, the default, what they do.
COMMON_KEYS = {
    "detector": ("one_stage or two_stage", "", "one_stage has the section head, two_stage has rpn and roi"),
    "backbone": ("a section", "", "the network; `weights`, with every type, is the file of its starting weights"),
    "neck": ("a section", "", "what makes the maps of the heads from those of the backbone"),
    "normalize": (
        "imagenet, a mapping or null",
        "null",
        "mean and std of RGB in [0, 1]; null: as it is",
    ),
    "pad": ("center or corner", "center", "where an image lies in an input of another shape: center on grey, corner"),
    "test": ("a mapping", "{}", "how candidates become detections, where a run's keys do not say it"),
    "nc": ("a whole number", "8", "classes; training takes those of its data"),
    "train": ("a mapping", "{}", "keys of a run that go with the model; a run's own win"),
    "published": ("a mapping", "{}", "figures of a paper, for people; nothing is computed from them"),
}


class Kind(NamedTuple):
    """A kind of detector: its class and its heads, in the order of the class's arguments."""

    detector: Callable[..., Detector]
    heads: Mapping[str, Table]


DETECTORS = {
    "one_stage": Kind(OneStage, {"head": HEADS}),
    "two_stage": Kind(TwoStage, {"rpn": RPN_HEADS, "roi": ROI_HEADS}),
}
# What the builder gives to the classes of a section, which are no keys there.
GIVEN = {"neck": ("in_channels", "in_strides", "backbone")}
GIVEN |= {name: ("in_channels", "in_strides", "num_classes") for kind in DETECTORS.values() for name in kind.heads}


def build_model(spec: Mapping[str, Any], num_classes: int | None = None) -> Detector:
    """The detector of a resolved model YAML.

    Args:
        spec: as `config.load_model_yaml` returns it.
        num_classes: C; by default the YAML's `nc`, else 8.

    Raises:
        UserError: an unknown detector, section, type or key, or a value that a constructor refuses.
    """
    check_sections(spec)
    rest = {key: spec[key] for key in REST if key in spec} | ({} if num_classes is None else {"nc": num_classes})
    num_classes = construct(classes_of, rest, "")
    resolved, spec = {**spec, "nc": num_classes}, settle(spec)
    backbone = build_backbone(spec["backbone"], bool(rest.get("published")))
    given = {"in_channels": backbone.channels, "in_strides": backbone.strides, "backbone": backbone}
    neck = build(NECKS, spec["neck"], "neck", **given)  # recursive necks run a twin of the backbone
    maps = {"in_channels": neck.channels, "in_strides": neck.strides, "num_classes": num_classes}
    kind = DETECTORS[spec["detector"]]
    heads = [build(table, spec[name], name, PARTS, **maps) for name, table in kind.heads.items()]
    if (weights := spec["backbone"].get("weights")) and (stage := getattr(heads[-1], "shared_head", None)) is not None:
        load_backbone(stage, weights)  # the rest of the network that the backbone begins
    base = {"test": spec.get("test"), "normalize": normalization(spec.get("normalize")), "spec": resolved}
    base |= {"pad": spec["pad"]} if "pad" in spec else {}
    return kind.detector(backbone, neck, *heads, num_classes=num_classes, **base)


def check_sections(spec: Any) -> None:
    """Check what no constructor sees: the names of the sections of a model YAML, and `test`.

    Raises:
        UserError: no mapping, or a section that is missing, unknown or no section.
    """
    if not isinstance(spec, Mapping):
        raise UserError(f"model={shown(spec)}: expected a mapping with the sections of a detector")
    name = spec.get("detector")
    if not isinstance(name, str) or name not in DETECTORS:
        raise UserError(f"detector={shown(name)}: unknown; {suggest(name, DETECTORS)}")
    needed = ("backbone", "neck", *DETECTORS[name].heads)
    allowed = {*COMMON_KEYS, *needed}
    for key in spec:
        if key not in allowed:
            raise UserError(f"{key}: no section of a {name} model; {suggest(key, allowed)}")
    if missing := [key for key in needed if key not in spec]:
        raise UserError(f"model: a {name} detector needs the section {', '.join(missing)}")
    Postprocess.of(spec.get("test") or {})


def classes_of(
    nc: int = DEFAULT_CLASSES, train: Mapping[str, Any] | None = None, published: Mapping[str, Any] | None = None
) -> int:
    """C of a model YAML, from what it says beside the sections: `train` is for the engine, `published` for people.

    Raises:
        ValueError: nc < 1.
    """
    whole(1, nc=nc)
    return nc


def normalization(given: Any) -> Mapping[str, Any] | None:
    """What a YAML's `normalize:` says, a word, a mapping or null: mean and standard deviation per channel, and `bgr`.

    Raises:
        UserError: none of these.
    """
    if given is None or given == "imagenet":
        return given and {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    if not isinstance(given, Mapping):
        raise UserError(f"normalize={shown(given)}: expected a mapping of mean and std, imagenet, or null")
    values: dict[str, Any] = construct(mean_and_std, given, "normalize")
    return values


def mean_and_std(mean: Sequence[float], std: Sequence[float], bgr: bool = False) -> dict[str, Any]:
    """The section `normalize`.

    Args:
        mean: of red, green and blue, in [0, 1].
        std: standard deviation of the same.
        bgr: the network takes blue, green and red.

    Raises:
        ValueError: not three numbers, or a std that is not above 0.
    """
    for name, values in {"mean": mean, "std": std}.items():
        if len(values) != len(IMAGENET_MEAN):
            raise ValueError(f"{name}={shown(values)}: expected a number for each of red, green and blue")
    above(0, std=std)
    return {"mean": mean, "std": std, "bgr": bgr}


def build_backbone(spec: Any, published: bool = False) -> Any:
    """The backbone, with the weights of a local file when `weights:` names one.

    Of a model with published figures it is told where they started from other weights.

    Raises:
        UserError: a section that `build` refuses, or weights that are not this backbone's, or damaged.
    """
    options = dict(spec) if isinstance(spec, Mapping) else spec
    weights = options.pop("weights", None) if isinstance(spec, Mapping) else None
    backbone = build(BACKBONES, options, "backbone")
    if weights is not None:
        if not isinstance(weights, str):
            raise UserError(f"backbone.weights={shown(weights)}: expected the path of a file")
        load_backbone(backbone, weights)
        if (note := imagenet_note(tensor_files.start(weights)[0])) and published:
            print(note)
    return backbone
