"""What can be wrong with boxes, images and counts. Finds only; `check` reports and `repair` mends."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyyolo.boxes.convert import areas, sides
from tinyyolo.config import ROOTS
from tinyyolo.datasets.annotations import IGNORED, Annotations, Problem
from tinyyolo.datasets.images import MISSING, Look, look
from tinyyolo.datasets.spec import DataSpec, load
from tinyyolo.sizes import SMALLEST

EDGE = 0.5  # px that a box may stand over the edge: YOLO's six digits and half-pixel conventions do
AREA_OVER = 1.01  # `area` may be below w * h (a mask's), not above it by more than rounding
BLOCK = 1 << 20  # bytes read at once


class Opened(NamedTuple):
    """One image as it was found, and a digest of its file; '' where it was not opened or has a fault."""

    look: Look
    digest: str = ""


@dataclass
class Checked:
    """What was found in one split."""

    annotations: Annotations
    folder: Path
    opened: list[Opened]
    problems: list[Problem] = field(default_factory=list)


def box_masks(annotations: Annotations) -> dict[str, np.ndarray]:
    """Fault -> (K,) bool, which boxes have it. Ignore regions may be as they like, except outside the image.

    Examples:
        >>> sorted(box_masks(EMPTY))
        ['area', 'duplicate box', 'outside', 'over the edge', 'tiny box']
    """
    boxes = annotations.boxes
    size_wh = annotations.sizes_hw[annotations.image_index][:, ::-1].astype(np.float64)
    objects = annotations.labels != IGNORED
    outside = ((boxes[:, :2] >= size_wh) | (boxes[:, 2:] <= 0)).any(axis=1)
    over = ((boxes[:, :2] < -EDGE) | (boxes[:, 2:] > size_wh + EDGE)).any(axis=1)
    return {
        "outside": outside,
        "over the edge": over & ~outside,
        "tiny box": (sides(boxes) < SMALLEST).any(axis=1) & objects,
        "duplicate box": repeated(annotations) & objects,
        "area": ((annotations.areas <= 0) | (annotations.areas > areas(boxes) * AREA_OVER)) & objects,
    }


def repeated(annotations: Annotations) -> np.ndarray:
    """(K,) bool, the second and later copies of a box with the same image, category and corners."""
    key = np.column_stack([annotations.image_index, annotations.box_categories, annotations.boxes])
    _, first = np.unique(key, axis=0, return_index=True)
    again = np.ones(len(key), bool)
    again[first] = False
    return again


def box_problems(annotations: Annotations) -> list[Problem]:
    """One problem a fault of a box, with image, annotation id and corners."""
    out = []
    for kind, mask in box_masks(annotations).items():
        for k in np.flatnonzero(mask):
            image = annotations.image_index[k]
            h, w = annotations.sizes_hw[image]
            where = f"{annotations.path}: annotation {annotations.ids[k]} in {annotations.file_names[image]}"
            corners = ", ".join(f"{v:g}" for v in annotations.boxes[k])
            more = f", area {annotations.areas[k]:g}" if kind == "area" else ""
            out.append(Problem(kind, where, f"{kind}: x1 y1 x2 y2 = {corners} in {w} x {h} px{more}"))
    return out


def open_image(path: Path) -> Opened:
    """Look at an image to its end, and digest its file."""
    found = look(path, to_end=True)
    if found.fault:
        return Opened(found)
    with path.open("rb") as stream:
        digest = hashlib.blake2b(digest_size=16)
        while block := stream.read(BLOCK):
            digest.update(block)
    return Opened(found, digest.hexdigest())


def only_there(path: Path) -> Opened:
    """Whether an image is there, unopened."""
    return Opened(Look() if path.is_file() else Look(fault=MISSING))


def image_problems(annotations: Annotations, folder: Path, opened: Iterable[Opened]) -> list[Problem]:
    """Missing and unreadable images, and sizes that are not the annotation file's."""
    out = []
    for i, (name, found) in enumerate(zip(annotations.file_names, opened, strict=True)):
        (h, w), (size_hw, fault) = annotations.sizes_hw[i].tolist(), (found.look.size_hw, found.look.fault)
        if fault == MISSING:
            out.append(Problem("missing image", str(folder / name), f"no such image{other_case(folder / name)}"))
        elif fault:
            out.append(Problem("unreadable image", str(folder / name), fault))
        elif found.look.bands and size_hw != (h, w):
            what = f"the image is {size_hw[1]} x {size_hw[0]} px, the annotations say {w} x {h}"
            out.append(Problem("wrong size", str(folder / name), what))
    return out


