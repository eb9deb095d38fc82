"""Time and memory of reading AI-TOD-v2's annotations, and of cutting xView's scenes. Draws its own files.

    python benchmarks/data.py [folder]

Bounds of the project: 14,018 images and 376,129 boxes to arrays in under 6 s and 600 MB; a 3,000 x 3,000 px TIFF to
tiles in under 1 GB. Every line is a process of its own, imports included, so that its peak memory is its own. Times are
wall-clock and CPU seconds; the bound is held against the latter, which other work on the machine disturbs less. Exit
code 1 if one is over.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

IMAGES, BOXES, SIDE, CLASSES = 14018, 376129, 800, 8
SCENE, SCENES = 3000, 4
BOUNDS = {
    "coco_json.read": (6.0, 600),
    "pycocotools": (None, None),
    "yolo_txt.read": (None, None),
    "build-aitod": (None, 1000),
}
MEGABYTE = 1024  # in the units of /proc and getrusage, kilobytes


def draw_json(path: Path) -> None:
    """A file of AI-TOD-v2's size and format, outlines included."""
    rng = np.random.default_rng(0)
    owner, kind = rng.integers(1, IMAGES + 1, BOXES).tolist(), rng.integers(1, CLASSES + 1, BOXES).tolist()
    xy, wh = rng.uniform(0, SIDE - 20, (BOXES, 2)).round(2).tolist(), rng.uniform(3, 18, (BOXES, 2)).round(2).tolist()
    rows = []
    for i, ((x, y), (w, h)) in enumerate(zip(xy, wh, strict=True)):
        outline = [[x, y, x, y + h, x + w, y + h, x + w, y]]
        row = {"area": w * h, "iscrowd": 0, "ignore": 0, "segmentation": outline, "bbox": [x, y, w, h]}
        rows.append(row | {"image_id": owner[i], "category_id": kind[i], "id": i + 1})
    images = [{"id": i + 1, "file_name": f"{i}__0_0.png", "width": SIDE, "height": SIDE} for i in range(IMAGES)]
    categories = [{"id": i + 1, "name": f"class {i}"} for i in range(CLASSES)]
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))


def draw_scenes(folder: Path) -> None:
    """xView scenes as TIFF and a JSON that names all their tiles."""
    from tinyyolo.datasets.convert.tile import grid

    rng = np.random.default_rng(0)
    (folder / "xview").mkdir(parents=True, exist_ok=True)
    (folder / "aitod" / "annotations").mkdir(parents=True, exist_ok=True)
    for i in range(SCENES):
        cv2.imwrite(str(folder / "xview" / f"{i}.tif"), rng.integers(0, 256, (SCENE, SCENE, 3), np.uint8))
    names = [f"{i}__{x}_{y}.png" for i in range(SCENES) for x, y in grid((SCENE, SCENE), SIDE, 200)]
    images = [{"id": i, "file_name": name, "width": SIDE, "height": SIDE} for i, name in enumerate(names)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "ship"}]}
    (folder / "aitod" / "annotations" / "aitodv2_train.json").write_text(json.dumps(content))


def work(name: str, folder: Path) -> str:
    """Do one thing; returns what was done."""
    if name == "pycocotools":
        from pycocotools.coco import COCO

        return f"{len(COCO(str(folder / 'aitodv2.json')).anns):,} boxes"
    if name == "coco_json.read":
        from tinyyolo.datasets.formats import coco as coco_json

        found = coco_json.read(folder / "aitodv2.json")
        return f"{len(found):,} images, {len(found.labels):,} boxes"
    if name == "yolo_txt.read":
        from tinyyolo.datasets.formats.table import FORMATS

        found = FORMATS["yolo"].read(folder / "images", [f"class {i}" for i in range(CLASSES)])
        return f"{len(found):,} images, {len(found.labels):,} boxes"
    from tinyyolo.datasets.convert.aitod import build_aitod

    where = {key: str(folder / key) for key in ("xview", "aitod", "runs")}
    build_aitod(**where, out=str(folder / "out"), overwrite=True)
    return f"{len(list((folder / 'out').rglob('*.png')))} tiles of {SCENES} scenes"


def draw_yolo(folder: Path) -> None:
    """The same boxes as YOLO txt under images of one pixel row each."""
    from tinyyolo.datasets.formats import coco as coco_json
    from tinyyolo.datasets.formats.table import FORMATS

    found = coco_json.read(folder / "aitodv2.json")
    (folder / "images").mkdir(exist_ok=True)
    picture = cv2.imencode(".png", np.zeros((SIDE, SIDE, 3), np.uint8))[1].tobytes()
    for name in found.file_names:
        (folder / "images" / name).write_bytes(picture)
    write = FORMATS["yolo"].write
    assert write is not None
    write(folder / "labels", found, overwrite=True)


def peak_memory() -> float:
    """Megabytes. Not getrusage's, which a new process inherits from the one that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / MEGABYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE


def measure(name: str, folder: Path) -> tuple[float, float, float, str]:
    """Wall-clock and CPU seconds and peak megabytes of `work`, and what it did."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, __file__, str(folder), name], capture_output=True, text=True, check=True)
    cpu, memory, what = done.stdout.splitlines()[-1].split(" ", 2)
    return time.perf_counter() - start, float(cpu), float(memory), what


def main(folder: Path) -> int:
    """Draw what is not there yet and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    for made, draw in (
        ("aitodv2.json", lambda: draw_json(folder / "aitodv2.json")),
        ("xview", lambda: draw_scenes(folder)),
    ):
        if not (folder / made).exists():
            draw()
    if not (folder / "labels").exists():
        draw_yolo(folder)
    over = []
    for name, (most_seconds, most_memory) in BOUNDS.items():
        wall, seconds, memory, done = measure(name, folder)
        print(f"{name:16} {wall:6.2f} s wall  {seconds:6.2f} s CPU  {memory:5.0f} MB  {done}", flush=True)
        if (most_seconds and seconds > most_seconds) or (most_memory and memory > most_memory):
            over.append(name)
    print(f"over its bound: {', '.join(over)}" if over else "all within their bounds")
    return 1 if over else 0


if __name__ == "__main__":
    if len(sys.argv) > 2:
        what = work(sys.argv[2], Path(sys.argv[1]))
        print(time.process_time(), peak_memory(), what)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else temporary)))
