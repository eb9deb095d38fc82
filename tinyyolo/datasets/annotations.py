"""Annotations of one split as arrays, whatever file format they came from. Needs numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinyyolo.config import UserError, suggest

# Faults that make the numbers wrong for everyone; a strict reader stops at the first of them. All others only cost
# the box or image concerned, or nothing, and are listed in `Annotations.problems`.
FATAL = frozenset({"unknown class", "unknown image", "duplicate image", "duplicate category", "bad record", "no size"})
IGNORED = -1


class Problem(str):
    """One fault as a line of text, `where: what`, with its `kind` to count by and `where` it is.

    Examples:
        >>> fault = Problem("empty box", "train.json: annotation 7", "width 0")
        >>> fault, fault.kind
        ('train.json: annotation 7: width 0', 'empty box')
    """

    __slots__ = ("kind", "where")

    def __new__(cls, kind: str, where: str, what: str) -> Problem:
        line = super().__new__(cls, f"{where}: {what}")
        line.kind, line.where = kind, where
        return line

    def __getnewargs__(self) -> tuple[str, str, str]:
        return self.kind, self.where, self.removeprefix(f"{self.where}: ")


@dataclass(frozen=True, eq=False)
class Annotations:
    """Objects of I images, K boxes and C classes. The arrays are read-only, so that a reader may hand out one twice.

    Attributes:
        path: the file or folder that was read.
        file_names: I image names, relative to the split's image folder.
        sizes_hw: (I, 2) int64, height and width in pixels.
        image_ids: (I,) int64, the file's own ids.
        names: class index -> name, 0-based, in class order.
        category_ids: (C,) int64, the file's own id of every class.
        image_index: (K,) int64, sorted: the image of every box.
        boxes: (K, 4) float64, xyxy in pixels of the original image.
        labels: (K,) int64 class indices; -1 is an ignore region.
        areas: (K,) float64, the file's `area`, else width * height.
        ids: (K,) int64, the file's own annotation ids.
        problems: every fault found, one line each; boxes with a fault of geometry are not in the arrays.
        categories: every category of the file, ignored ones too: id -> name.
        box_categories: (K,) int64, the category id of every box, also of ignore regions.
        crowd: (K,) bool, whether the box itself was marked (iscrowd or ignore), not its category.
        extra: what else the file says of every box, (K,) int64 by name: difficult, truncation, occlusion.
    """

    path: Path
    file_names: list[str]
    sizes_hw: np.ndarray
    image_ids: np.ndarray
    names: dict[int, str]
    category_ids: np.ndarray
    image_index: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    ids: np.ndarray
    problems: list[Problem] = field(default_factory=list)
    categories: dict[int, str] = field(default_factory=dict)
    box_categories: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    crowd: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.file_names)

    def rows(self, image: int) -> slice:
        """The boxes of one image (by its index) as a slice of every (K, ...) array."""
        first, last = np.searchsorted(self.image_index, [image, image + 1])
        return slice(int(first), int(last))

    @property
    def offsets(self) -> np.ndarray:
        """(I + 1,) int64: boxes of image i stand at `offsets[i]:offsets[i + 1]`."""
        return np.searchsorted(self.image_index, np.arange(len(self) + 1))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The boxes under COCO's own keys and ids, ignore regions as `iscrowd`.

        Returns:
            `image_id`, `category_id`, `id` (K,) int64, `bbox` (K, 4) float64 xywh, `area` (K,) float64 and
            `iscrowd` (K,) bool.
        """
        xywh = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        return {
            "image_id": self.image_ids[self.image_index],
            "category_id": self.box_categories,
            "id": self.ids,
            "bbox": xywh,
            "area": self.areas,
            "iscrowd": self.labels == IGNORED,
        }


def subset(annotations: Annotations, images: np.ndarray | None = None, boxes: np.ndarray | None = None) -> Annotations:
    """Some of the images and boxes, in the same order.

    Args:
        annotations: all of them.
        images: (I,) bool, which images stay; their boxes go with the others. None keeps all.
        boxes: (K,) bool, which boxes stay. None keeps all.
    """
    full = annotations
    images = np.ones(len(full), bool) if images is None else images
    boxes = (np.ones(len(full.labels), bool) if boxes is None else boxes) & images[full.image_index]
    new_index = np.cumsum(images) - 1
    per_box = {
        name: getattr(full, name)[boxes] for name in ("boxes", "labels", "areas", "ids", "box_categories", "crowd")
    }
    return freeze(
        replace(
            full,
            file_names=[name for name, stays in zip(full.file_names, images.tolist(), strict=True) if stays],
            sizes_hw=full.sizes_hw[images],
            image_ids=full.image_ids[images],
            image_index=new_index[full.image_index[boxes]].astype(np.int64),
            extra={name: column[boxes] for name, column in full.extra.items()},
            **per_box,
        )
    )


def as_names(names: Sequence[str] | Mapping[int, str]) -> dict[int, str]:
    """Class names as {0: first, 1: second, ...}; a mapping must have exactly these keys.

    Raises:
        ValueError: keys are not 0..C-1, or a name stands twice.

    Examples:
        >>> as_names(["ship", "car"])
        {0: 'ship', 1: 'car'}
    """
    pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
    out = {int(key): str(name) for key, name in pairs}
    if sorted(out) != list(range(len(out))):
        raise ValueError(f"names must be numbered 0 to {len(out) - 1}, found {sorted(out)}")
    twice = sorted({name for name in out.values() if list(out.values()).count(name) > 1})
    if twice:
        raise ValueError(f"the same name stands twice in names: {', '.join(twice)}")
    return dict(sorted(out.items()))


