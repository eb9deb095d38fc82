"""`tinyyolo data check`: everything that is wrong with a data set, by name, before it costs a training run."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import BOX_FAULTS, IGNORED, Annotations, Problem
from tinyyolo.datasets.audit import faults, repair
from tinyyolo.datasets.audit.faults import Checked
from tinyyolo.datasets.formats.text import sibling
from tinyyolo.datasets.images import list_images
from tinyyolo.datasets.spec import DataSpec, Split, load
from tinyyolo.io import in_threads, new_file

# Worth knowing, but nothing to mend: they do not make the exit code 1.
NOTES = frozenset({"extra image", "no objects", "unused class", "image mode"})
EXAMPLES = 3
USUAL = [(1, "uint8", False), (3, "uint8", False)]  # bands, depth, palette: grey or colour


def check(
    data: str,
    *,
    path: str | None = None,
    split: str | None = None,
    images: bool = True,
    fix: bool = False,
    out: str | None = None,
    overwrite: bool = False,
    runs: str = "runs/data-check",
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

    Returns:
        0 if nothing is wrong, else 1.

    Raises:
        UserError: no such YAML or data.
    """
    spec = load(data, path)
    report, checked = inspect(spec, [split] if split else None, images=images)
    target = Path(runs) / f"{spec.title}.json"
    with new_file(target, overwrite=True) as stream:
        json.dump(report, stream, indent=1)
    print(in_words(report))
    print(f"report: {target}")
    if fix:
        folder = Path(out or Path(runs) / f"{spec.title}-fixed")
        print(repair.in_words(repair.write(spec, checked, folder, overwrite=overwrite), folder))
    return 0 if report["ok"] else 1


def inspect(
    spec: DataSpec, splits: Sequence[str] | None = None, *, images: bool = True
) -> tuple[dict[str, Any], dict[str, Checked]]:
    """Check a set without writing or printing.

    Args:
        spec: the set.
        splits: which of its splits; None checks all. Two that are one and the same are checked once.
        images: decode every image; false looks only whether it is there.

    Returns:
        The report (plain values: `ok`, `splits`, `problems` and `notes` by kind) and what was found by split.

    Raises:
        UserError: the data are not there at all.
    """
    spec.must_exist(())
    problems: list[Problem] = []
    checked: dict[str, Checked] = {}
    done: dict[Split, str] = {}
    for split in spec.splits if splits is None else splits:
        twin = done.setdefault(spec.split(split), split)
        if twin != split and twin in checked:
            checked[split] = checked[twin]
            continue
        try:
            checked[split] = check_split(spec, split, images=images)
        except UserError as error:
            problems.append(Problem("unreadable annotations", split, str(error)))
            continue
        problems += checked[split].problems
    problems += faults.leaks(digests_of(spec, checked))
    problems += extra_images(spec, checked) if splits is None else []
    lines = defaultdict(list)
    for problem in problems:
        lines[problem.kind].append(str(problem))
    wrong = {kind: texts for kind, texts in lines.items() if kind not in NOTES}
    report = {
        "data": str(spec.file),
        "path": str(spec.path),
        "ok": not wrong,
        "splits": {split: summary(found) for split, found in checked.items()},
        "counts": {kind: len(texts) for kind, texts in lines.items()},
        "problems": wrong,
        "notes": {kind: texts for kind, texts in lines.items() if kind in NOTES},
    }
    return report, checked


def check_split(spec: DataSpec, split: str, *, images: bool) -> Checked:
    """Everything that one split says about itself."""
    annotations = spec.read(split, strict=False)
    folder = spec.image_dir(split)
    look = faults.open_image if images else faults.only_there
    opened = in_threads(look, [folder / name for name in annotations.file_names], f"{split}: images")
    found = Checked(annotations, folder, opened, list(annotations.problems))
    found.problems += faults.box_problems(annotations)
    found.problems += faults.image_problems(annotations, folder, opened)
    found.problems += label_files(spec, split, annotations) + remarks(split, annotations, opened)
    faulty = sum(p.kind in BOX_FAULTS for p in annotations.problems)
    found.problems += faults.count_problems(spec, split, len(annotations), class_counts(annotations), faulty)
    return found


def class_counts(annotations: Annotations) -> dict[str, int]:
    """Class name -> objects."""
    counts = np.bincount(annotations.labels[annotations.labels != IGNORED], minlength=len(annotations.names))
    return dict(zip(annotations.names.values(), counts.tolist(), strict=True))


