"""PASCAL VOC's XML, as LabelImg and others write it, to arrays and back: one file an image, corners in pixels.

Corners are taken as they are, as LabelImg means them: VOC's own files count pixels from 1 and are half a pixel off. A
<polygon> of x1, y1 to x4, y4, as DroneVehicle has them, is taken by its bounding box.
`difficult`, `truncated` and `occluded` are kept in `.extra`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from tinyyolo.datasets.annotations import IGNORED, Annotations
from tinyyolo.datasets.formats.dota import categories
from tinyyolo.datasets.formats.text import OUTLINE, TextFormat, around, numbers

CORNERS = ("xmin", "ymin", "xmax", "ymax")
POLYGON = tuple(f"{axis}{i}" for axis in "xy" for i in range(1, 5))
MARKS = {"difficult": "difficult", "truncation": "truncated", "occlusion": "occluded"}  # our names -> theirs
DECLARES = "<!DOCTYPE"  # what no label file needs, and what entities that grow without bound are declared in


def objects(text: str) -> list[ElementTree.Element]:
    """The objects of a file.

    Raises:
        ValueError: it is no XML, declares a document type, or is no annotation.
    """
    if DECLARES in text:
        raise ValueError(f"{DECLARES} in it: not read")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"not readable as XML: {error}") from error
    if root.tag != "annotation":
        raise ValueError(f"expected <annotation>, found <{root.tag}>")
    return root.findall("object")


def parse(record: ElementTree.Element, categories: Mapping[int, str]) -> tuple[float, ...]:
    """One object.

    Raises:
        KeyError: the class is not in `categories`.
        ValueError: no name, or no box of four numbers.

    Examples:
        >>> box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
        >>> parse(objects(f"<annotation><object><name>ship</name>{box}</object></annotation>")[0], {1: "ship"})
        (1, 3.0, 4.0, 9.0, 8.0, 0, 0.0, 0.0, 0.0)
    """
    name = (record.findtext("name") or "").strip()
    key = next((key for key, known in categories.items() if known == name), None)
    if not name and key is None:
        raise ValueError("an object without a name")
    corners, outline = extent(record)
    marks = numbers([(record.findtext(theirs) or "").strip() or "0" for theirs in MARKS.values()], "0 or 1")
    if key is None:
        raise KeyError(name)
    return (key, *corners, OUTLINE if outline else 0, *marks)


def extent(record: ElementTree.Element) -> tuple[Sequence[float], bool]:
    """The corners of an object, and whether they are those around an outline; NaN where it has neither.

    Raises:
        ValueError: a corner is missing or no number.
    """
    for tag, keys in (("bndbox", CORNERS), ("polygon", POLYGON)):
        if record.find(tag) is not None:
            words = [record.findtext(f"{tag}/{key}") for key in keys]
            if missing := [key for key, word in zip(keys, words, strict=True) if word is None]:
                raise ValueError(f"no {tag} with {', '.join(missing)}")
            found = numbers([word or "" for word in words], " ".join(keys))
            return (found, False) if tag == "bndbox" else (around(found), True)
    return [math.nan] * len(CORNERS), False


def lines(annotations: Annotations) -> list[str | None]:
    """One element a box; None for ignore regions, which the format does not have."""
    out: list[str | None] = []
    marks = {theirs: annotations.extra.get(own) for own, theirs in MARKS.items()}
    for i, (label, box) in enumerate(zip(annotations.labels.tolist(), annotations.boxes.tolist(), strict=True)):
        said = "".join(f"<{key}>{max(column[i], 0)}</{key}>" for key, column in marks.items() if column is not None)
        corners = "".join(f"<{key}>{value:.12g}</{key}>" for key, value in zip(CORNERS, box, strict=True))
        name = escape(annotations.names.get(label, ""))
        whole = f"  <object><name>{name}</name>{said}<bndbox>{corners}</bndbox></object>"
        out.append(None if label == IGNORED else whole)
    return out


def frame(name: str, size_hw: Sequence[int]) -> tuple[str, str]:
    """What stands around the objects of an image."""
    size = f"<size><width>{size_hw[1]}</width><height>{size_hw[0]}</height><depth>3</depth></size>"
    spelled = escape(name.encode("utf-8", "backslashreplace").decode())  # a name on a disk may be no text
    return f"<annotation>\n  <filename>{spelled}</filename>\n  {size}\n", "</annotation>\n"


FORMAT = TextFormat(
    "VOC", "Annotations", categories, parse, lines, extra=tuple(MARKS), suffix=".xml", records=objects, frame=frame
).layout()
