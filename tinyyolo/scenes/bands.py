"""What has been found in the bands of a scene, a row of windows each: held on the disk, so that memory is bounded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from tinyyolo.config import UserError
from tinyyolo.io import tell, whole_file
from tinyyolo.scenes.sweep import Found
from tinyyolo.scenes.windows import Window

COLUMNS = 6  # x1, y1, x2, y2 px of the network, score, class
DIGEST = hashlib.sha256().digest_size  # bytes at the start of a file
COUNT = np.dtype("<u4")  # of a band's windows without a valid pixel, behind it


def rows_of(windows: Sequence[Window]) -> list[list[Window]]:
    """The windows of a scene by rows; each row is a band.

    Examples:
        >>> from tinyyolo.scenes.windows import windows
        >>> [len(row) for row in rows_of(windows((1000, 1500), 640, 64, 32))]
        [3, 3]
    """
    return [list(row) for _, row in groupby(windows, lambda window: window.y)]


class Bands:
    """The candidates of a scene's bands as whole files in a folder; one that is damaged is as if it were not there.

    Args:
        folder: of this scene alone; made with the first file.
        key: of what the candidates depend on; a file of another key is damaged.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     bands = Bands(Path(folder), "a scene")
        ...     bands.put(3, Found(torch.zeros(1, 4), torch.tensor([0.5]), torch.tensor([2])), empty=1)
        ...     bands.get(2), bands.get(3)[1], bands.get(3)[0].labels
        (None, 1, tensor([2]))
    """

    def __init__(self, folder: Path, key: str = ""):
        self.folder, self.key = folder, key

    def put(self, part: int | str, found: Found, empty: int = 0) -> None:
        """Keep the candidates of a band, or of another part, and how many of its windows had no valid pixel.

        Raises:
            UserError: the disk is full.
        """
        rows = torch.cat([found.boxes, found.scores[:, None], found.labels[:, None].to(found.boxes)], 1)
        content = np.array(empty, COUNT).tobytes() + rows.cpu().numpy().astype("<f4").tobytes()
        with whole_file(self._path(part)) as file:
            file.write(self._digest(part, content))
            file.write(content)

    def get(self, part: int | str) -> tuple[Found, int] | None:
        """What was put there; None where there is nothing, or what is there is damaged, which is told."""
        path = self._path(part)
        if not path.is_file():
            return None
        data = np.fromfile(path, np.uint8)
        content = data[DIGEST:]
        if data[:DIGEST].tobytes() != self._digest(part, content.data):
            tell(f"{path}: damaged: computed anew")
            return None
        rows = torch.from_numpy(content[COUNT.itemsize :].view("<f4").reshape(-1, COLUMNS))
        return Found(rows[:, :4], rows[:, 4], rows[:, 5].long()), int(content[: COUNT.itemsize].view(COUNT)[0])

    def all(self, count: int) -> Iterator[tuple[Found, int]]:
        """The first `count` bands, one by one.

        Raises:
            UserError: one is not there any more.
        """
        for i in range(count):
            if (band := self.get(i)) is None:
                raise UserError(f"{self._path(i)}: gone or damaged since it was written: run it again")
            yield band

    def drop(self, count: int) -> None:
        """Remove the first `count` bands."""
        for i in range(count):
            self._path(i).unlink(missing_ok=True)

    def _path(self, part: int | str) -> Path:
        return self.folder / f"{part}.band"

    def _digest(self, part: int | str, content: bytes | memoryview) -> bytes:
        digest = hashlib.sha256(f"{self.key} {part} ".encode())
        digest.update(content)
        return digest.digest()
