"""What can be wrong with boxes, images and counts. Finds only; `check` reports and `repair` mends."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from tinyyolo.boxes.convert import areas, sides
from tinyyolo.config import ROOTS, UserError
from tinyyolo.datasets.annotations import IGNORED, Annotations, Problem
from tinyyolo.datasets.formats.doubts import NEARLY_ALL, REMARKS
from tinyyolo.datasets.images import MISSING, Look, look
from tinyyolo.datasets.spec import DataSpec, load
from tinyyolo.io import tell
from tinyyolo.scenes.rendering import AS_DECLARED, Rendering
from tinyyolo.sizes import SMALLEST

FEW = 0.1  # of the boxes outside pictures that were resized, or turned, after they were labelled
MANY = 0.5  # of the boxes over the edge: no set of real objects
EDGE = 0.5  # px that a box may stand over the edge: YOLO's six digits and half-pixel conventions do
AREA_OVER = 1.01  # `area` may be below w * h (a mask's), not above it by more than rounding


@dataclass
class Checked:
    """What was found in one split; `opened` are the looks of its images and digests of the files, see `open_image`."""

    split: str
    annotations: Annotations
    folder: Path
    opened: list[tuple[Look, str]]
    problems: list[Problem]

    @property
    def paths(self) -> list[Path]:
        """The images in the annotations."""
        return [self.folder / name for name in self.annotations.file_names]

    @property
    def named(self) -> set[Path]:
        """Every image that the split names, those that reading left out too."""
        return {*self.paths, *(Path(p.where) for p in self.problems if p.kind == "unreadable image")}

    @property
    def classes(self) -> dict[str, int]:
        """Class name -> objects."""
        return class_counts(self.annotations)


def class_counts(annotations: Annotations) -> dict[str, int]:
    """Class name -> objects."""
    objects = annotations.labels[annotations.labels != IGNORED]
    counts = np.bincount(objects, minlength=len(annotations.names))
    return dict(zip(annotations.names.values(), counts.tolist(), strict=True))


def box_masks(annotations: Annotations) -> dict[str, np.ndarray]:
    """Fault -> (K,) bool, which boxes have it. Ignore regions may be as they like, except outside the image."""
    boxes = annotations.boxes
    size_wh = annotations.sizes_hw[annotations.image_index][:, ::-1].astype(np.float64)
    objects = annotations.labels != IGNORED
    outside = ((boxes[:, :2] >= size_wh) | (boxes[:, 2:] <= 0)).any(axis=1)
    over = ((boxes[:, :2] < -EDGE) | (boxes[:, 2:] > size_wh + EDGE)).any(axis=1)
    keys = np.column_stack([annotations.image_index, annotations.box_categories, boxes])
    return {
        "outside": outside,
        "over the edge": over & ~outside,
        "tiny box": (sides(boxes) < SMALLEST).any(axis=1) & objects,
        "duplicate box": repeated(keys) & objects,
        "area": ((annotations.areas <= 0) | (annotations.areas > areas(boxes) * AREA_OVER)) & objects,
    }


def astray(notes: Annotations, *, stop: bool = True) -> list[str]:
    """Lines about objects outside their images, or over the edge where most are: the numbers are of another kind then.

    Raises:
        UserError: `stop` is set, and nearly all are outside, or many and the annotations say other sizes of the images.
    """
    objects = notes.labels != IGNORED
    masks = {name: mask & objects for name, mask in box_masks(notes).items()}
    gone, over, count = masks["outside"], masks["over the edge"], int(objects.sum())
    lines = []
    if gone.any():
        at = int(np.flatnonzero(gone)[0])
        corners = ", ".join(f"{value:g}" for value in notes.boxes[at])
        h, w = notes.sizes_hw[notes.image_index[at]].tolist()
        such = f"such as x1 y1 x2 y2 = {corners} in {notes.file_names[notes.image_index[at]]} of {w} x {h} px"
        causes = "; ".join(problem for problem in notes.problems if problem.kind in REMARKS)
        lines = [f"{notes.path}: {gone.sum():,} of {count:,} boxes lie outside their images, {such}"]
        lines[0] += f"; {causes}" if causes else "; are they pixels of another size of the images?"
        resized = any(problem.kind == "wrong sizes" for problem in notes.problems)
        if stop and gone.sum() > (FEW if resized else NEARLY_ALL) * count:
            raise UserError(lines[0])
    if over.sum() > MANY * count:
        words = "are their numbers of another kind than the format's, such as corners?"
        lines.append(f"{notes.path}: {over.sum():,} of {count:,} boxes reach over the edge of their images; {words}")
    return lines


def tell_doubts(notes: Annotations) -> None:
    """Say on stderr what the annotations leave in doubt as a whole."""
    for line in (*(problem for problem in notes.problems if problem.kind in REMARKS), *astray(notes, stop=False)):
        tell(line)


def repeated(rows: np.ndarray) -> np.ndarray:
    """(K,) bool, the second and later copies of a row, or of a number.

    Examples:
        >>> repeated(np.array([4, 4, 2]))
        array([False,  True, False])
    """
    again = np.ones(len(rows), bool)
    again[np.unique(rows, axis=0, return_index=True)[1]] = False
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


def open_image(path: Path, rendering: Rendering = AS_DECLARED) -> tuple[Look, str]:
    """What an image is, looked at to its end, and a digest of its file; '' where it has a fault."""
    found = look(path, to_end=True, rendering=rendering)
    return found, "" if found.fault else hashlib.blake2b(np.memmap(path, mode="r").data, digest_size=16).hexdigest()


def only_there(path: Path) -> tuple[Look, str]:
    """Whether an image is there, unopened."""
    return Look() if path.is_file() else Look(fault=MISSING), ""


def image_problems(found: Checked) -> list[Problem]:
    """Missing and unreadable images, and sizes that are not the annotation file's."""

    @cache
    def names(folder: Path) -> dict[str, str]:
        return {path.stem.lower(): path.name for path in folder.iterdir()}

    def hint(path: Path) -> str:
        if not path.parent.is_dir():
            return f", nor its folder {path.parent}"
        near = names(path.parent).get(path.stem.lower())  # in other letter cases, or with another ending
        return f"; there is {near}" if near else ""

    out = []
    for path, (seen, _), (h, w) in zip(found.paths, found.opened, found.annotations.sizes_hw.tolist(), strict=True):
        if seen.fault == MISSING:
            out.append(Problem("missing image", str(path), f"no such image{hint(path)}"))
        elif seen.fault:
            out.append(Problem("unreadable image", str(path), seen.fault))
        elif seen.bands and seen.size_hw != (h, w):
            what = f"the image is {seen.size_hw[1]} x {seen.size_hw[0]} px, the annotations say {w} x {h}"
            out.append(Problem("wrong size", str(path), what))
    return out


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
    if wrong:
        shifted = sorted(classes.values()) == sorted(wanted.values())
        what = "the right numbers at the wrong classes, the ids are shifted: " if shifted else ""
        what += ", ".join(f"{name} {classes.get(name, 0):,} (expected {n:,})" for name, n in wrong.items())
        out.append(Problem("shifted classes" if shifted else "class count", where, what))
    others = same_counts(spec, images, boxes, official) if out else []
    return out + [Problem("wrong split", where, f"these are the counts of {other}") for other in others]


