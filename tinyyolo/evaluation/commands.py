"""The commands `evaluate`, `compare` and `report`: keyword arguments in, text and files out."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError, suggest, whole
from tinyyolo.evaluation.agreement import changed_boxes, compare
from tinyyolo.evaluation.detections import files_of, read_detections
from tinyyolo.evaluation.errors import PAPER_SCORE, count_errors, find_errors, write_missed_labels
from tinyyolo.evaluation.inputs import read_truth
from tinyyolo.evaluation.metrics import AITOD_MAX_DETS, COCO_MAX_DETS, IOU_THRESHOLDS, evaluate
from tinyyolo.evaluation.report import LARGEST_BLANK, write_pngs, write_report
from tinyyolo.evaluation.table import format_counts, format_table, write_csv, write_json
from tinyyolo.sizes import AITOD, COCO

Ranges = Mapping[str, tuple[float, float]]
SIZES: dict[str, tuple[Ranges, Sequence[int]]] = {"aitod": (AITOD, AITOD_MAX_DETS), "coco": (COCO, COCO_MAX_DETS)}


def evaluate_command(
    gt: str | Path | None = None,
    dt: str | Path | None = None,
    sizes: str | Mapping[str, Sequence[float]] = "aitod",
    max_dets: Sequence[int] | int | None = None,
    iou: Sequence[float] | float | None = None,
    lrp: bool = True,
    ignore: Sequence[str] | str = (),
    rules: str = "tinyyolo",
    out: str | Path = "runs/evaluate",
) -> None:
    """Score any detector's results: tinyyolo evaluate gt=annotations.json dt=predictions.json

    Prints percent for all classes and each one, and writes `metrics.json` and `metrics.csv` (fractions).

    Args:
        gt: COCO JSON of the objects.
        dt: COCO results JSON of the detections; or many: a folder or a glob in quotes of COCO results, or the folder of
            shards that predict shard= leaves, read by groups of images, so that they may be larger than the memory.
        sizes: aitod, coco, or your own ranges of the side in pixels, such as "{vt: [0, 8], t: [8, 16]}".
        max_dets: limits of detections for each image and class; by default those of `sizes`.
        iou: IoU thresholds to average over; by default .5 to .95.
        lrp: also the optimal LRP error and its threshold for each class.
        ignore: categories whose boxes are ignore regions, such as DontCare.
        rules: tinyyolo, or coco for exactly what pycocotools reads: `iscrowd` alone is a region, empty boxes stay.
        out: folder for the two files.
    """
    gt, dt = required("evaluate", gt=gt, dt=dt)
    ranges, limits = named_sizes(sizes)
    limits = [int(m) for m in as_list("max_dets", max_dets) or limits]
    thresholds = as_list("iou", iou) or IOU_THRESHOLDS
    truth = read_truth(gt, words(ignore), rules=rules)
    detections: Any = dt
    if not files_of(dt):
        detections = read_detections(dt, truth)
        if not len(detections.labels):
            print(f"{dt}: there are no detections in it", file=sys.stderr)
    settings: dict[str, Any] = {"max_dets": limits, "area_ranges": ranges, "iou_thresholds": thresholds}
    result = evaluate(truth, detections, lrp=bool(lrp), **settings)
    folder = Path(out)
    write_json(result, folder / "metrics.json")
    write_csv(result, folder / "metrics.csv")
    print(format_table(result))
    print(f"Saved {folder / 'metrics.json'} and {folder / 'metrics.csv'}")


def required(command: str, **given: str | Path | None) -> list[str]:
    """The values, all there."""
    for key, value in given.items():
        if value is None:
            raise UserError(f"{command}: {key}= is missing; usage: tinyyolo {command} gt=objects.json dt=found.json")
    return [str(value) for value in given.values()]


def named_sizes(sizes: str | Mapping[str, Sequence[float]]) -> tuple[Mapping[str, Any], Sequence[int]]:
    """Area ranges and detection limits of a name or of the user's own ranges."""
    if isinstance(sizes, Mapping):
        return {str(k): tuple(as_list(f"sizes.{k}", v)) for k, v in sizes.items()}, AITOD_MAX_DETS
    if sizes not in SIZES:
        raise UserError(f"sizes={sizes}: {suggest(sizes, SIZES)}")
    return SIZES[sizes]


def words(value: Sequence[str] | str | None) -> list[str]:
    """One word or a list of words as a list."""
    return [str(v) for v in (value if isinstance(value, (list, tuple)) else [value] if value is not None else ())]


def one_number(key: str, value: Any) -> float:
    """The value, a finite number."""
    found = as_list(key, value)
    if isinstance(value, (list, tuple)) or len(found) != 1:
        raise UserError(f"{key}={value}: expected a number")
    return found[0]


def as_list(key: str, value: Any) -> list[float]:
    """A number or a list of numbers as a list; None is empty."""
    values = [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values):
        raise UserError(f"{key}={value}: expected a number or a list of numbers, such as [100, 300]")
    return values


