"""Resident memory while predicting many images: must stay flat.

    python benchmarks/memory.py                         # 1,000 drawn images of 640x512, drawn into pictures as well
    python benchmarks/memory.py --images 5000 --model runs/train/weights/best.pt --folder my/images

Prints the resident memory after every 100 images and the largest, as a ratio to that after the first 100.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np

from tinyyolo import Model

EVERY = 100
SIZE_HW = (512, 640)
SEED = 0


def resident_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def draw(folder: Path, count: int) -> None:
    """`count` JPEGs of noise with bright squares of 4 to 12 px."""
    rng = np.random.default_rng(SEED)
    for i in range(count):
        image = rng.integers(80, 140, (*SIZE_HW, 3), dtype=np.uint8)
        for _ in range(20):
            side = int(rng.integers(4, 13))
            y, x = (int(rng.integers(0, n - side)) for n in SIZE_HW)
            image[y : y + side, x : x + side] = 240
        cv2.imwrite(str(folder / f"{i}.jpg"), image)


def main() -> None:
    """Predict, and print the memory as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tinyyolo-n.yaml")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--folder", type=Path, help="images to predict instead of drawn ones")
    args = parser.parse_args()
    model, found = Model(args.model), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary) / "images"
        if not args.folder:
            folder.mkdir()
            draw(folder, args.images)
        results = model.predict(
            folder, stream=True, imgsz=args.imgsz, conf=0.001, save=True, project=temporary, verbose=False
        )
        for i, _ in enumerate(results, 1):
            if i % EVERY == 0:
                found.append(resident_mb())
                print(f"{i:6d} images  {found[-1]:7.1f} MB", flush=True)
            if i == args.images:
                break
    print(f"largest after the first {EVERY}: {max(found) / found[0]:.3f} times that after the first {EVERY}")


if __name__ == "__main__":
    main()
