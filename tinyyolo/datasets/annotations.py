"""Annotations of one split as arrays, whatever file format they came from. Needs numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyyolo.boxes.convert import areas as box_areas
from tinyyolo.boxes.convert import sides
from tinyyolo.config import UserError, suggest
from tinyyolo.io import CONTROL
from tinyyolo.sizes import FARTHEST, THINNEST

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
    kind: str
    where: str

    def __new__(cls, kind: str, where: str, what: str) -> Problem:
        line = super().__new__(cls, f"{where}: {what}")
        line.kind, line.where = kind, where
        return line

    def __getnewargs__(self) -> tuple[str, str, str]:  # type: ignore[override]  # str's own takes one
        return self.kind, self.where, self.removeprefix(f"{self.where}: ")


@dataclass(frozen=True, eq=False)
class Annotations:
    """Objects or detections of I images, K boxes and C classes. The arrays are read-only, so that one may be shared.

    Attributes:
        path: the file or folder that was read.
        file_names: I image names, relative to the split's image folder.
        sizes_hw: (I, 2) int64, height and width in pixels.
        image_ids: (I,) the file's own ids, int64, or text where the file has text.
        names: class index -> name, 0-based, in class order.
        category_ids: (C,) the file's own id of every class, int64 or text.
        image_index: (K,) int64, sorted: the image of every box.
        boxes: (K, 4) float64, xyxy in pixels of the original image.
        labels: (K,) int64 class indices; -1 is an ignore region.
        areas: (K,) float64, the file's `area`, else width * height.
        ids: (K,) int64, the file's own annotation ids.
        problems: every fault found, one line each; boxes with a fault of geometry are not in the arrays.
        categories: every category of the file, ignored ones too: id -> name.
        box_categories: (K,) the category id of every box, also of ignore regions.
        crowd: (K,) bool, whether the box itself was marked (iscrowd or ignore), not its category.
        extra: what else the file says of every box, (K,) int64 by name: difficult, truncation, occlusion.
        scores: (K,) float64 in 0..1 of detections; None for objects.
        wh: (K, 2) float64, width and height as the file says them, since (x + w) - x is not w in floats; None
            where the file has corners.
        unlike_coco: how many boxes COCO's own tools read otherwise (see `formats.coco.read`).
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
    categories: dict[Any, str] = field(default_factory=dict)
    box_categories: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    crowd: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    scores: np.ndarray | None = None
    wh: np.ndarray | None = None
    unlike_coco: int = 0

    def __post_init__(self) -> None:
        for value in (*vars(self).values(), *self.extra.values()):
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
        few = slice(100)  # who forgets wh forgets every row
        if self.wh is not None and (self.boxes[few, :2] + self.wh[few] != self.boxes[few, 2:]).any():
            raise ValueError(f"{self.path}: wh does not fit boxes; who changes boxes sets wh, or None")

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
        starts: np.ndarray = np.searchsorted(self.image_index, np.arange(len(self) + 1))
        return starts

    @property
    def sides(self) -> np.ndarray:
        """(K, 2) float64, width and height, px."""
        return sides(self.boxes) if self.wh is None else self.wh

    @property
    def xywh(self) -> np.ndarray:
        """(K, 4) float64 x, y, width, height, px, the numbers of the file."""
        return np.concatenate([self.boxes[:, :2], self.sides], axis=1)

    @property
    def label_of(self) -> dict[Any, int]:
        """Category id -> class index, the same for two ids of one name; -1 for an ignored category."""
        index = {name: i for i, name in self.names.items()}
        every = {key: index.get(name, IGNORED) for key, name in self.categories.items()}
        return every | dict(zip(self.category_ids.tolist(), self.names, strict=True))

    @property
    def classes(self) -> np.ndarray:
        """(K,) int64, the class of every box, of marked ones too; -1 for a region of every class."""
        regions = self.labels == IGNORED
        if not regions.any():
            return self.labels
        label_of = self.label_of
        out: np.ndarray = self.labels.copy()
        out[regions] = [label_of.get(key, IGNORED) for key in self.box_categories[regions].tolist()]
        return out


PER_BOX = ("image_index", "boxes", "labels", "areas", "ids", "box_categories", "crowd", "scores", "wh")


