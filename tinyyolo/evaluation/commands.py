"""The command `evaluate`: keyword arguments in, text and files out; and how all commands on results read their keys."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError, path_of, suggest
from tinyyolo.evaluation.detections import files_of, read_detections
from tinyyolo.evaluation.inputs import read_truth
from tinyyolo.evaluation.metrics import AITOD_MAX_DETS, COCO_MAX_DETS, IOU_THRESHOLDS, evaluate
from tinyyolo.evaluation.summary.rows import sheet_of
from tinyyolo.evaluation.summary.sheet import ENDINGS, form_of, write
from tinyyolo.evaluation.table import format_table, write_csv, write_json
from tinyyolo.io import as_file_names
from tinyyolo.sizes import AITOD, COCO

Ranges = Mapping[str, tuple[float, float]]
RUN_FILE = "predictions"  # as `val` calls what it writes into a run's folder
SIZES: dict[str, tuple[Ranges, Sequence[int]]] = {"aitod": (AITOD, AITOD_MAX_DETS), "coco": (COCO, COCO_MAX_DETS)}


def evaluate_command(
    gt: str | Path | None = None,
    dt: str | Sequence[str] | None = None,
    sizes: str | Mapping[str, Sequence[float]] = "aitod",
    max_dets: Sequence[int] | int | None = None,
    iou: Sequence[float] | float | None = None,
    lrp: bool = True,
    ignore: Sequence[str] | str = (),
    rules: str = "tinyyolo",
    out: str | Path = "runs/evaluate",
    per_class: bool | None = None,
    names: Sequence[str] | str | None = None,
    format: str | None = None,
) -> None:
    """Score any detector's results: tinyyolo evaluate gt=annotations.json dt=predictions.json

    Prints percent for all classes and each one, and writes `metrics.json` and `metrics.csv` (fractions). Of several,
    dt=[a.json,b.json], it prints one table, a row each, and writes it beside a folder of these files for each.

    Args:
        gt: COCO JSON of the objects.
        dt: COCO results JSON of the detections, a list of them for a table; or many as one: a folder or a glob in
            quotes of COCO results, or the folder of shards that predict shard= leaves, read by groups of images, so
            that they may be larger than the memory.
        sizes: aitod, coco, or your own ranges of the side in pixels, such as "{vt: [0, 8], t: [8, 16]}".
        max_dets: limits of detections for each image and class; by default those of `sizes`.
        iou: IoU thresholds to average over; by default .5 to .95.
        lrp: also the optimal LRP error and its threshold for each class.
        ignore: categories whose boxes are ignore regions, such as DontCare.
        rules: tinyyolo, or coco for exactly what pycocotools reads: `iscrowd` alone is a region, empty boxes stay.
        out: folder for the files.
        per_class: of several: AP of each class, as the paper's Table 5.
        names: of several: what the table calls them, by default their files; those of one name are seeds of one row.
        format: of several: markdown, latex (booktabs) or csv.
    """
    files = [str(results_file(file)) for file in words(dt)]
    gt, *_ = required("evaluate", gt=gt, dt=files[0] if files else None)
    alone = not isinstance(dt, (list, tuple))
    if alone and (given := [k for k, v in {"per_class": per_class, "names": names, "format": format}.items() if v]):
        raise UserError(f"{given[0]}=: it is for several detectors' results: dt=[a.json,b.json]")
    titles, form = result_names(files, names, repeat=True), form_of(format, None)
    ranges, limits = named_sizes(sizes)
    limits = [int(m) for m in as_list("max_dets", max_dets) or limits]
    thresholds = as_list("iou", iou) or IOU_THRESHOLDS
    truth = read_truth(gt, words(ignore), rules=rules)
    settings: dict[str, Any] = {"max_dets": limits, "area_ranges": ranges, "iou_thresholds": thresholds}
    records: list[dict[str, Any]] = []
    places = [Path(out)] if alone else [Path(out, name) for name in as_file_names(dict(enumerate(titles))).values()]
    for file, title, folder in zip(files, titles, places, strict=True):
        detections: Any = file
        if not files_of(file):  # many are read by groups of images
            detections = read_detections(file, truth)
            if not len(detections.labels):
                print(f"{file}: there are no detections in it", file=sys.stderr)
        result = evaluate(truth, detections, lrp=bool(lrp), **settings)
        write_json(result, folder / "metrics.json")
        write_csv(result, folder / "metrics.csv")
        figures = {key: value for key, value in result.items() if isinstance(value, (int, float))}
        records.append({"row": title, "label": title, "metrics": figures, "per_class": result["per_class"]})
    if alone:
        print(format_table(result))
        print(f"Saved {folder / 'metrics.json'} and {folder / 'metrics.csv'}")
        return
    path = Path(out, f"table{ENDINGS[form]}")
    print(write(sheet_of(records, per_class=bool(per_class), before=(), behind=()), form, path, overwrite=True), end="")
    print(f"Saved {path}, and metrics.json and metrics.csv in {', '.join(map(str, places))}", file=sys.stderr)


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


def results_file(given: str) -> Path:
    """A file of results that a user gave; of a run's folder its predictions.json."""
    path = path_of(given, "dt=")
    inside = path / f"{RUN_FILE}.json"
    return inside if inside.is_file() else path


def result_names(files: Sequence[str], names: Sequence[str] | str | None = None, *, repeat: bool = False) -> list[str]:
    """What files of results are called: `names`, or their own without end; of a run's predictions.json its folder's.

    Raises:
        UserError: not one name a file, or two files of one name, unless names may `repeat`, as of seeds.

    Examples:
        >>> result_names(["a/yolo.json", "runs/val/fcos/predictions.json"])
        ['yolo', 'fcos']
        >>> result_names(["v1/train.json", "v2/train.json"])
        ['v1/train', 'v2/train']
    """
    given = words(names)
    if given and len(given) != len(files):
        raise UserError(f"names={names}: {len(given)} names for {len(files)} files")
    paths = [path_of(file).absolute() for file in files]
    found = given or [path.parent.name if path.stem == RUN_FILE else path.stem for path in paths]
    if len(set(found)) < len(found) and not given:
        found = [f"{path.parent.name}/{path.stem}" for path in paths]
    if twice := [name for name in found if found.count(name) > 1 and not (repeat and given)]:
        raise UserError(f"two of {', '.join(map(str, files))} are called {twice[0]!r}; tell them apart by names=[a,b]")
    return found


def tell_unused(given: Mapping[str, Any], what: str) -> None:
    """A line of the keys that were given and that `what` does not take."""
    if unused := [f"{key}=" for key, value in given.items() if value]:
        print(f"not used in {what}: {', '.join(unused)}", file=sys.stderr)
