"""What an exported file says of itself: written by every format alike, and read with care."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from tinyyolo import __version__
from tinyyolo.config import UserError, kind_fault
from tinyyolo.detectors.base import Detector
from tinyyolo.detectors.postprocess import Postprocess, thresholds_fault
from tinyyolo.sizes import ENGINE_STRIDE

SIDES = 2  # of an image
LICENCE = "AGPL-3.0-only"
KEPT = (("rendering", ("bands", "stretch")), ("looks", ("overlap", "zoom")))  # tiles have one size


class Rendered(TypedDict, total=False):
    """What older exports lack."""

    rendering: dict[str, Any]  # bands and stretch of the training
    looks: dict[str, Any]  # overlap and zoom of the training
    pad_colour: list[float] | None  # of what fills up an image in the corner of the input; null: it is in the centre
    dynamic: bool  # whether any batch and size goes; false: imgsz alone
    nms: bool  # whether detections come out, too
    precision: str  # of the weights: float32, float16, int8


class Metadata(Rendered):
    """What an export says of itself, as far as we read it."""

    names: dict[str, str]
    imgsz: list[int]
    test: dict[str, Any]


def describe(detector: Detector, size_hw: Sequence[int], title: str, **more: Any) -> dict[str, Any]:
    """The metadata of an export: what it finds, how it is used, and by whom it was written.

    Args:
        detector: what is exported.
        size_hw: height and width that it takes, or is best at.
        title: what the file calls the model.
        more: further entries, see `Rendered`.
    """
    said: dict[str, Any] = {"description": f"tinyyolo {title}".strip(), "version": __version__, "task": "detect"}
    said |= {"license": LICENCE, "batch": 1, "channels": 3, "imgsz": list(size_hw), "stride": ENGINE_STRIDE, "args": {}}
    said |= {"names": detector.names, "test": detector.test, "pad_colour": detector.pad_colour}
    trained = getattr(detector, "args", None) or {}
    for section, keys in KEPT:
        said[section] = {key: trained[key] for key in keys if trained.get(key) is not None}
    return said | {"thresholds": detector.thresholds} | more


def checked(content: Any, path: Path, what: str) -> dict[str, Any]:
    """Metadata as read from `what` of a file, if they are those of an export of this version.

    Raises:
        UserError: they are not; says what is wrong.
    """
    if not isinstance(content, dict) or not isinstance(content.get("test"), dict):
        version = content.get("version") if isinstance(content, dict) else None
        older = f"written by tinyyolo {version}, which left out the test settings"
        raise UserError(f"{path}: {older}: export the checkpoint again")
    said, place = kind_fault(content, Metadata)
    if not said and (len(content["imgsz"]) != SIDES or min(content["imgsz"]) < 1):
        said, place = f"expected height and width, found {content['imgsz']}", "imgsz"
    if not said and list(content["names"]) != [str(i) for i in range(len(content["names"]))]:
        said, place = "expected the class names 0, 1, 2 ...", "names"
    if not said:
        said, place = thresholds_fault(content.get("thresholds"), len(content["names"])), ""
    if said:
        raise UserError(f"{path}: its {what}: {place.lstrip('.')}{': ' if place else ''}{said}")
    Postprocess.of(content["test"])
    return content
