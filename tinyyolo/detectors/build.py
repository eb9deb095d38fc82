"""From a resolved model YAML to a model: the only place that turns names into classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tinyyolo.assigners import ASSIGNERS, RandomSampler
from tinyyolo.backbones import BACKBONES
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.boxes.coders import DeltaCoder
from tinyyolo.config import UserError, build, suggest
from tinyyolo.detectors.auto import settle
from tinyyolo.detectors.base import IMAGENET_MEAN, IMAGENET_STD, PUBLISHED_TEST, Detector
from tinyyolo.detectors.one_stage import OneStage
from tinyyolo.detectors.two_stage import TwoStage
from tinyyolo.detectors.weights import load_backbone
from tinyyolo.heads import HEADS, ROI_HEADS, RPN_HEADS
from tinyyolo.necks import NECKS

DEFAULT_CLASSES = 8  # AI-TOD's; the engine rebuilds with the data's own number
SAMPLERS = {"random": RandomSampler}
TOP_KEYS = {
    "one_stage": {"backbone", "neck", "head"},
    "two_stage": {"backbone", "neck", "rpn", "roi"},
}
COMMON_KEYS = {"detector", "train", "test", "normalize", "published", "nc"}
IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
# Built before the head that owns them; every other key goes to the head's constructor as it is.
PARTS = {
    "assigner": lambda spec, where: build(ASSIGNERS, spec, where),
    "sampler": lambda spec, where: build(SAMPLERS, spec, where),
    "anchors": lambda spec, where: build({"grid": AnchorGrid}, {"type": "grid", **spec}, where),
    "coder": lambda spec, where: build({"delta": DeltaCoder}, {"type": "delta", **spec}, where),
}


def build_model(spec: Mapping[str, Any], num_classes: int | None = None) -> Detector:
    """The detector of a resolved model YAML.

    Args:
        spec: as `config.load_model_yaml` returns it.
        num_classes: C; by default the YAML's `nc`, else 8.

    Raises:
        UserError: an unknown detector, section, type or key, or a value that a constructor refuses.
    """
    kind = spec.get("detector")
    if kind not in TOP_KEYS:
        raise UserError(f"detector={kind}: unknown; {suggest(kind, TOP_KEYS)}")
    allowed = TOP_KEYS[kind] | COMMON_KEYS
    for key in spec:
        if key not in allowed:
            raise UserError(f"{key}: no section of a {kind} model; {suggest(key, allowed)}")
    if missing := sorted(TOP_KEYS[kind] - set(spec)):
        raise UserError(f"model: a {kind} detector needs the section {', '.join(missing)}")
    check_test(spec.get("test") or {})
    num_classes = num_classes or int(spec.get("nc", DEFAULT_CLASSES))
    resolved, spec = {**spec, "nc": num_classes}, settle(spec)
    backbone = build_backbone(spec["backbone"])
    given = {"in_channels": backbone.channels, "in_strides": backbone.strides, "backbone": backbone}
    neck = build(NECKS, spec["neck"], "neck", **given)  # recursive necks run a twin of the backbone
    maps = {"in_channels": neck.channels, "in_strides": neck.strides, "num_classes": num_classes}
    base = {
        "num_classes": num_classes,
        "test": spec.get("test"),
        "normalize": IMAGENET if spec.get("normalize") == "imagenet" else spec.get("normalize"),
        "spec": resolved,
    }
    if kind == "one_stage":
        return OneStage(backbone, neck, build_head(HEADS, spec["head"], "head", **maps), **base)
    rpn = build_head(RPN_HEADS, {"type": "rpn", **spec["rpn"]}, "rpn", **maps)
    roi = build_head(ROI_HEADS, spec["roi"], "roi", **maps)
    return TwoStage(backbone, neck, rpn, roi, **base)


def check_test(settings: Mapping[str, Any]) -> None:
    """Raise UserError for an unknown key or a bad count of votes in a YAML's `test:`."""
    for key in settings:
        if key not in PUBLISHED_TEST:
            raise UserError(f"test.{key}: unknown; {suggest(key, PUBLISHED_TEST)}")
    votes = settings.get("votes", 1)
    if isinstance(votes, bool) or not isinstance(votes, int) or votes < 1:
        raise UserError(f"test.votes={votes}: expected a whole number of at least 1")


def build_backbone(spec: Mapping[str, Any]) -> nn.Module:
    """The backbone, with the weights of a local file when `weights:` names one."""
    options = {key: value for key, value in spec.items() if key != "weights"}
    backbone = build(BACKBONES, options, "backbone")
    if spec.get("weights"):
        load_backbone(backbone, spec["weights"])
    return backbone


def build_head(table: Mapping[str, Any], spec: Mapping[str, Any], where: str, **given: Any) -> nn.Module:
    """A head, its parts built first: an assigner, sampler, coder or anchor grid, or a list of them (cascade stages)."""
    options = dict(spec)
    for name, make in PARTS.items():
        value = options.get(name)
        if isinstance(value, Mapping):
            options[name] = make(value, f"{where}.{name}")
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            options[name] = [make(v, f"{where}.{name}.{i}") for i, v in enumerate(value)]
    return build(table, options, where, **given)
