"""What the formats with one text file an image have in common: YOLO, VisDrone, DOTA and VOC."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyyolo.boxes.convert import convert, to_pixels
from tinyyolo.config import UserError
from tinyyolo.datasets import images as image_files
from tinyyolo.datasets.annotations import (
    IGNORED,
    Annotations,
    Problem,
    as_names,
    assemble,
    box_faults,
    raise_fatal,
    select_classes,
)
from tinyyolo.datasets.formats import doubts
from tinyyolo.datasets.formats.base import Format
from tinyyolo.datasets.images import nearest_folder
from tinyyolo.io import in_threads, new_file, place_in, plain_text

BOX = slice(1, 5)
CROWD = 5
OUTLINE = -1.0  # in the place of the mark of a crowd: the object was an outline, taken by its bounding box
COMMENT = re.compile(r"(?:^|\s)#")


class Categories(NamedTuple):
    """How ids or names in the files become classes.

    Attributes:
        names: every category id that a file may hold, and its name.
        wanted: the classes in order.
        ignore: names of categories that are ignore regions.
    """

    names: Mapping[int, str]
    wanted: list[str]
    ignore: tuple[str, ...]


def without_comments(text: str) -> list[str]:
    """The lines of a text, comments made empty."""
    return [COMMENT.split(line, maxsplit=1)[0] for line in text.splitlines()]


def no_frame(name: str, size_hw: Sequence[int]) -> tuple[str, str]:
    """Nothing around the lines of a file."""
    return "", ""


@dataclass(frozen=True)
class TextFormat:
    """A format with one text file an image.

    Attributes:
        name: for messages.
        folder: the label folder beside the image folder `images`.
        categories: (all names, ignored names) -> Categories.
        parse: (record, {category id: name}) -> (category, 4 numbers of the box, crowd or OUTLINE, *extra), or None
            for a header.
            Raises KeyError for a class that is not in names, ValueError for a line it cannot read.
        lines: annotations -> K lines, None for a box that the format cannot hold. None: the format is only read.
        form: of the boxes, see `boxes.convert`.
        fractions: they are fractions of the image's sides instead of pixels.
        extra: names of the further numbers that `parse` gives.
        names: the format's own classes, where it has them.
        suffix: of the label files.
        stem: the name of an image without its suffix -> that of its label file.
        records: what `parse` takes of a file's text, each a line where nothing else is said. Raises ValueError.
        frame: (image, its height and width) -> what stands before and behind the lines of a file.
    """

    name: str
    folder: str
    categories: Callable[[list[str], tuple[str, ...]], Categories]
    parse: Callable[[Any, Mapping[int, str]], tuple[float, ...] | None]
    lines: Callable[[Annotations], list[str | None]] | None = None
    form: str = "xyxy"
    fractions: bool = False
    extra: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    suffix: str = ".txt"
    stem: Callable[[str], str] = str
    records: Callable[[str], Sequence[Any]] = without_comments
    frame: Callable[[str, Sequence[int]], tuple[str, str]] = no_frame

    def layout(self, regions: tuple[str, ...] | None = None) -> Format:
        """As a `Format` of the dict of formats."""
        return Format(self.read, self.write if self.lines else None, f"{self.folder}/{{split}}", regions)

    def read(
        self,
        images_dir: str | Path,
        names: Sequence[str] | Mapping[int, str] | None = None,
        ignore: Sequence[str] = (),
        *,
        labels: str | Path | None = None,
        file_names: Sequence[str] | None = None,
        strict: bool = True,
    ) -> Annotations:
        """See `base.Reader`; an image without a label file has no objects, image ids are 1..I and box ids 1..K."""
        every = list(as_names(names or self.names).values())
        if not every:
            raise UserError(f"{images_dir}: {self.name} labels carry no class names; give `names:` in the data YAML")
        images_dir, categories = Path(images_dir), self.categories(every, tuple(ignore))
        found = listed(images_dir, file_names)
        folder, placed = self.find_labels(images_dir, found, labels)
        problems: list[Problem] = []
        kept, size_hw = readable(images_dir, found, problems)
        problems += shared_labels(images_dir, kept)
        label_files = [folder / placed(name) for name in kept]
        parts = [self.read_labels(path, categories.names, problems) for path in label_files]
        table = np.concatenate([np.zeros((0, CROWD + 1 + len(self.extra))), *parts])
        image_index = np.repeat(np.arange(len(kept)), [len(part) for part in parts]).astype(np.int64)
        boxes = table[:, BOX]
        said = doubts.without_image(label_files, folder, kept, every=file_names is None)
        said += (doubts.not_fractions if self.fractions else doubts.not_pixels)(boxes, folder)
        said += doubts.corners(boxes, folder, self.form) if self.form != "xyxy" else []
        said += doubts.outlines(int((table[:, CROWD] == OUTLINE).sum()), folder)
        unknown = [problem for problem in problems if problem.kind == "unknown class"]
        said += doubts.from_one(unknown, table[:, 0], categories.names, folder) if self.fractions else []
        problems[:0] = said
        with np.errstate(over="ignore", invalid="ignore"):  # of numbers that box_faults finds
            boxes = to_pixels(boxes, size_hw[image_index]) if self.fractions else convert(boxes, self.form, "xyxy")
        kinds = np.array(box_faults(boxes), dtype=object)
        for i in np.flatnonzero(kinds != ""):
            what = f"{kinds[i]}: {' '.join(f'{v:g}' for v in table[i, BOX])}"
            problems.append(Problem(kinds[i], str(label_files[image_index[i]]), what))
        if strict:
            raise_fatal(problems)
        classes = select_classes(categories.names, categories.wanted, categories.ignore, folder)
        good = (kinds == "") & np.isin(table[:, 0], list(classes.label_of))
        table = table[good]
        columns = image_index[good], boxes[good], table[:, 0].astype(np.int64)
        extra = {name: table[:, CROWD + 1 + i] for i, name in enumerate(self.extra)}
        return assemble(folder, classes, kept, size_hw, *columns, problems, crowd=table[:, CROWD] > 0, extra=extra)

    def find_labels(
        self, images_dir: Path, found: Sequence[str], labels: str | Path | None
    ) -> tuple[Path, Callable[[str], Path]]:
        """The label folder, and where in it the labels of an image are by the image's name.

        They lie in it as the images do in `images_dir`. In a folder that is named (`labels`), where none does, they lie
        as the images do in the folder that all of them share, such as that of a list.

        Raises:
            UserError: no such folder.
        """
        inner = labels is None and bool(found) and all("images" in Path(name).parts for name in found)
        folder = images_dir if inner else sibling(images_dir, self.folder) if labels is None else Path(labels)
        if not folder.is_dir():
            beside = sum((images_dir / name).with_suffix(self.suffix).is_file() for name in found)
            takes = f"annotations: {{SPLIT: {images_dir}}} takes those"
            hint = f"; {beside:,} images have a {self.suffix} beside them: {takes}"
            where = f"{images_dir}{hint if beside else nearest_folder(folder)}"
            raise UserError(f"{folder}: no such {self.name} label folder for the images in {where}")

        def placed(name: str, below: str = ".") -> Path:
            path = Path(name)
            path = path.with_name(f"{self.stem(path.stem)}{self.suffix}").relative_to(below)
            return sibling(path.parent, self.folder) / path.name if inner else path

        shared = os.path.commonpath([Path(name).parent for name in found] or [Path()]) or "."
        if labels is None or shared == "." or any((folder / placed(name)).is_file() for name in found):
            return folder, placed
        return folder, partial(placed, below=shared)

    def read_labels(self, path: Path, categories: Mapping[int, str], problems: list[Problem]) -> np.ndarray:
        """What `parse` gives for every line of one label file, a row each; none where there is no file."""
        rows: list[tuple[float, ...]] = []
        records: Sequence[Any] = []
        try:
            records = self.records(plain_text(path.read_bytes()))
        except FileNotFoundError:  # an image without objects
            records = []
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem("bad record", str(path), f"not readable as text in UTF-8: {error}"))
        except ValueError as error:
            problems.append(Problem("bad record", str(path), str(error)))
        for number, record in enumerate(records, 1):
            if isinstance(record, str) and not record.strip():
                continue
            try:
                row = self.parse(record, categories)
                if row is not None and not all(abs(value) < 2**31 for value in row[CROWD:]):
                    raise ValueError(f"found {' '.join(f'{v:g}' for v in row[CROWD:])} beside the box")
            except KeyError as error:
                choices = ", ".join(f"{key} {name}" for key, name in categories.items())
                what = f"class {error.args[0]} is not in names; there are: {choices}"
                problems.append(Problem("unknown class", f"{path}:{number}", what))
            except ValueError as error:
                problems.append(Problem("bad record", f"{path}:{number}", str(error)))
            else:
                rows += [row] if row is not None else []
        return np.array(rows, np.float64).reshape(-1, CROWD + 1 + len(self.extra))

    def write(
        self,
        labels: str | Path,
        annotations: Annotations,
        *,
        images_dir: str | Path | None = None,
        overwrite: bool = False,
    ) -> dict[str, int]:
        """See `base.Writer`; one label file for every image, an empty one where it has no objects.

        Raises:
            UserError: as every Writer, or two images would share one label file, or a name leads out of the folder.
        """
        if self.lines is None:
            raise UserError(f"{self.name}: a format that is only read")
        lines = self.lines(annotations)
        targets = [place_in(labels, str(Path(name).with_suffix(self.suffix))) for name in annotations.file_names]
        if len(set(targets)) < len(targets):
            twice = next(path for path, times in Counter(targets).items() if times > 1)
            raise UserError(f"{twice}: two images of this name with other endings would share one label file")
        offsets = annotations.offsets
        sizes = annotations.sizes_hw.tolist()
        for i, target in enumerate(targets):
            before, behind = self.frame(annotations.file_names[i], sizes[i])
            with new_file(target, overwrite=overwrite) as stream:
                stream.write(before)
                stream.writelines(f"{line}\n" for line in lines[offsets[i] : offsets[i + 1]] if line is not None)
                stream.write(behind)
        ignored = int((annotations.labels == IGNORED).sum())
        return {"boxes": len(lines) - ignored, "ignore_regions": ignored}


def sibling(images_dir: str | Path, folder: str) -> Path:
    """The label folder of an image folder: the last part `images` of the path becomes `folder`, else beside it.

    Examples:
        >>> sibling("set/images/train", "labels").as_posix(), sibling("set/train", "labels").as_posix()
        ('set/labels/train', 'set/labels')
    """
    images_dir = Path(images_dir)
    for parent in (images_dir, *images_dir.parents):
        if parent.name == "images":
            return parent.with_name(folder) / images_dir.relative_to(parent)
    return images_dir.parent / folder


def listed(folder: Path, names: Sequence[str] | None) -> list[str]:
    """The images that a reader is given by name; None for all of the folder."""
    return image_files.list_images(folder) if names is None else list(names)


def readable(folder: Path, names: Sequence[str] | None, problems: list[Problem]) -> tuple[list[str], np.ndarray]:
    """Those of the `listed` images whose header can be read, and their sizes (I, 2); the others become problems."""
    kept, sizes, names = [], [], listed(folder, names)
    looks = in_threads(lambda name: image_files.look(folder / name), names, "sizes")
    for name, found in zip(names, looks, strict=True):
        if found.fault:
            problems.append(Problem("unreadable image", str(folder / name), found.fault))
        else:
            kept.append(name)
            sizes.append(found.size_hw)
    return kept, np.array(sizes, np.int64).reshape(-1, 2)


def shared_labels(folder: Path, names: Sequence[str]) -> list[Problem]:
    """Images that would have the same label file."""
    stems = Counter(Path(name).with_suffix("") for name in names)
    what = "{} images of this name with other endings share one label file"
    return [Problem("shared label", str(folder / stem), what.format(n)) for stem, n in stems.items() if n > 1]


def around(corners: Sequence[float]) -> tuple[float, float, float, float]:
    """The box around the corners of an outline, x of all of them before y of all.

    Examples:
        >>> around([10, 15, 10, 5, 5, 10, 15, 10])
        (5, 5, 15, 15)
    """
    xs, ys = corners[: len(corners) // 2], corners[len(corners) // 2 :]
    return min(xs), min(ys), max(xs), max(ys)


def numbers(words: Sequence[str], expected: str) -> list[float]:
    """Words as numbers.

    Raises:
        ValueError: one is none; says what the line should be.
    """
    try:
        return [float(word) for word in words]
    except ValueError as error:
        comma = "; a decimal sign is a point, not a comma" if any("," in word.strip(",") for word in words) else ""
        raise ValueError(f"expected numbers `{expected}`: {error}{comma}") from error
