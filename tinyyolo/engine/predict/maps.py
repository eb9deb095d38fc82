"""The files of `out=`: the boxes of all images of a run, written at its end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER

from tinyyolo.config import UserError, parse_value, path_of
from tinyyolo.engine.predict.sources import is_video
from tinyyolo.io import draft_file, tell
from tinyyolo.scenes.vectors import Part, check_form, write_parts


def checked(given: Any, exist_ok: bool, form: Callable[[Path, str], None] = check_form) -> list[Path]:
    """The absolute paths that `out=` names, relative to the current folder; looked at before the work begins.

    Args:
        given: a path, a list of them, also as it is typed on a command line, or None.
        exist_ok: replace files that are there.
        form: raises UserError for a path whose suffix cannot be written.

    Raises:
        UserError: no such form, a package that is missing, a file that exists, one named twice, or a folder that cannot
            be written into.

    Examples:
        >>> [path.name for path in checked("[a.geojson, b.parquet]", False)]
        ['a.geojson', 'b.parquet']
    """
    if given is None:
        return []
    listed = isinstance(given, str) and given.startswith("[") and given.endswith("]")
    words = parse_value(given, as_text=True) if listed else given
    paths = [path_of(word, "out=").absolute() for word in (words if isinstance(words, (list, tuple)) else [words])]
    for i, path in enumerate(paths):
        said = f"out={path}: "
        form(path, "out=")
        above = next(folder for folder in path.parents if os.path.lexists(folder))
        if path in paths[:i]:
            raise UserError(f"{said}named twice")
        if path.is_dir():
            raise UserError(f"{said}is a folder; expected a file such as {path.name}/boxes{path.suffix}")
        if os.path.lexists(path) and not exist_ok:
            raise UserError(f"{said}exists; exist_ok=true replaces it")
        try_folder(above, said)
    return paths


def try_folder(folder: Path, said: str) -> None:
    """Raise UserError for a folder in which no file can be made; `said` stands before it."""
    try:
        handle, draft = draft_file(folder)
    except OSError as error:
        raise UserError(f"{said}nothing can be written to {folder}: {error.strerror}") from error
    os.close(handle)
    os.unlink(draft)


class Maps:
    """Takes what is written of each result; see `maps_of`."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths
        self.parts: list[Part] = []
        self.names: dict[int, str] = {}

    def add(self, result: Any, name: str) -> None:
        """Keep the boxes of an image of this name; of a video there is no map."""
        if is_video(result.path):
            tell(f"out=: not of videos such as {result.path}")
            return
        self.parts.append(result.part._replace(scene=name))
        self.names = result.names

    def write(self) -> None:
        """Write the files, of what there is.

        Raises:
            UserError: one cannot be written.
        """
        count = sum(len(part.scores) for part in self.parts)
        for path in self.paths if self.parts else []:
            write_parts(path, self.parts, self.names)
            LOGGER.info(f"{path}: {count:,} boxes of {len(self.parts):,} image{'s' * (len(self.parts) > 1)}")


@contextmanager
def maps_of(paths: Sequence[Path]) -> Iterator[Maps]:
    """The files `paths` of what is added in this context, written at its end.

    A run that fails writes nothing, and leaves what was there; a consumer that stops early leaves whole files of what
    it has seen.

    Raises:
        UserError: one cannot be written.
    """
    maps = Maps(paths)
    try:
        yield maps
    except GeneratorExit:  # the consumer has seen enough
        maps.write()
        raise
    maps.write()
