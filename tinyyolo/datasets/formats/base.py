"""The shape that every format has: one reader and one writer with the same arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tinyyolo.datasets.annotations import Annotations


class Reader(Protocol):
    """Reads the annotations of an image folder."""

    def __call__(
        self,
        images_dir: str | Path,
        names: Sequence[str] | Mapping[int, str] | None = None,
        ignore: Sequence[str] = (),
        *,
        labels: str | Path | None = None,
        file_names: Sequence[str] | None = None,
        strict: bool = True,
    ) -> Annotations:
        """Read.

        Args:
            images_dir: folder with images, searched through. Sizes come from the images' headers, unless the
                annotations say them.
            names: all classes in order, the ignored ones too; None takes the format's own.
            ignore: names of categories that are ignore regions; the other classes move up and stay in order.
            labels: the annotation file or folder; None takes the format's usual place beside `images_dir`.
            file_names: only these images, relative to `images_dir`.
            strict: stop at the first fault that would make the numbers wrong; otherwise leave the record out and
                list it.

        Returns:
            The annotations; double and tiny boxes stay.

        Raises:
            UserError: no such file or folder, no names, or (strict) a fault, with file and line or record.
        """


class Writer(Protocol):
    """Writes the annotations of one split."""

    def __call__(
        self,
        labels: str | Path,
        annotations: Annotations,
        *,
        images_dir: str | Path | None = None,
        overwrite: bool = False,
    ) -> dict[str, int]:
        """Write.

        Args:
            labels: the annotation file or folder.
            annotations: what to write, digits enough to read it back.
            images_dir: where the images lie, for a format that says where objects are on the map.
            overwrite: replace files that are there.

        Returns:
            Counts by name: `boxes` written, `ignore_regions` written or, where the format has none, left out.

        Raises:
            UserError: a file exists and `overwrite` is not set, or the format cannot hold the names.
        """


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        read: its reader.
        write: its writer; None for a format that is only read.
        labels: where a written split's annotations go in the folder of a set, such as "labels/{split}".
        regions: names of the categories that its ignore regions are written under; () keeps the set's own names, None
            says that it has none.
    """

    read: Reader
    write: Writer | None = None
    labels: str = ""
    regions: tuple[str, ...] | None = None