def other_case(path: Path) -> str:
    """A hint where the folder holds the name with other letter cases or another ending."""
    if not path.parent.is_dir():
        return f", nor its folder {path.parent}"
    near = [p.name for p in path.parent.glob(f"{glob_letters(path.stem)}.*")]
    return f"; there is {near[0]}" if near else ""


def glob_letters(stem: str) -> str:
    """A glob pattern that matches `stem` in any letter case.

    Examples:
        >>> glob_letters("a1[")
        '[aA]1[[]'
    """
    return "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else f"[{c}]" if c in "*?[" else c for c in stem)


def known_sets(spec: DataSpec) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Data YAML -> its expected splits, of the set itself and of all shipped sets with the same classes."""
    out = {spec.file.name: spec.expected}
    for root in ROOTS:
        for file in sorted((root / "data").glob("*.yaml")):
            if file.name not in out and b"expected:" in file.read_bytes():
                other = load(file)
                if list(other.names.values()) == list(spec.names.values()):
                    out[file.name] = other.expected
    return {name: rows for name, rows in out.items() if rows}


def count_problems(
    spec: DataSpec, split: str, images: int, classes: Mapping[str, int], faulty: int = 0
) -> list[Problem]:
    """Counts that are not the expected ones, and what they are instead: another split, another version, a part.

    Args:
        spec: the set.
        split: its split.
        images: images found.
        classes: objects found by class name.
        faulty: boxes of any class that reading left out; the expected counts may hold them.
    """
    official = spec.stands_for.get(split, split)
    expected = spec.expected.get(official)
    if not expected:
        return []
    boxes = sum(classes.values())
    where, out = f"{spec.file.name}: {split} ({official})", []
    if images != expected["images"]:
        part = f", {100 * images / expected['images']:.0f} % of them" if images < expected["images"] else ""
        out.append(Problem("image count", where, f"{images:,} images, expected {expected['images']:,}{part}"))
    if "boxes" in expected and boxes not in (expected["boxes"], expected["boxes"] - faulty):
        out.append(Problem("box count", where, f"{boxes:,} boxes, expected {expected['boxes']:,}"))
    wanted = expected.get("classes", {})
    wrong = {name: n for name, n in wanted.items() if not n - faulty <= classes.get(name, 0) <= n}
    if wrong and sorted(classes.values()) == sorted(wanted.values()):
        what = "the right numbers at the wrong classes, the ids are shifted: "
        out.append(Problem("shifted classes", where, what + listed(classes, wrong)))
    elif wrong:
        out.append(Problem("class count", where, listed(classes, wrong)))
    others = twins(spec, images, boxes, official) if out else []
    return out + [Problem("wrong split", where, f"these are the counts of {other}") for other in others]


def listed(found: Mapping[str, int], expected: Mapping[str, int]) -> str:
    """'ship 3 (expected 5), ...'"""
    return ", ".join(f"{name} {found.get(name, 0):,} (expected {n:,})" for name, n in expected.items())


def twins(spec: DataSpec, images: int, boxes: int, official: str) -> list[str]:
    """Other known splits with exactly these counts, as 'AI-TOD.yaml, test'."""
    return [
        f"{file}, {split}"
        for file, rows in known_sets(spec).items()
        for split, row in rows.items()
        if (row.get("images"), row.get("boxes")) == (images, boxes) and (file, split) != (spec.file.name, official)
    ]


def leaks(digests: Mapping[str, Mapping[str, str]]) -> list[Problem]:
    """The same picture in two splits, or twice in one.

    Args:
        digests: split -> {image path: digest of the file}.
    """
    out: list[Problem] = []
    seen: dict[str, tuple[str, str]] = {}
    for split, paths in digests.items():
        for path, digest in paths.items():
            first_split, first = seen.setdefault(digest, (split, path))
            if first_split != split:
                out.append(Problem("leak", path, f"in {split}, is the same picture as {first} in {first_split}"))
            elif first != path:
                out.append(Problem("same picture", path, f"is the same picture as {first}"))
    return out


EMPTY = Annotations(
    path=Path("none.json"),
    file_names=[],
    sizes_hw=np.zeros((0, 2), np.int64),
    image_ids=np.zeros(0, np.int64),
    names={},
    category_ids=np.zeros(0, np.int64),
    image_index=np.zeros(0, np.int64),
    boxes=np.zeros((0, 4)),
    labels=np.zeros(0, np.int64),
    areas=np.zeros(0),
    ids=np.zeros(0, np.int64),
)