def take(annotations: Annotations, rows: np.ndarray, **changes: Any) -> Annotations:
    """Some boxes, by their rows in rising order or a (K,) bool; `changes` are other fields to replace.

    Examples:
        A row may stand twice.

        >>> from tinyyolo.datasets.formats import coco
        >>> content = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "ship"}],
        ...            "annotations": [{"image_id": 1, "category_id": 1, "bbox": [x, 0, 6, 6]} for x in (0, 20)]}
        >>> take(coco.from_content(content, "gt"), np.array([0, 1, 1])).boxes[:, 0].tolist()
        [0.0, 20.0, 20.0]
    """
    given = {name: getattr(annotations, name) for name in PER_BOX}
    columns = {name: value[rows] for name, value in given.items() if value is not None}
    extra = {name: value[rows] for name, value in annotations.extra.items()}
    return replace(annotations, **{**columns, "extra": extra, **changes})


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
    return arrange(take(full, boxes), np.flatnonzero(images))


def arrange(annotations: Annotations, images: np.ndarray, **changes: Any) -> Annotations:
    """Images in another order, by their indices; every box must be of one of them. `changes` are fields to replace."""
    full = annotations
    place = np.full(len(full), -1)
    place[images] = np.arange(len(images))
    index = place[full.image_index]
    changes |= {
        "file_names": [full.file_names[i] for i in images.tolist()],
        "sizes_hw": full.sizes_hw[images],
        "image_ids": full.image_ids[images],
    }
    if (index[1:] >= index[:-1]).all():
        return replace(full, image_index=index, **changes)
    order = np.argsort(index, kind="stable")
    return take(full, order, image_index=index[order], **changes)


def by_id(annotations: Annotations) -> Annotations:
    """Images and classes in the order of their ids, in which COCO's evaluator goes through them."""
    classes = np.argsort(annotations.category_ids, kind="stable")
    names = list(annotations.names.values())
    if (np.diff(classes) != 1).any():
        annotations = replace(
            annotations,
            category_ids=annotations.category_ids[classes],
            names=dict(enumerate(names[i] for i in classes)),
            labels=np.append(np.argsort(classes), IGNORED)[annotations.labels],
        )
    images = np.argsort(annotations.image_ids, kind="stable")
    return annotations if (np.diff(images) == 1).all() else arrange(annotations, images)


def of_classes(annotations: Annotations, classes: Sequence[int]) -> Annotations:
    """The objects of some classes, counted anew from 0, and every ignore region; the other classes are gone.

    Args:
        annotations: of all classes.
        classes: indices.
    """
    order = np.array(sorted(classes), np.int64)
    part = subset(annotations, boxes=(annotations.labels < 0) | np.isin(annotations.labels, order))
    return replace(
        part,
        names={new: annotations.names[old] for new, old in enumerate(order.tolist())},
        category_ids=annotations.category_ids[order],
        labels=np.where(part.labels < 0, part.labels, np.searchsorted(order, part.labels)),
    )