def same_counts(spec: DataSpec, images: int, boxes: int, official: str) -> list[str]:
    """Other splits, of this set or of a shipped one with the same classes, that hold so much: 'AI-TOD.yaml, test'."""
    files = [file for root in ROOTS for file in sorted((root / "data").glob("*.yaml"))]
    shipped = [load(file) for file in files if b"expected:" in file.read_bytes()]
    known = {other.file.name: other.expected for other in shipped if other.names == spec.names}
    return [
        f"{file}, {split}"
        for file, rows in (known | {spec.file.name: spec.expected}).items()
        for split, row in rows.items()
        if (row.get("images"), row.get("boxes")) == (images, boxes) and (file, split) != (spec.file.name, official)
    ]


def leaks(splits: Iterable[Checked]) -> list[Problem]:
    """The same picture in two splits, or twice in one."""
    out: list[Problem] = []
    seen: dict[str, tuple[str, Path]] = {}
    for found in splits:
        for path, (_, digest) in zip(found.paths, found.opened, strict=True):
            split, first = seen.setdefault(digest, (found.split, path))
            if not digest:
                continue
            if split != found.split:
                out.append(Problem("leak", str(path), f"in {found.split}, is the same picture as {first} in {split}"))
            elif first != path:
                out.append(Problem("same picture", str(path), f"is the same picture as {first}"))
    return out