def label_files(spec: DataSpec, split: str, annotations: Annotations) -> list[Problem]:
    """Label files whose image is missing, for the formats with one text file an image."""
    folder, images = annotations.path, spec.image_dir(split)
    if not folder.is_dir() or folder == images:
        return []
    named = {Path(name).with_suffix(".txt") for name in annotations.file_names}
    broken = (Path(p.where) for p in annotations.problems if p.kind == "unreadable image")
    named |= {path.relative_to(images).with_suffix(".txt") for path in broken}
    inner = [place for place in other_labels(spec, split) if folder in place.parents]
    strangers = [path for path in sorted(folder.rglob("*.txt")) if path.relative_to(folder) not in named]
    strangers = [path for path in strangers if not any(place in path.parents for place in inner)]
    return [Problem("missing image", str(path), "a label file without an image of its name") for path in strangers]


def other_labels(spec: DataSpec, split: str) -> list[Path]:
    """The label folders of the other splits."""
    others = [place for name, place in spec.splits.items() if name != split]
    beside = [sibling(images, "labels") for place in others for images in place.images]
    return beside + [place.annotations for place in others if place.annotations is not None]


def remarks(split: str, annotations: Annotations, opened: Sequence[faults.Opened]) -> list[Problem]:
    """Notes: images without objects, classes without any, pictures that are not 8-bit RGB or grey."""
    out = []
    objects = np.bincount(annotations.image_index[annotations.labels != IGNORED], minlength=len(annotations))
    for i in np.flatnonzero(objects == 0):
        out.append(Problem("no objects", f"{split}: {annotations.file_names[i]}", "no objects"))
    for name, count in class_counts(annotations).items():
        if not count:
            out.append(Problem("unused class", split, f"no object of class {name!r}"))
    looks = [found.look for found in opened if found.look.bands and not found.look.fault]
    kinds = Counter(look.kind for look in looks if (look.bands, look.depth, look.palette) not in USUAL)
    return out + [
        Problem("image mode", split, f"{n:,} images have {kind}, not 3 of uint8") for kind, n in kinds.items()
    ]


def digests_of(spec: DataSpec, checked: Mapping[str, Checked]) -> dict[str, dict[str, str]]:
    """Split -> {image path: digest}, once for splits that are one and the same."""
    out, seen = {}, set()
    for split, found in checked.items():
        place = (spec.splits[split].annotations or found.annotations.path, found.folder)
        if place in seen:
            continue
        seen.add(place)
        pairs = zip(found.annotations.file_names, found.opened, strict=True)
        out[split] = {str(found.folder / name): image.digest for name, image in pairs if image.digest}
    return out


def extra_images(spec: DataSpec, checked: Mapping[str, Checked]) -> list[Problem]:
    """Readable images in the folders that no split names."""
    named = {found.folder / name for found in checked.values() for name in found.annotations.file_names}
    named |= {Path(p.where) for found in checked.values() for p in found.problems if p.kind == "unreadable image"}
    folders = sorted({found.folder for found in checked.values()} - {spec.path})
    there = [folder / name for folder in folders for name in list_images(folder)]
    return [Problem("extra image", str(path), "no split names it") for path in there if path not in named]


def summary(found: Checked) -> dict[str, Any]:
    """Counts of one split."""
    annotations = found.annotations
    return {
        "images": len(annotations),
        "boxes": int((annotations.labels != IGNORED).sum()),
        "ignore_regions": int((annotations.labels == IGNORED).sum()),
        "classes": class_counts(annotations),
    }


def in_words(report: Mapping[str, Any]) -> str:
    """The report for people: counts, then every kind of fault with its first examples."""
    lines = [f"{report['data']} in {report['path']}"]
    for split, row in report["splits"].items():
        classes = ", ".join(f"{name} {n:,}" for name, n in row["classes"].items())
        counts = f"{row['images']:,} images, {row['boxes']:,} boxes ({classes})"
        lines.append(f"  {split}: {counts}, {row['ignore_regions']:,} ignore regions")
    for title, kinds in (("WRONG", report["problems"]), ("note", report["notes"])):
        for kind, texts in kinds.items():
            lines.append(f"{title}: {kind}, {len(texts):,} times")
            lines += [f"    {text}" for text in texts[:EXAMPLES]]
            lines += [f"    ... and {len(texts) - EXAMPLES:,} more"] if len(texts) > EXAMPLES else []
    lines.append(
        "nothing is wrong" if report["ok"] else f"{sum(map(len, report['problems'].values())):,} things are wrong"
    )
    return "\n".join(lines)
