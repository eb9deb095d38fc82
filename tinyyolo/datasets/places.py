"""Where a data YAML's paths lie: as they are written, else as the common exporters mean them, which is told.

Roboflow's `../train/images` means the YAML's own folder; ultralytics looks for `path:` in a folder of all sets; paths
of another machine, or with Windows' backslashes, still end as the files here do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tinyyolo.config import UserError, path_of
from tinyyolo.datasets.images import SUFFIXES, list_images
from tinyyolo.io import plain_text, tell

DRIVE = re.compile(r"^[A-Za-z]:(?=/)")
# What exporters say besides, and we have no use for.
EXPORTED = ("roboflow", "flip_idx", "kpt_names", "minival", "license", "version", "author", "description", "date")
LIST = ".txt"  # how a list of images ends
SPLITS = ("train", "val", "test", "trainval")
LEAST_TAIL = 2  # parts of a path of another machine that must be the same here


def meant(text: str) -> Iterator[str]:
    """What a path that is not there may mean, relative to the set's root, the likeliest first.

    Examples:
        >>> list(meant("../train/images")), list(meant("C:\\\\sets\\\\a\\\\images"))
        (['train/images'], ['sets/a/images', 'a/images'])
    """
    plain = DRIVE.sub("", text.replace("\\", "/"))
    parts = [part for part in PurePosixPath(plain).parts if part not in ("/", "//")]
    inner = parts[next((i for i, part in enumerate(parts) if part != ".."), len(parts)) :]
    if inner and not plain.startswith("/"):
        yield "/".join(inner)
    elif inner:
        yield from ("/".join(inner[i:]) for i in range(len(inner) - LEAST_TAIL + 1))


def find(roots: Sequence[Path], text: str, *, inside: bool = False) -> tuple[Path, bool]:
    """The path that `text` names in the first of `roots`, or what it may mean there or in the others; and whether it
    is that.

    Args:
        roots: folders; the first is where it should be.
        text: as it is written.
        inside: what it may mean comes first, as in an export whose `../` is its own folder.
    """
    text = text.strip()
    usual = roots[0] / path_of(text)
    if os.path.exists(usual) and not (inside and text.startswith("..")):
        return usual, False
    for root in roots:
        for guess in (text, *meant(text)):
            if os.path.exists(root / guess) and (root != roots[0] or guess != text):
                return root / guess, True
    return usual, False


def place(file: Path, root: Path, text: str, *, inside: bool = False) -> Path:
    """The absolute path of an image folder, list or annotation file; another than is written is told."""
    path_of(root / path_of(text.strip(), f"{file}: "), f"{file}: ")
    path, guessed = find([root], text, inside=inside)
    other = root / next(meant(text), text)
    if guessed:
        tell(f"{file}: {text}: not taken as it is written but as {path}")
    elif text.startswith("..") and os.path.exists(other):
        tell(f"{file}: {text}: taken as it is written, {os.path.normpath(path)}; there is {other} as well")
    return path


def root_of(file: Path, base: Path, text: str, datasets: Path, wanted: Sequence[str]) -> Path:
    """The root of a set: `path:` from `base`, else from the folder of all sets, else the YAML's folder, if a split is
    there. An absolute `path:` stays: a disk that is not mounted must not become an older copy beside the YAML.

    Args:
        file: the YAML.
        base: the folder that `path:` is relative to.
        text: the `path:`; "" for none.
        datasets: the folder of all sets.
        wanted: the places of the splits, as the YAML names them.
    """
    usual = path_of(base / path_of(text.strip().replace("\\", "/"), f"{file}: path: "), f"{file}: path: ")
    if os.path.isdir(usual) or path_of(text.strip()).is_absolute() or DRIVE.match(text.replace("\\", "/")):
        return usual
    for other in (datasets / PurePosixPath(text.replace("\\", "/")).name, Path(text), file.parent):
        if holds(other, wanted):
            tell(f"{file}: path: {text} is not there; the data in {other} are taken")
            return other
    return usual


def several(given: Any) -> list[str]:
    """The places that a split names, one or a list of them."""
    return [str(one) for one in (given if isinstance(given, list) else [given])]


def places_of(content: Mapping[str, Any]) -> list[str]:
    """The places of all splits, as they are written."""
    return [one for split in SPLITS for one in several(content.get(split) or [])]


def holds(root: Path, wanted: Sequence[str]) -> bool:
    """Whether one of the places of a YAML's splits is in a folder."""
    return any(os.path.exists(find([root], one)[0]) for one in wanted)


def not_used(file: Path, content: Mapping[str, Any]) -> None:
    """Tell which keys of other tools' YAMLs do nothing here."""
    if keys := [key for key in EXPORTED if key in content]:
        tell(f"{file}: not used: {', '.join(keys)}")
    if content.get("download"):
        tell(f"{file}: download: is never run; nothing is downloaded")
    if content.get("channels") not in (None, 3):
        tell(f"{file}: channels: {content['channels']}: not used; every picture becomes three bands")


def listed_images(file: Path, places: tuple[Path, ...], root: Path) -> list[str]:
    """Images of several folders, of txt lists, or named themselves, relative to the root, each once.

    A line that begins with `./` is relative to its list, others are to the root, or to the list if they are there; a
    line that begins with `#` is a comment.

    Raises:
        UserError: a list or folder is missing or no text, or an image lies outside the root.
    """
    found: list[Path] = []
    for one in places:
        if one.suffix.lower() in SUFFIXES and not one.is_dir():
            found.append(one)
        elif one.suffix != LIST:
            found += [one / name for name in list_images(one)]
        elif not one.is_file():
            raise UserError(f"{file}: no such list of images: {one}")
        else:
            found += of_list(one, root)
    try:
        return list(dict.fromkeys(path.relative_to(root).as_posix() for path in found))
    except ValueError as error:
        raise UserError(f"{file}: {error}; set `path:` to a folder that holds every image") from error


def of_list(file: Path, root: Path) -> list[Path]:
    """The images that a list names, one a line."""
    guesses, out = [], []
    for line in lines_of(file):
        roots = [file.parent, root] if line.startswith(("./", ".\\")) else [root, file.parent]
        path, guessed = find(roots, line)
        out.append(Path(os.path.normpath(path)))
        guesses += [(line, path)] if guessed else []
    if guesses:
        line, path = guesses[0]
        tell(f"{file}: {len(guesses):,} lines are not taken as they are written, such as {line} as {path}")
    return out


def lines_of(file: Path) -> list[str]:
    """The lines of a list without blanks around them, empty ones and comments.

    Raises:
        UserError: it cannot be read as text.
    """
    try:
        lines = plain_text(file.read_bytes()).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not readable as a list in UTF-8: {' '.join(str(error).split())}") from error
    return [line for line in map(str.strip, lines) if line and not line.startswith("#")]
