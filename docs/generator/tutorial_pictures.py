"""The pictures of docs/tutorial.md: python docs/generator/tutorial_pictures.py FOLDER, in which its blocks ran."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

PAGE = Path(__file__).parent.parent / "tutorial"
# Picture -> the file that the tutorial's commands write, and the part of it that is shown: rows and columns, px.
SOURCES = {
    "scene.jpg": ("drawn/train/0.tif", (slice(200, 620), slice(100, 900))),
    "stats.jpg": ("runs/data-stats/mine.png", (slice(None), slice(None))),
    "val.jpg": ("runs/train/predictions.jpg", (slice(0, 700), slice(None))),
    "map.jpg": ("runs/predict/10.jpg", (slice(0, 600), slice(0, 900))),
}
WIDEST, MOST_BYTES = 1000, 100_000
QUALITIES = range(85, 30, -5)


def main(folder: Path) -> None:
    """Write the four pictures, each of at most 100 kB."""
    PAGE.mkdir(exist_ok=True)
    for name, (source, part) in SOURCES.items():
        image = cv2.imread(str(folder / source))[part]
        scale = min(1, WIDEST / image.shape[1])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        (PAGE / name).write_bytes(small(image))
        print(f"{name}: {(PAGE / name).stat().st_size:,} bytes")


def small(image: np.ndarray) -> bytes:
    """A JPEG of the best quality that is small enough."""
    tries = (cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, q])[1].tobytes() for q in QUALITIES)
    return next(content for content in tries if len(content) <= MOST_BYTES)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
