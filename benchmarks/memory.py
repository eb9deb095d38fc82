"""Resident memory while predicting many images: must stay within 10 % of that after the first 100.

    python benchmarks/memory.py                         # 1,000 drawn images of 640x512, drawn into pictures as well
    python benchmarks/memory.py --images 5000 --model runs/train/weights/best.pt --folder my/images

Once through `Model.predict(stream=True)` and once through the command `tinyyolo predict`, each in a process of its own.
Prints the resident memory after every 100 images and the largest of them as a ratio to the first; exit code 1 if one is
over its bound. Random weights score everything near 0, so `conf` is by default what leaves 100 boxes in the first
image. Linux only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from tinyyolo import Model

EVERY = 100
MOST = 1.1
SIZE_HW = (512, 640)
SEED = 0
BOXES = 100
POLL = 0.1  # seconds
STREAM = """
import sys
from tinyyolo import Model
model, source, *words = sys.argv[1:]
settings = dict(word.split("=") for word in words)
for _ in Model(model).predict(source, stream=True, save=True, **settings):
    pass
"""


def resident_mb(process: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def draw(folder: Path, count: int) -> None:
    """`count` JPEGs of noise with bright squares of 4 to 12 px."""
    folder.mkdir()
    rng = np.random.default_rng(SEED)
    for i in range(count):
        image = rng.integers(80, 140, (*SIZE_HW, 3), dtype=np.uint8)
        for _ in range(20):
            side = int(rng.integers(4, 13))
            y, x = (int(rng.integers(0, n - side)) for n in SIZE_HW)
            image[y : y + side, x : x + side] = 240
        cv2.imwrite(str(folder / f"{i}.jpg"), image)


def watch(command: list[str], pictures: Path) -> list[float]:
    """Resident memory of `command` at every 100th picture that it has written."""
    found: list[float] = []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        count = len(os.listdir(pictures)) if pictures.exists() else 0
        if count >= EVERY * (len(found) + 1):
            found.append(resident_mb(process.pid))
            print(f"{count:6d} images  {found[-1]:7.1f} MB", flush=True)
        time.sleep(POLL)
    if process.returncode:
        sys.exit(process.returncode)
    return found


def main() -> int:
    """Predict in both ways, and print the memory as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a checkpoint; by default random weights of tinyyolo-n.yaml")
    parser.add_argument("--images", type=int, default=1000, help="how many to draw")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--conf", type=float)
    parser.add_argument("--folder", type=Path, help="images to predict instead of drawn ones")
    args = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as temporary:
        model, folder = args.model or f"{temporary}/random.pt", args.folder or Path(temporary) / "images"
        if not args.model:
            Model("tinyyolo-n.yaml").save(model)
        if not args.folder:
            draw(folder, args.images)
        conf = args.conf
        if conf is None:
            first = Model(model).predict(folder, stream=True, imgsz=args.imgsz, conf=0, max_det=BOXES, verbose=False)
            conf = float(next(first).boxes.conf.min())
        settings = [f"imgsz={args.imgsz}", f"conf={conf}", "verbose=false", f"project={temporary}"]
        for name, command in {
            "stream": ["-c", STREAM, model, str(folder)],
            "command": ["-m", "tinyyolo.cli", "predict", f"model={model}", f"source={folder}"],
        }.items():
            print(name)
            found = watch([sys.executable, *command, *settings, f"name={name}"], Path(temporary) / name)
            if len(found) < 2:
                sys.exit(f"{folder}: too few images, expected at least {2 * EVERY}")
            ratios.append(max(found[1:]) / found[0])
            print(f"{name}: largest after the first {EVERY} images {ratios[-1]:.3f} times that at {EVERY}")
    return int(max(ratios) > MOST)


if __name__ == "__main__":
    sys.exit(main())