class Classes(NamedTuple):
    """How a file's categories become labels.

    Attributes:
        names: class index -> name.
        category_ids: (C,) int64, the file's id of every class; one that it does not have gets an id above all others.
        label_of: category id -> class index, or -1 for an ignored category; unknown categories are not in it.
        categories: every category of the file, id -> name.
    """

    names: dict[int, str]
    category_ids: np.ndarray
    label_of: dict[int, int]
    categories: dict[int, str]


def select_classes(
    categories: Mapping[int, str], names: Sequence[str] | Mapping[int, str] | None, ignore: Sequence[str], source: Path
) -> Classes:
    """Match a file's categories with the wanted classes by name.

    Args:
        categories: the file's id -> name.
        names: wanted classes; None takes those of the file in id order, without the ignored ones.
        ignore: names of categories that are ignore regions.
        source: the file, for messages.

    Raises:
        UserError: no class is left.
    """
    skipped = set(ignore)
    if names is None:
        names = list(dict.fromkeys(name for _, name in sorted(categories.items()) if name not in skipped))
        if not names:
            raise UserError(f"{source}: no names: it has no category besides the ignored ones; give `names:`")
    wanted = dict(enumerate(name for name in as_names(names).values() if name not in skipped))
    index = {name: i for i, name in wanted.items()}
    first: dict[str, int] = {}
    for key, name in sorted(categories.items()):
        first.setdefault(name, key)
    fresh = max(categories, default=0) + 1
    ids = [first.get(name, fresh + i) for i, name in wanted.items()]
    known = {key: index.get(name, IGNORED) for key, name in categories.items() if name in index or name in skipped}
    return Classes(wanted, np.array(ids, np.int64), known, dict(categories))


def assemble(
    path: Path,
    classes: Classes,
    file_names: list[str],
    sizes_hw: np.ndarray,
    image_index: np.ndarray,
    boxes: np.ndarray,
    box_categories: np.ndarray,
    problems: list[Problem],
    *,
    crowd: np.ndarray | None = None,
    areas: np.ndarray | None = None,
    ids: np.ndarray | None = None,
    image_ids: np.ndarray | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
) -> Annotations:
    """Annotations from columns in any order of images; arguments are the fields of the same names.

    Boxes are sorted by image, in their order within one. Without them ids and image_ids count from 1, areas are
    width * height, and no box is marked. Every category must be one that `classes` knows.
    """
    count = len(boxes)
    order = np.argsort(image_index, kind="stable")
    crowd = np.zeros(count, bool) if crowd is None else crowd
    labels = np.where(crowd, IGNORED, lookup(box_categories, classes.label_of))
    sides = boxes[:, 2:] - boxes[:, :2]
    return freeze(
        Annotations(
            path=path,
            file_names=file_names,
            sizes_hw=sizes_hw,
            image_ids=np.arange(1, len(file_names) + 1) if image_ids is None else image_ids,
            names=classes.names,
            category_ids=classes.category_ids,
            image_index=image_index[order].astype(np.int64),
            boxes=boxes[order],
            labels=labels[order],
            areas=(sides.prod(axis=1) if areas is None else areas)[order],
            ids=np.arange(1, count + 1) if ids is None else ids[order],
            problems=problems,
            categories=classes.categories,
            box_categories=box_categories[order].astype(np.int64),
            crowd=crowd[order],
            extra={name: column[order].astype(np.int64) for name, column in (extra or {}).items()},
        )
    )


def lookup(keys: np.ndarray, table: Mapping[int, int]) -> np.ndarray:
    """`table[key]` for every key (K,), all of them known."""
    known = np.array(sorted(table), np.int64)
    values = np.array([table[key] for key in known.tolist()], np.int64)
    return values[np.searchsorted(known, keys)] if len(keys) else np.zeros(0, np.int64)


FARTHEST = 1e6  # px; no scene has a side this long
BOX_FAULTS = ("not a number", "empty box", "huge box")


def box_faults(boxes: np.ndarray) -> list[str]:
    """Why each box (K, 4) xyxy has no area a detector could learn: '' for a good one.

    Examples:
        >>> box_faults(np.array([[0, 0, 4, 4], [0, 0, 0, 4], [0, 0, np.nan, 1], [0, 0, 1e9, 1]]))
        ['', 'empty box', 'not a number', 'huge box']
    """
    finite = np.isfinite(boxes).all(axis=1)
    with np.errstate(invalid="ignore"):
        solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        huge = (abs(boxes) > FARTHEST).any(axis=1)
    return np.select([~finite, ~solid, huge], BOX_FAULTS, "").tolist()


def raise_fatal(problems: Sequence[Problem]) -> None:
    """Stop at the first fault that would make every number wrong; says how many more there are.

    Raises:
        UserError: there is a fault of a kind in `FATAL`.
    """
    fatal = [problem for problem in problems if problem.kind in FATAL]
    if fatal:
        more = f" (and {len(fatal) - 1} more; `tinyyolo data check` lists them)" if len(fatal) > 1 else ""
        raise UserError(f"{fatal[0]}{more}")


def unknown_class(where: str, name: object, choices: Sequence[str]) -> Problem:
    """The fault of a category or class id that `names` does not have."""
    return Problem("unknown class", where, f"class {name!r} is not in names; {suggest(name, choices)}")


def freeze(annotations: Annotations) -> Annotations:
    """The same object, its arrays made read-only."""
    for value in (*vars(annotations).values(), *annotations.extra.values()):
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
    return annotations