def merged(annotations: Annotations, aliases: Mapping[str, str]) -> Annotations:
    """The objects of classes that are called by another name with those of the class itself, as one class.

    Args:
        annotations: with a category for each name.
        aliases: another name of a class, or of an ignored category -> the name; both are names of categories.

    Examples:
        >>> from tinyyolo.datasets.formats import coco
        >>> content = {"images": [{"id": 1}], "categories": [{"id": 4, "name": "truvk"}, {"id": 7, "name": "truck"}],
        ...            "annotations": [{"image_id": 1, "category_id": k, "bbox": [0, 0, 6, 6]} for k in (4, 7)]}
        >>> one = merged(coco.from_content(content, "gt"), {"truvk": "truck"})
        >>> one.names, one.labels.tolist(), one.box_categories.tolist(), one.categories
        ({0: 'truck'}, [0, 0], [7, 7], {7: 'truck'})
    """
    full = annotations
    own = [i for i, name in full.names.items() if name not in aliases]
    names = [full.names[i] for i in own]
    labels = [names.index(aliases.get(name, name)) for name in full.names.values()]
    ids = {name: key for key, name in full.categories.items()}
    ids |= dict(zip(full.names.values(), full.category_ids.tolist(), strict=True))
    key_of = {key: ids[aliases.get(name, name)] for key, name in full.categories.items()}
    return replace(
        full,
        names=dict(enumerate(names)),
        category_ids=full.category_ids[own],
        labels=np.array([*labels, IGNORED])[full.labels],
        categories={key: name for key, name in full.categories.items() if name not in aliases},
        box_categories=np.array([key_of[key] for key in full.box_categories.tolist()], full.category_ids.dtype),
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
    """How a file's categories become labels: `names`, `category_ids` and `categories` of Annotations, and `label_of`.

    A class that the file does not have gets an id above all others, or of text its name. `label_of` is category id ->
    class index, -1 for an ignored category; unknown categories are not in it.
    """

    names: dict[int, str]
    category_ids: np.ndarray
    label_of: dict[Any, int]
    categories: dict[Any, str]


def select_classes(
    categories: Mapping[Any, str], names: Sequence[str] | Mapping[int, str] | None, ignore: Sequence[str], source: Path
) -> Classes:
    """Match a file's categories with the wanted classes by name.

    Args:
        categories: the file's id -> name.
        names: wanted classes; None takes those of the file in id order, without the ignored ones.
        ignore: names of categories that are ignore regions.
        source: the file, for messages.

    Raises:
        UserError: no class is left, or one has control characters in its name.
    """
    skipped = set(ignore)
    if names is None:
        names = list(dict.fromkeys(name for _, name in sorted(categories.items()) if name not in skipped))
        if not names:
            raise UserError(f"{source}: no names: it has no category besides the ignored ones; give `names:`")
    wanted = dict(enumerate(name for name in as_names(names).values() if name not in skipped))
    if hidden := [name for name in (*wanted.values(), *categories.values()) if CONTROL.search(name)]:
        raise UserError(f"{source}: class {hidden[0]!r}: a name is text without control characters")
    index = {name: i for i, name in wanted.items()}
    first: dict[str, Any] = {}
    for key, name in sorted(categories.items()):
        first.setdefault(name, key)
    text = any(isinstance(key, str) for key in categories)
    fresh = 0 if text else max(categories, default=0) + 1
    ids = [first.get(name, name if text else fresh + i) for i, name in wanted.items()]
    known = {key: index.get(name, IGNORED) for key, name in categories.items() if name in index or name in skipped}
    return Classes(wanted, np.array(ids, None if text else np.int64), known, dict(categories))


def assemble(
    path: Path,
    classes: Classes,
    file_names: list[str],
    sizes_hw: np.ndarray,
    image_index: np.ndarray,
    boxes: np.ndarray,
    box_categories: np.ndarray,
    problems: list[Problem],
    **given: Any,
) -> Annotations:
    """Annotations from columns in any order of images; arguments, `given` too, are the fields of the same names.

    Boxes are sorted by image, in their order within one. Without them ids and image_ids count from 1, areas are
    width * height, and no box is marked. Every category must be one that `classes` knows.
    """
    made = Annotations(
        path=path,
        file_names=file_names,
        sizes_hw=sizes_hw,
        names=classes.names,
        category_ids=classes.category_ids,
        image_index=image_index.astype(np.int64),
        boxes=boxes,
        labels=lookup(box_categories, classes.label_of),
        problems=problems,
        categories=classes.categories,
        box_categories=box_categories,
        **{
            "image_ids": np.arange(1, len(file_names) + 1),
            "areas": box_areas(boxes),
            "ids": np.arange(1, len(boxes) + 1),
            "crowd": np.zeros(len(boxes), bool),
            **given,
        },
    )
    extra = {name: column.astype(np.int64) for name, column in made.extra.items()}
    made = replace(made, labels=np.where(made.crowd, IGNORED, made.labels), extra=extra)
    return take(made, np.argsort(image_index, kind="stable"))


def lookup(keys: np.ndarray, table: Mapping[Any, int]) -> np.ndarray:
    """`table[key]` for every key (K,), all of them known."""
    if not len(keys):
        return np.zeros(0, np.int64)
    known = sorted(table)
    return np.array([table[key] for key in known], np.int64)[np.searchsorted(np.array(known), keys)]


BOX_FAULTS = ("not a number", "empty box", "huge box")


def box_faults(boxes: np.ndarray) -> np.ndarray:
    """(K,) text, why each box (K, 4) xyxy has no area a detector could learn: '' for a good one.

    Examples:
        >>> box_faults(np.array([[0, 0, 4, 4], [0, 0, 0, 4], [0, 0, np.nan, 1], [0, 0, 1e9, 1]])).tolist()
        ['', 'empty box', 'not a number', 'huge box']
        >>> box_faults(np.array([[0, 0, 5e-10, 4], [0, 0, 0.001, 4]])).tolist()  # rounding left the first of no width
        ['empty box', '']
    """
    with np.errstate(invalid="ignore", over="ignore"):
        solid = (sides(boxes) > THINNEST).all(axis=1)
        huge = (abs(boxes) > FARTHEST).any(axis=1)
    if solid.all() and not huge.any():
        return np.zeros(len(boxes), "U1")  # the rule, and by far faster than to choose a word for each
    return np.select([~np.isfinite(boxes).all(axis=1), ~solid, huge], BOX_FAULTS, "")


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