def compare_command(
    *files: str | Path,
    score: float = PAPER_SCORE,
    sizes: str | Mapping[str, Sequence[float]] = "aitod",
    ignore: Sequence[str] | str = (),
    rules: str = "tinyyolo",
    out: str | Path = "runs/compare",
) -> None:
    """Compare two annotation sets, or predictions with annotations: tinyyolo compare first.json second.json

    Prints the AP of the second against the first, the boxes of each by size, and how many were moved, relabelled,
    removed and added; writes `compare.json` and `changes.json` (every changed box, as COCO JSON).

    Args:
        files: two COCO files; the second may be COCO results.
        score: least score of a prediction that is counted.
        sizes: aitod, coco, or your own ranges of the side in pixels.
        ignore: categories whose boxes are ignore regions, such as DontCare.
        rules: tinyyolo, or coco for exactly what pycocotools reads: `iscrowd` alone is a region, empty boxes stay.
        out: folder for the two files.
    """
    if len(files) != 2:
        raise UserError(f"compare: {len(files)} files given, two are needed; usage: tinyyolo compare a.json b.json")
    ranges, limits = named_sizes(sizes)
    score = one_number("score", score)
    result = compare(*files, score=score, area_ranges=ranges, max_dets=limits, ignore=words(ignore), rules=rules)
    pairing, images = result.pop("pairing"), result["images"]
    folder = Path(out)
    write_json(result, folder / "compare.json")
    write_json(changed_boxes(pairing), folder / "changes.json")
    print(f"{images['both']} images in both, {images['first']} only in the first, {images['second']} in the second")
    print(f"\nSecond against first, percent\n{format_table(result['agreement'])}")
    print(f"\nBoxes by size\n{format_counts(result['counts'], 'size')}")
    print(f"\nChanges from first to second\n{format_counts(result['changes'], 'class')}")
    print(f"Saved {folder / 'compare.json'} and {folder / 'changes.json'}")


def report_command(
    gt: str | Path | None = None,
    dt: str | Path | None = None,
    images: str | Path | None = None,
    out: str | Path = "runs/report",
    threshold: float | Mapping[str, float] | None = None,
    sizes: str | Mapping[str, Sequence[float]] = "aitod",
    limit: int = 200,
    pngs: int = 20,
    embed: bool = False,
    missed: float | None = None,
    ignore: Sequence[str] | str = (),
    rules: str = "tinyyolo",
) -> None:
    """Show what went wrong: tinyyolo report gt=annotations.json dt=predictions.json images=folder

    Writes `report.html` (opens from disk: worst images first, zoom to the pixel, filters), PNGs, `errors.json` with all
    counts, and `missed_labels.json`, confident false positives that may be missing labels, as COCO JSON.

    Args:
        gt: COCO JSON of the objects.
        dt: COCO results JSON of the detections.
        images: folder of the images.
        out: folder to write to.
        threshold: least score, one for all or by class such as "{ship: 0.4}"; by default where LRP is least, by class.
        sizes: aitod, coco, or your own ranges of the side in pixels.
        limit: images on the page.
        pngs: images as PNG.
        embed: put the images into the page instead of referring to them.
        missed: least score of a label that may be missing; by default the threshold of its class.
        ignore: categories whose boxes are ignore regions, such as DontCare.
        rules: tinyyolo, or coco for exactly what pycocotools reads: `iscrowd` alone is a region, empty boxes stay.
    """
    try:
        whole(0, limit=limit, pngs=pngs)
    except ValueError as error:
        raise UserError(str(error)) from error
    gt, dt = required("report", gt=gt, dt=dt)
    ranges, limits = named_sizes(sizes)
    kind: dict[str, Any] = {"ignore": words(ignore), "rules": rules}
    errors = find_errors(gt, dt, threshold=threshold, area_ranges=ranges, max_dets=limits, **kind)
    folder, source = Path(out), None if images is None else Path(images)
    shown, absent = write_report(errors, folder / "report.html", source, limit, bool(embed))
    drawn = write_pngs(errors, folder / "images", source, pngs) if pngs else []
    if lost := min(pngs, len(errors.truth)) - len(drawn):
        print(f"{lost} PNGs left out: images that are not there, of over {LARGEST_BLANK:,} px", file=sys.stderr)
    counts = count_errors(errors)
    thresholds = dict(zip(errors.truth.names.values(), errors.thresholds.tolist(), strict=True))
    write_json({"thresholds": thresholds, "counts": counts}, folder / "errors.json")
    labels = write_missed_labels(errors, folder / "missed_labels.json", missed)
    print(format_counts({name: by_size["all"] for name, by_size in counts.items()}, "class"))
    print(format_counts({size: numbers for size, numbers in counts["all"].items() if size != "all"}, "size"))
    if absent:
        where = f"not in {images}, cannot be opened, or are links that lead out of it"
        print(f"{absent} of {shown} images are {where}; the page shows their boxes alone")
    print(f"Saved {folder / 'report.html'} ({shown} images), {len(drawn)} PNGs, {labels} labels that may be missing")
