"""The command `compare`: how sets of labels and predictions agree, and pictures of what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError, suggest, whole
from tinyyolo.evaluation.agreement import Pairing, annotated, changed_boxes, compare_all
from tinyyolo.evaluation.commands import named_sizes, one_number, result_names, tell_unused, words
from tinyyolo.evaluation.errors import PAPER_SCORE
from tinyyolo.evaluation.table import format_counts, format_table, write_json
from tinyyolo.plots.changes import draw_changes, draw_sizes, most_changed
from tinyyolo.plots.charts import FORMATS
from tinyyolo.plots.frames import chosen_files

PLACES = ("first", "second", "third")
COLUMNS = 4  # images of a figure


def compare(
    *files: str | Path,
    images: str | Path | None = None,
    names: str | Sequence[str] | None = None,
    show: str | Sequence[str] | None = None,
    limit: int | None = None,
    format: str = "png",
    score: float = PAPER_SCORE,
    sizes: str | Mapping[str, Sequence[float]] = "aitod",
    ignore: Sequence[str] | str = (),
    rules: str = "tinyyolo",
    out: str | Path = "runs/compare",
) -> None:
    """Compare two or three sets of annotations and predictions: tinyyolo compare first.json second.json images=folder

    Prints the AP of the second against the first, the boxes of each by size, and how many were moved, relabelled,
    removed and added; writes `compare.json` and `changes.json` (every changed box, as COCO JSON). With images= draws
    what changed (the paper's Fig. 4); of three sets, or with images=, draws the boxes of each size (Fig. 6).

    Args:
        files: two or three COCO files; results among them, in any place, are compared with the first of the others.
        images: folder of the images, for the figure of what changed.
        names: what the sets are called in figures; by default as their files.
        show: file names of the images in the figure; by default those with most changes.
        limit: how many images otherwise, 4 by default.
        format: of the figures, png, pdf or svg.
        score: least score of a prediction that is counted.
        sizes: aitod, coco, or your own ranges of the side in pixels.
        ignore: categories whose boxes are ignore regions, such as DontCare.
        rules: tinyyolo, or coco for exactly what pycocotools reads: `iscrowd` alone is a region, empty boxes stay.
        out: folder for the files.
    """
    if len(files) not in (2, 3):
        raise UserError(
            f"compare: {len(files)} files given, two or three are needed; usage: tinyyolo compare a.json b.json"
        )
    try:
        whole(0, **({} if limit is None else {"limit": limit}))
    except ValueError as error:
        raise UserError(str(error)) from error
    if format not in FORMATS:
        raise UserError(f"format={format}: {suggest(format, FORMATS)}")
    ranges, limits = named_sizes(sizes)
    score = one_number("score", score)
    sets, order = taken([*map(str, files)])
    drawn = images is not None or len(sets) > 2
    given = result_names([*map(str, files)], names) if drawn else []
    tell_unused({"names": names and not drawn, "format": format != FORMATS[0] and not drawn}, "what draws nothing")
    tell_unused({"show": show and images is None, "limit": limit and images is None}, "a comparison without images=")
    settings: dict[str, Any] = {"area_ranges": ranges, "max_dets": limits, "ignore": words(ignore), "rules": rules}
    found = dict(zip(PLACES[1:], compare_all(sets[0], sets[1:], score=score, **settings), strict=False))
    pairings = {place: result.pop("pairing") for place, result in found.items()}
    wanted = (
        {place: most_changed(pairing).tolist() for place, pairing in pairings.items()} if images is not None else {}
    )
    most = COLUMNS if limit is None else limit
    chosen = {  # before anything is written: an image may not be there
        place: chosen_files(pairings[place].first.file_names, best, Path(str(images)), words(show), most)
        for place, best in wanted.items()
    }
    counts = joined_counts(list(found.values()))
    saved = write_numbers(found, counts, pairings, Path(out))
    print_results(found, counts)
    if drawn:
        name_of = dict(zip(PLACES, [given[i] for i in order], strict=False))
        by_name = {name: {size: row[place] for size, row in counts.items()} for place, name in name_of.items()}
        saved.append(draw_sizes(by_name, ranges, Path(out) / f"sizes.{format}"))
        for place, shown in chosen.items():
            target = file_of(Path(out), pairings, place, format)
            saved.append(draw_changes(pairings[place], (name_of["first"], name_of[place]), shown, target))
    print(f"Saved {', '.join(map(str, saved[:-1]))} and {saved[-1]}")


def taken(files: Sequence[str]) -> tuple[list[str], list[int]]:
    """The files as they are compared, annotations before predictions, and their places among those given; says so.

    Raises:
        UserError: none is annotations.
    """
    labels = [annotated(file) for file in files]
    if not any(labels):
        raise UserError(f"{' and '.join(files)} are predictions (COCO results); one file must be annotations")
    order = sorted(range(len(files)), key=lambda i: not labels[i])
    kinds = {True: "annotations", False: "predictions"}
    print("; ".join(f"{place}: {files[i]} ({kinds[labels[i]]})" for place, i in zip(PLACES, order, strict=False)))
    return [files[i] for i in order], order


def file_of(folder: Path, pairings: Mapping[str, Pairing], place: str, kind: str) -> Path:
    """Where the changes to a set go: changes.KIND, of several sets with the place in the name."""
    return folder / (f"changes.{kind}" if len(pairings) == 1 else f"changes_{place}.{kind}")


def joined_counts(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Boxes by size of all sets, from those of each with the first.

    Examples:
        >>> joined_counts([{"counts": {"vt": {"first": 4, "second": n}}} for n in (5, 9)])
        {'vt': {'first': 4, 'second': 5, 'third': 9}}
    """
    sizes = list(dict.fromkeys(size for result in results for size in result["counts"]))
    table: dict[str, dict[str, int]] = {size: {} for size in sizes}
    for place, result in zip(PLACES[1:], results, strict=False):
        for size, row in table.items():
            found = result["counts"].get(size, {"first": 0, "second": 0})  # no set has "other" where none is of it
            row |= {"first": max(row.get("first", 0), found["first"]), place: found["second"]}
    return table


def write_numbers(
    results: Mapping[str, dict[str, Any]],
    counts: Mapping[str, Mapping[str, int]],
    pairings: Mapping[str, Pairing],
    folder: Path,
) -> list[Path]:
    """Write compare.json and the changes, and return their places; of three sets by the places of the others."""
    content = results["second"] if len(results) == 1 else {**results, "counts": counts}
    write_json(content, folder / "compare.json")
    changes = {place: file_of(folder, pairings, place, "json") for place in pairings}
    for place, path in changes.items():
        write_json(changed_boxes(pairings[place]), path)
    return [folder / "compare.json", *changes.values()]


def print_results(results: Mapping[str, Mapping[str, Any]], counts: Mapping[str, Mapping[str, int]]) -> None:
    """Agreement and changes of each set with the first, and the boxes of all by size."""
    for place, result in results.items():
        images = result["images"]
        print(
            f"{images['both']} images in both, {images['first']} only in the first, {images['second']} in the {place}"
        )
        print(f"\n{place.capitalize()} against first, percent\n{format_table(result['agreement'])}")
    print(f"\nBoxes by size\n{format_counts(counts, 'size')}")
    for place, result in results.items():
        print(f"\nChanges from first to {place}\n{format_counts(result['changes'], 'class')}")
