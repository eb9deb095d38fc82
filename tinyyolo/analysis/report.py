"""The command `report`: what went wrong with one detector as a page of HTML, of several as one page of a paper."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError, suggest, whole
from tinyyolo.evaluation.commands import named_sizes, required, result_names, results_file, tell_unused, words
from tinyyolo.evaluation.errors import Errors, count_errors, find_errors, write_missed_labels
from tinyyolo.evaluation.inputs import read_truth
from tinyyolo.evaluation.report import LARGEST_BLANK, worst_images, write_pngs, write_report
from tinyyolo.evaluation.table import format_counts, write_json
from tinyyolo.plots.charts import FORMATS
from tinyyolo.plots.errors import error_page
from tinyyolo.plots.frames import chosen_files

SUFFIXES = tuple(f".{kind}" for kind in FORMATS)  # of the file of a figure
PNGS = 20
SHOWN, COLUMNS = 200, 4  # images, on a page of HTML and in a figure


def report(
    gt: str | Path | None = None,
    dt: str | Sequence[str] | None = None,
    images: str | Path | None = None,
    out: str | Path = "runs/report",
    names: str | Sequence[str] | None = None,
    show: str | Sequence[str] | None = None,
    threshold: float | Mapping[str, float] | None = None,
    sizes: str | Mapping[str, Sequence[float]] = "aitod",
    limit: int | None = None,
    pngs: int = PNGS,
    embed: bool = False,
    missed: float | None = None,
    ignore: Sequence[str] | str = (),
    rules: str = "tinyyolo",
) -> None:
    """Show what went wrong: tinyyolo report gt=annotations.json dt=predictions.json images=folder

    Writes `report.html` (opens from disk: worst images first, zoom to the pixel, filters), PNGs, `errors.json` with all
    counts, and `missed_labels.json`, confident false positives that may be missing labels, as COCO JSON.

    Several detectors side by side as one page (the paper's Fig. 9): dt=[a.json,b.json] out=fig9.pdf

    Args:
        gt: COCO JSON of the objects.
        dt: COCO results JSON of the detections, or a run's folder that has its predictions.json; several of a figure.
        images: folder of the images.
        out: folder to write to; or the file of a figure, .pdf, .svg or .png.
        names: of a figure, what the detectors are called; by default as their files or, of predictions.json, folders.
        show: of a figure, file names of the images; by default those with most errors.
        threshold: least score, one for all or by class such as "{ship: 0.4}"; by default where LRP is least, by class.
        sizes: aitod, coco, or your own ranges of the side in pixels.
        limit: images on the page, 200 by default, in a figure 4.
        pngs: images as PNG.
        embed: put the images into the page instead of referring to them.
        missed: least score of a label that may be missing; by default the threshold of its class.
        ignore: categories whose boxes are ignore regions, such as DontCare.
        rules: tinyyolo, or coco for exactly what pycocotools reads: `iscrowd` alone is a region, empty boxes stay.
    """
    try:
        whole(0, pngs=pngs, **({} if limit is None else {"limit": limit}))
    except ValueError as error:
        raise UserError(str(error)) from error
    required("report", gt=gt, dt=None if not dt else str(dt))
    files = [str(results_file(file)) for file in words(dt)]
    ranges, limits = named_sizes(sizes)
    figure, source = figure_of(Path(out), len(files)), None if images is None else Path(images)
    called = result_names(files, names) if figure else []
    truth = read_truth(gt, words(ignore), rules=rules)
    settings: dict[str, Any] = {"threshold": threshold, "area_ranges": ranges, "max_dets": limits}
    found = [find_errors(truth, file, **settings) for file in files]
    if figure:
        of_pages = {"pngs": pngs != PNGS, "embed": embed, "missed": missed is not None}
        tell_unused(of_pages, "a figure")
        write_figure(dict(zip(called, found, strict=True)), figure, source, words(show), limit)
    else:
        tell_unused({"names": names is not None, "show": show is not None}, "the page of one detector")
        write_folder(found[0], Path(out), source, SHOWN if limit is None else limit, pngs, bool(embed), missed)


def figure_of(out: Path, files: int) -> Path | None:
    """The file of a figure that `out` asks for; None for a folder.

    Raises:
        UserError: several files, and something else than a figure is asked for.
    """
    kind = out.suffix.lower()
    if kind in SUFFIXES and not out.is_dir():
        return out
    if files > 1 and kind and not out.is_dir():
        raise UserError(f"out={out}: of {files} files a figure is drawn; {suggest(kind, SUFFIXES)}, or a folder")
    return out / "report.pdf" if files > 1 else None


def write_figure(
    found: Mapping[str, Errors], path: Path, folder: Path | None, show: Sequence[str], limit: int | None
) -> None:
    """Draw the figure, and print the counts of all detectors."""
    names = next(iter(found.values())).truth.file_names
    order = worst_images(*found.values()).tolist()
    files = chosen_files(names, order, folder, show, COLUMNS if limit is None else limit)
    error_page(found, files, path)
    print(format_counts({name: count_errors(errors)["all"]["all"] for name, errors in found.items()}, "detector"))
    print(f"Saved {path} ({len(found)} detectors, {len(files)} images)")


def write_folder(
    errors: Errors, folder: Path, images: Path | None, limit: int, pngs: int, embed: bool, missed: float | None
) -> None:
    """Write the page of one detector and what belongs to it, and print its counts."""
    shown, absent = write_report(errors, folder / "report.html", images, limit, embed)
    drawn = write_pngs(errors, folder / "images", images, pngs) if pngs else []
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
