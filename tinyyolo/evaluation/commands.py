"""The commands `evaluate`, `compare` and `report`: keyword arguments in, text and files out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError, suggest
from tinyyolo.evaluation.metrics import AITOD, AITOD_MAX_DETS, COCO, COCO_MAX_DETS, IOU_THRESHOLDS, evaluate
from tinyyolo.evaluation.table import format_table, write_csv, write_json

SIZES = {"aitod": (AITOD, AITOD_MAX_DETS), "coco": (COCO, COCO_MAX_DETS)}


def evaluate_command(
    gt: str | None = None,
    dt: str | None = None,
    sizes: str | Mapping[str, Sequence[float]] = "aitod",
    max_dets: Sequence[int] | None = None,
    iou: Sequence[float] | float | None = None,
    lrp: bool = True,
    out: str = "runs/evaluate",
) -> None:
    """Score any detector's results: tinyyolo evaluate gt=annotations.json dt=predictions.json

    Prints percent for all classes and each one, and writes `metrics.json` and `metrics.csv` (fractions).

    Args:
        gt: COCO JSON of the objects.
        dt: COCO results JSON of the detections.
        sizes: aitod, coco, or your own ranges of the side in pixels, such as "{vt: [0, 8], t: [8, 16]}".
        max_dets: limits of detections for each image and class; by default those of `sizes`.
        iou: IoU thresholds to average over; by default .5 to .95.
        lrp: also the optimal LRP error and its threshold for each class.
        out: folder for the two files.
    """
    gt, dt = required("evaluate", gt=gt, dt=dt)
    ranges, limits = named_sizes(sizes)
    result = evaluate(
        gt,
        dt,
        max_dets=as_list("max_dets", max_dets) or limits,
        area_ranges=ranges,
        iou_thresholds=as_list("iou", iou) or IOU_THRESHOLDS,
        lrp=bool(lrp),
    )
    folder = Path(out)
    write_json(result, folder / "metrics.json")
    write_csv(result, folder / "metrics.csv")
    print(format_table(result))
    print(f"Saved {folder / 'metrics.json'} and {folder / 'metrics.csv'}")


def required(command: str, **given: str | None) -> list[str]:
    """The values, all there.

    Raises:
        UserError: one is None.
    """
    missing = [key for key, value in given.items() if value is None]
    if missing:
        raise UserError(f"{command}: {missing[0]}= is missing; usage: tinyyolo {command} gt=objects.json dt=found.json")
    return [str(value) for value in given.values()]


def named_sizes(sizes: str | Mapping[str, Sequence[float]]) -> tuple[Mapping[str, Any], Sequence[int]]:
    """Area ranges and detection limits of a name or of the user's own ranges."""
    if isinstance(sizes, Mapping):
        return {str(k): tuple(as_list(f"sizes.{k}", v)) for k, v in sizes.items()}, AITOD_MAX_DETS
    if sizes not in SIZES:
        raise UserError(f"sizes={sizes}: {suggest(sizes, SIZES)}")
    return SIZES[sizes]


def as_list(key: str, value: Any) -> list[float]:
    """A number or a list of numbers as a list; None is empty.

    Raises:
        UserError: anything else.
    """
    values = [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        raise UserError(f"{key}={value}: expected a number or a list of numbers, such as [100, 300]")
    return values
