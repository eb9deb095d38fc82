"""What the attributes of a layer say: which of them names the class, which the image, and what marks there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.config import UserError, shown, suggest
from tinyyolo.datasets.annotations import Problem, unknown_class
from tinyyolo.datasets.formats.decode import BAD_MARK, EXTRA, mark
from tinyyolo.datasets.formats.doubts import from_one

# Attributes that name the class or the image where nobody says which does, the likeliest first; upper and lower case
# are one. A Shapefile cuts names after ten characters.
CLASS_FIELDS: tuple[str, ...] = ("class", "class_name", "classname", "label", "category", "category_name", "name")
CLASS_FIELDS += ("type", "species", "kind", "class_id", "classid", "label_id", "category_id", "cls")
IMAGE_FIELDS = ("image", "image_path", "file_name", "filename")
MARK_FIELDS, SCORE_FIELDS = ("iscrowd", "ignore"), ("score", "scores", "confidence")
LONGEST_FIELD = 10  # characters of a Shapefile's names


@dataclass(frozen=True)
class Said:
    """What the attributes of N features say.

    Attributes:
        classes: (N,) text, "" for none; None where no attribute names the class.
        field: that attribute.
        images: (N,) text, "" for none.
        crowd: (N,) bool, marked as an ignore region.
        bad_marks: (N,) bool, marked by what says neither yes nor no.
        extra: name -> (N,) numbers, NaN for none.
        scores: whether they have scores.
        ids: (N,) whole numbers, the attribute `id`; None where it is no number of its own for each.
        every: names of all attributes.
    """

    classes: np.ndarray | None
    field: str
    images: np.ndarray
    crowd: np.ndarray
    bad_marks: np.ndarray
    extra: dict[str, np.ndarray]
    scores: bool
    ids: np.ndarray | None
    every: tuple[str, ...]


def said_by(path: Path, fields: Mapping[str, np.ndarray], count: int, names: Sequence[str], given: str) -> Said:
    """Understand the attributes of `count` features.

    Args:
        path: names the file in messages.
        fields: name -> (N,) values.
        count: N.
        names: of the classes; () if they are not known.
        given: the attribute that names the class; "" looks for it.

    Raises:
        UserError: there is none called `given`.
    """
    field = class_field(path, fields, names, given)
    nothing = np.full(count, "", object)
    image = next(iter(called(IMAGE_FIELDS, fields)), "")
    marks = [[mark(plain(value)) for value in fields[name].tolist()] for name in called(MARK_FIELDS, fields)]
    ids = next((numbers_of(fields[name]) for name in called(("id",), fields)), np.full(count, np.nan))
    own_ids = np.isfinite(ids).all() and len(np.unique(ids)) == count
    marked = np.array(marks, np.int64).reshape(len(marks), count)
    return Said(
        texts(fields[field]) if field else None,
        field,
        texts(fields[image]) if image else nothing,
        (marked == 1).any(axis=0),
        (marked == BAD_MARK).any(axis=0),
        {key: numbers_of(fields[own]) for key in EXTRA for own in called((key,), fields)},
        bool(called(SCORE_FIELDS, fields)),
        ids.astype(np.int64) if own_ids else None,
        tuple(fields),
    )


def called(wanted: Sequence[str], fields: Mapping[str, Any]) -> list[str]:
    """The attributes that are called so, in the order of `wanted`.

    Examples:
        >>> called(("class", "category_name"), {"CATEGORY_N": 0, "id": 0, "Class": 0})
        ['Class', 'CATEGORY_N']
    """
    short = {name: name.lower()[:LONGEST_FIELD] for name in fields}
    return list(dict.fromkeys(own for one in wanted for own in fields if short[own] == one.lower()[:LONGEST_FIELD]))


def class_field(path: Path, fields: Mapping[str, np.ndarray], names: Sequence[str], given: str) -> str:
    """The attribute that names the class, "" if none seems to: of those that are called so the one whose values are
    names of classes, else one of text whose values all are."""
    if given:
        if found := called((given,), fields):
            return given if given in found else found[0]
        raise UserError(f"{path}: class_field: {given}: no such attribute; {suggest(given, fields)}")
    known = frozenset(names)

    def share(name: str) -> float:
        values = [value for value in texts(fields[name]) if value]
        return sum(not known or value in known for value in values) / len(values) if values else -1.0

    candidates = called(CLASS_FIELDS, fields)
    if not candidates and known:
        words = [name for name, values in fields.items() if values.dtype == object]
        candidates = [name for name in words if share(name) == 1]
    return max(candidates, key=share, default="")


def plain(value: Any) -> Any:
    """An attribute's value without numpy; None for null, which is NaN among numbers."""
    return None if isinstance(value, float) and np.isnan(value) else value


def text_of(value: Any) -> str:
    """An attribute's value as a name: whole numbers without a point, "" for null.

    Examples:
        >>> [text_of(value) for value in (" tree", 3.0, 7, float("nan"), None, 2.5)]
        ['tree', '3', '7', '', '', '2.5']
    """
    value = plain(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else " ".join(str(value).split())


def texts(values: np.ndarray) -> np.ndarray:
    """(N,) text of values, see `text_of`."""
    out = np.empty(len(values), object)
    out[:] = [text_of(value) for value in values.tolist()]
    return out


def numbers_of(values: np.ndarray) -> np.ndarray:
    """(N,) whole numbers of values, NaN for what is none."""
    out = np.full(len(values), np.nan)
    for i, text in enumerate(texts(values)):
        if text.lstrip("-").isdecimal() and len(text) < LONGEST_FIELD:
            out[i] = int(text)
    return out


def names_in(classes: Iterable[str]) -> list[str]:
    """The classes that occur, in the order of the alphabet, numbers by their value.

    Examples:
        >>> names_in(["tree", "10", "", "9", "car"])
        ['9', '10', 'car', 'tree']
    """
    return sorted({*classes} - {""}, key=lambda name: (not name.isdecimal(), name.zfill(LONGEST_FIELD)))


def keys_of(
    path: Path, classes: np.ndarray, every: Sequence[str], problems: list[Problem], remarks: list[Problem]
) -> np.ndarray:
    """(K,) place in `every` of the class of each object, -1 for none and for one that is not in it, which is told.

    Where no value is a name and all are whole numbers, they are places in `every`, from 0.
    """
    index = {name: i for i, name in enumerate(every)}
    there, counts = np.unique(classes[classes != ""].astype(str), return_counts=True)
    occurring = dict(zip(there.tolist(), counts.tolist(), strict=True))
    by_number = bool(occurring) and not occurring.keys() & index.keys() and all(map(str.isdecimal, occurring))
    choices = ", ".join(f"{i} {name}" for i, name in enumerate(every))
    if by_number:
        index = {text: int(text) for text in occurring if len(text) < LONGEST_FIELD and int(text) < len(every)}
        remarks.append(Problem("class field", str(path), f"its classes are numbers, taken as {choices}"))
    unknown = []
    for name, count in occurring.items():
        if name not in index and by_number:
            what = f"class {shown(name)} is not in names; there are: {choices} ({count:,} objects)"
            unknown.append(Problem("unknown class", str(path), what))
        elif name not in index:
            unknown.append(unknown_class(f"{path}: {count:,} objects", shown(name), every))
    if by_number:
        ids = np.array([min(int(name), len(every) + 1) for name in occurring])
        problems += from_one(unknown, ids, dict(enumerate(every)), path)
    problems += unknown
    out: np.ndarray = np.array([index.get(name, -1) for name in classes.tolist()], np.int64)
    return out
