"""What a prediction reads: the files that a path, folder, glob or list of them means; all else is the engine's."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ultralytics.data.utils import IMG_FORMATS, VID_FORMATS

from tinyyolo.config import UserError, path_of, shown
from tinyyolo.datasets import images
from tinyyolo.datasets.images import list_images
from tinyyolo.datasets.places import find, lines_of
from tinyyolo.io import tell

SUFFIXES = images.SUFFIXES | {f".{suffix}" for suffix in IMG_FORMATS | VID_FORMATS}
LISTS = (".txt", ".csv")
DEEP = (
    "uint16",
    "uint32",
    "uint64",
    "int",
    "float",
    "bool",
    "complex",
    "object",
    "I",
    "F",
)  # numpy's and Pillow's words
HEADER = "source"  # of a csv


def check_source(source: Any) -> None:
    """Raise UserError for a path that does not exist or holds nothing; other kinds of source are the engine's."""
    if source is None:
        raise UserError("source= is missing: an image, a folder, a glob, a video or a list of paths")
    check_arrays(source if isinstance(source, (list, tuple)) else [source])
    if not is_path(source) or glob.has_magic(str(source)):
        return
    path = path_of(source, "source=")
    if not os.path.exists(path):
        raise UserError(f"source={source}: no such file or folder")
    if path.is_dir() and not any(path.iterdir()):
        raise UserError(f"source={source}: the folder is empty")


def check_arrays(items: Sequence[Any]) -> None:
    """Raise UserError for pictures in memory that are not of 8 bits: the engine would take their numbers as they are.

    Examples:
        >>> check_arrays([np.zeros((9, 9, 3), np.uint16)])
        Traceback (most recent call last):
        tinyyolo.config.UserError: source=array of uint16: expected uint8; scenes.rendering.eight_bits makes it
    """
    for item in items:
        array = isinstance(item, np.ndarray)
        kind = str(item.dtype) if array else item.mode if isinstance(item, Image.Image) else ""
        if kind.startswith(DEEP):
            words = "expected uint8; scenes.rendering.eight_bits makes it"
            raise UserError(f"source={'array' if array else 'image'} of {kind}: {words}")


def is_path(source: Any) -> bool:
    """Whether a source names files; a URL, a camera and the screen do not."""
    if not isinstance(source, (str, Path)):
        return False
    text = str(source).lower()
    screen = text == "screen" or (text.startswith("screen ") and not os.path.exists(text))
    return not ("://" in text or text.isnumeric() or text.endswith(".streams") or screen)


def is_files(source: Any) -> bool:
    """Whether a source names image files, or holds their names; a video's frames and pictures in memory are none."""
    if isinstance(source, (list, tuple)):
        return bool(source) and all(map(is_files, source))
    return is_path(source) and not is_video(source)


def named(source: Any) -> str:
    """A source in a message."""
    return f"array of {source.dtype}" if isinstance(source, np.ndarray) else shown(str(source))


def is_video(path: str | Path) -> bool:
    """Whether a file is read frame by frame, by its ending."""
    return Path(path).suffix[1:].lower() in VID_FORMATS


def files_of(source: Any) -> tuple[list[str], Path | None] | None:
    """The absolute paths of the files that a source means, in its order, and the folder that their names are relative
    to; None for what is read in another way.

    Folders are searched through, for images and videos by their endings; files that are named are taken whatever they
    are called, whether or not they are there.

    Raises:
        UserError: a list that cannot be read.
    """
    if isinstance(source, (list, tuple)) and source and all(map(is_path, source)):
        files = [file for one in source for file in expand(one)]
    elif not is_path(source):
        return None
    elif Path(source).suffix.lower() in LISTS and path_of(source, "source=").is_file():
        file = path_of(source, "source=")
        files = [path for line in rows_of(file) for path in expand(find([Path.cwd(), file.parent], line)[0])]
    else:
        files = expand(source)
        if (folder := path_of(source, "source=")).is_dir():
            return files, folder.absolute()
    twice = len({Path(file).name for file in files}) < len({*files})
    return files, Path(os.path.commonpath([Path(file).parent for file in files])) if twice else None


def rows_of(file: Path) -> list[str]:
    """The sources that a list names: a line each, or in a csv a cell."""
    lines = lines_of(file)
    if file.suffix.lower() != ".csv":
        return lines
    cells = [cell.strip() for row in csv.reader(lines) for cell in row]
    return [cell for cell in cells[cells[:1] == [HEADER] :] if cell]


def expand(source: str | Path) -> list[str]:
    """The files of a folder, of a glob, or the one file."""
    path = path_of(source, "source=").absolute()
    if path.is_dir():
        return [str(path / name) for name in list_images(path, SUFFIXES)]
    if glob.has_magic(str(path)) and not os.path.exists(path):
        found = [Path(file) for file in sorted(glob.glob(str(path), recursive=True))]
        if "**" not in str(path) and (folders := [file.name for file in found if file.is_dir()]):
            tell(f"source={source}: {len(folders):,} folders fit too, such as {folders[0]}: they are left out")
        return [str(file) for file in found if file.is_file() and file.suffix.lower() in SUFFIXES]
    return [str(path)]


def parted(files: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Images, videos, and what is not there."""
    there = [file for file in files if os.path.isfile(file)]
    images = [file for file in there if not is_video(file)]
    return images, [file for file in there if is_video(file)], [file for file in files if not os.path.isfile(file)]
