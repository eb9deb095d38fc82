"""`tinyyolo data check`: everything that is wrong with a data set, by name, before it costs a training run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import BOX_FAULTS, IGNORED, Annotations, Problem
from tinyyolo.datasets.audit import faults, repair
from tinyyolo.datasets.audit.faults import Checked
from tinyyolo.datasets.formats.doubts import NOT_LABELS, ON_MAP
from tinyyolo.datasets.formats.text import sibling
from tinyyolo.datasets.images import list_images
from tinyyolo.datasets.kinds import told_kinds
from tinyyolo.datasets.spec import DataSpec, Split, load
from tinyyolo.io import in_threads, some, write_json
from tinyyolo.scenes.rendering import AS_DECLARED, Rendering

# Worth knowing, but nothing to mend: they do not make the exit code 1.
NOTES = ON_MAP | {"extra image", "no objects", "unused class", "image mode", "outlines"}
EXAMPLES = 3


def check(
    data: str,
    *,
    path: str | Path | None = None,
    split: str | None = None,
    images: bool = True,
    fix: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    runs: str | Path = "runs/data-check",
    bands: int | Sequence[int] | None = None,
    stretch: Sequence[Any] | None = None,
) -> int:
    """Check a data set: counts, images, boxes, ids and classes; exit code 1 if something is wrong.

    Args:
        data: a data YAML, by path or name.
        path: the root of the data, instead of the YAML's.
        split: only this one.
        images: open every image to its end; false looks only whether it is there.
        fix: write a cleaned copy of the annotations and a YAML for it, and say what was done.
        out: the folder of the cleaned copy (default `runs`/NAME-fixed).
        overwrite: replace an earlier report and copy.
        runs: folder of the JSON report, NAME.json.
        bands: which bands of the files are red, green and blue, as [3,2,1]; the declared ones unless given.
        stretch: values or percentiles that become 0 and 255, as [0,4000].

    Returns:
        0 if nothing is wrong, else 1.

    Raises:
        UserError: no such YAML or data.
    """
    spec = load(data, path)
    rendering = Rendering(bands, stretch).checked()
    report, checked = inspect(spec, [split] if split else None, images=images, rendering=rendering)
    target = Path(runs) / f"{spec.title}.json"
    write_json(target, report)
    print(in_words(report))
    print(f"report: {target}")
    if fix:
        folder = Path(out or Path(runs) / f"{spec.title}-fixed")
        print(repair.in_words(repair.write(spec, checked, folder, overwrite=overwrite), folder))
    return 0 if report["ok"] else 1


def inspect(
    spec: DataSpec,
    splits: Sequence[str] | None = None,
    *,
    images: bool = True,
    rendering: Rendering = AS_DECLARED,
) -> tuple[dict[str, Any], dict[str, Checked]]:
    """Check a set without writing or printing.

    Args:
        spec: the set.
        splits: which of its splits; None checks all. Two that are one and the same are checked once.
        images: decode every image; false looks only whether it is there.
        rendering: which bands and values of the images are shown, and how.

    Returns:
        The report (plain values: `ok`, `splits`, `problems` and `notes` by kind) and what was found by split.

    Raises:
        UserError: the data are not there at all.
    """
    spec.must_exist(())
    problems: list[Problem] = []
    checked: dict[str, Checked] = {}
    distinct: dict[Split, Checked] = {}
    for split in spec.splits if splits is None else splits:
        place = spec.split(split)
        try:
            checked[split] = distinct[place] = distinct.get(place) or check_split(spec, split, images, rendering)
        except UserError as error:
            problems.append(Problem("unreadable annotations", split, str(error)))
    problems += [problem for found in distinct.values() for problem in found.problems]
    problems += faults.leaks(distinct.values())
    if splits is None:
        named = {path for found in distinct.values() for path in found.named}
        folders = sorted({found.folder for found in distinct.values()} - {spec.path})
        there = [folder / name for folder in folders for name in list_images(folder)]
        problems += [Problem("extra image", str(path), "no split names it") for path in there if path not in named]
    lines = defaultdict(list)
    for problem in problems:
        lines[problem.kind].append(str(problem))
    wrong = {kind: texts for kind, texts in lines.items() if kind not in NOTES}
    report = {
        "data": str(spec.file),
        "path": str(spec.path),
        "ok": not wrong,
        "splits": {split: counts_of(found.annotations) for split, found in checked.items()},
        "counts": {kind: len(texts) for kind, texts in lines.items()},
        "problems": wrong,
        "notes": {kind: texts for kind, texts in lines.items() if kind in NOTES},
    }
    return report, checked


def counts_of(annotations: Annotations) -> dict[str, Any]:
    """How many images, boxes, ignore regions, and objects by class."""
    classes = faults.class_counts(annotations)
    regions = int((annotations.labels == IGNORED).sum())
    return {"images": len(annotations), "boxes": sum(classes.values()), "ignore_regions": regions, "classes": classes}


def counts_in_words(row: Mapping[str, Any]) -> str:
    """What `counts_of` says, for people."""
    classes = ", ".join(f"{name} {n:,}" for name, n in row["classes"].items())
    return f"{row['images']:,} images, {row['boxes']:,} boxes ({classes}), {row['ignore_regions']:,} ignore regions"


def check_split(spec: DataSpec, split: str, images: bool, rendering: Rendering) -> Checked:
    """Everything that one split says about itself."""
    annotations, folder = spec.read(split, strict=False), spec.image_dir(split)
    found = Checked(split, annotations, folder, [], list(annotations.problems))
    look = partial(faults.open_image, rendering=rendering) if images else faults.only_there
    found.opened = in_threads(look, found.paths, f"{split}: images")
    faulty = sum(p.kind in BOX_FAULTS for p in annotations.problems)
    found.problems += faults.box_problems(annotations)
    found.problems += faults.image_problems(found)
    found.problems += label_files(spec, found) + remarks(found, rendering)
    found.problems += faults.count_problems(spec, split, len(annotations), found.classes, faulty)
    return found


def label_files(spec: DataSpec, found: Checked) -> list[Problem]:
    """Label files whose image is missing, for the formats with one text file an image; a list names some of them."""
    folder = found.annotations.path
    if not folder.is_dir() or folder == found.folder or spec.splits[found.split].listed:
        return []
    named = {folder / path.relative_to(found.folder).with_suffix(".txt") for path in found.named}
    others = [place for name, place in spec.splits.items() if name != found.split]
    labels = [sibling(images, "labels") for place in others for images in place.images]
    labels += [place.annotations for place in others if place.annotations is not None]
    inner = {place for place in labels if folder in place.parents}
    there = [path for path in sorted(folder.rglob("*.txt")) if path.name.lower() not in NOT_LABELS]
    strangers = [path for path in there if path not in named and not inner & {*path.parents}]
    return [Problem("missing image", str(path), "a label file without an image of its name") for path in strangers]


def remarks(found: Checked, rendering: Rendering) -> list[Problem]:
    """Notes: images without objects, classes without any, pictures that are not 8-bit RGB or grey."""
    annotations, split = found.annotations, found.split
    owners = set(annotations.image_index[annotations.labels != IGNORED].tolist())
    empty = [name for i, name in enumerate(annotations.file_names) if i not in owners]
    out = [Problem("no objects", f"{split}: {name}", "no objects") for name in empty]
    unused = [name for name, count in found.classes.items() if not count]
    out += [Problem("unused class", split, f"no object of class {name!r}") for name in unused]
    kinds = told_kinds((look for look, _ in found.opened if look.bands), rendering)
    out += [Problem("image mode", split, line) for line in kinds]
    return out


def in_words(report: Mapping[str, Any]) -> str:
    """The report for people: counts, then every kind of fault with its first examples."""
    lines = [f"{report['data']} in {report['path']}"]
    lines += [f"  {split}: {counts_in_words(row)}" for split, row in report["splits"].items()]
    for title, kinds in (("WRONG", report["problems"]), ("note", report["notes"])):
        for kind, texts in kinds.items():
            lines += [f"{title}: {kind}, {len(texts):,} times", *some(texts, EXAMPLES, "    ")]
    count = sum(map(len, report["problems"].values()))
    return "\n".join([*lines, f"{count:,} things are wrong" if count else "nothing is wrong"])
