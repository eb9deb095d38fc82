"""What windows find in a whole scene, beside slicers of others, at seams, and in how much memory. Makes its scenes.

    python benchmarks/scenes.py recall best.pt annotations.json images/    # a 6,000 px scene beside its images alone
    python benchmarks/scenes.py peers best.pt annotations.json images/     # beside SAHI and supervision
    python benchmarks/scenes.py seams best.pt annotations.json images/     # halos of 0 to 128 px; objects near a cut
    python benchmarks/scenes.py memory best.pt annotations.json images/ --sides 3000 20000 30000
    python benchmarks/scenes.py unite - - - --objects 100000               # how long joining the windows takes
    python benchmarks/scenes.py mosaic - annotations.json images/ --out scenes/    # files alone: PNG, GeoTIFF, truth

A scene is real images side by side, whole ones in an order by seed, mirrored where an image comes again; its truth is
a COCO JSON. `--scale 0.5` halves the images first, `--ignore DontCare` makes ignore regions of a class, and words
after `--` are keys of `tinyyolo predict` (`-- tile=1024 overlap=128 batch=4`). Matching is that of `tinyyolo
evaluate`, at IoU .5 of detections of `--conf` and more. `peers` runs with an interpreter that has sahi and
supervision; what is missing is told.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false")

import cv2
import numpy as np
import yaml

STRIDE = 32  # sides of a scene are its multiples, so that one forward at full size needs no padding
GREY = 114  # where no image lies, as the engine pads
SUFFIXES = {"tiled": ".tif", "striped": ".tif", "png": ".png"}
METRES = 0.3  # of a pixel
ROOM, CANDIDATES = 40.0, 12  # px from drawn object to object, and what the network finds of each
HALOS = (0, 16, 32, 64, 96, 128)
SAME_IOU, SAME_SCORE = 0.9, 0.02  # of a detection in windows that is the one of the whole scene
NEAR = 16  # px from a cut
REGIONS = "ignore regions"
SLICERS = ("tinyyolo", "sahi", "supervision")
# What joins the parts of a scene, by slicer; what a later version no longer has is left out.
MERGING = {
    "tinyyolo": (
        ("tinyyolo.engine.predict.scenes", "joined"),
        ("tinyyolo.engine.predict.scenes", "united"),
    ),
    "sahi": (("sahi.postprocess.combine", "GreedyNMMPostprocess.__call__"),),
    "supervision": (
        ("supervision.detection.core", "Detections.with_nms"),
        ("supervision.detection.core", "Detections.merge"),
    ),
}


class Cell(NamedTuple):
    """An image in a scene: its row in the set, 0 to 3 for how it is mirrored, its left upper corner and size, px."""

    image: int
    mirror: int
    x: int
    y: int
    width: int
    height: int


def shelves(sizes_hw: np.ndarray, side: int, gap: int = 0) -> list[Cell]:
    """Whole images from left to right in rows that reach `side` px, in as many rows as reach it.

    Args:
        sizes_hw: (I, 2) px, of the images in their order; after the last they come again, mirrored.
        side: width and height that the scene has at least, px.
        gap: px between images.

    Examples:
        >>> [(c.image, c.mirror, c.x, c.y) for c in shelves(np.array([[4, 6], [5, 3]]), 8)]
        [(0, 0, 0, 0), (1, 0, 6, 0), (0, 1, 0, 5), (1, 1, 6, 5)]
    """
    cells: list[Cell] = []
    y = 0
    while y < side:
        x = row = 0
        while x < side:
            turn, image = divmod(len(cells), len(sizes_hw))
            height, width = sizes_hw[image].tolist()
            cells.append(Cell(image, turn % 4, x, y, width, height))
            x, row = x + width + gap, max(row, height)
        y += row + gap
    return cells


def mirrored(boxes: np.ndarray, cell: Cell) -> np.ndarray:
    """Boxes (K, 4) xyxy px of an image where they are in the scene.

    Examples:
        >>> mirrored(np.array([[1.0, 2, 3, 5]]), Cell(0, 1, 100, 200, 10, 20)).tolist()
        [[107.0, 202.0, 109.0, 205.0]]
    """
    out = boxes.copy()
    if cell.mirror & 1:
        out[:, [0, 2]] = cell.width - boxes[:, [2, 0]]
    if cell.mirror & 2:
        out[:, [1, 3]] = cell.height - boxes[:, [3, 1]]
    return out + np.array([cell.x, cell.y] * 2)


@dataclass(frozen=True, eq=False)
class Mosaic:
    """A scene of images of a set.

    Attributes:
        images: the folder.
        notes: objects of the set, `tinyyolo.datasets` Annotations.
        order: rows of the set in the order in which they are placed.
        cells: where they are; `Cell.image` counts in `order`.
        scale: factor by which images are resized first.
    """

    images: Path
    notes: Any
    order: np.ndarray
    cells: list[Cell]
    scale: float

    @classmethod
    def of(
        cls, annotations: Path, images: Path, side: int, *, scale: float = 1.0, gap: int = 0, seed: int = 0, **how: Any
    ) -> Mosaic:
        """Of a COCO JSON and its images; `how` as `evaluation.inputs.read_truth` takes it."""
        from tinyyolo.evaluation.inputs import read_truth

        notes = read_truth(annotations, **how)
        order = list(range(len(notes)))
        random.Random(seed).shuffle(order)
        sizes = np.maximum(1, np.round(notes.sizes_hw[order] * scale)).astype(int)
        return cls(images, notes, np.array(order), shelves(sizes, side, gap), scale)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width, multiples of STRIDE, px."""
        ends = [(c.y + c.height, c.x + c.width) for c in self.cells]
        height, width = (-(-max(end) // STRIDE) * STRIDE for end in zip(*ends, strict=True))
        return height, width

    def pixels_of(self, cell: Cell) -> np.ndarray:
        """(h, w, 3) uint8 BGR."""
        file = self.images / self.notes.file_names[self.order[cell.image]]
        pixels = loaded(file, cell.width, cell.height)
        return pixels[:: -1 if cell.mirror & 2 else 1, :: -1 if cell.mirror & 1 else 1]

    def bands(self) -> Iterator[np.ndarray]:
        """The scene (h, W, 3) uint8 BGR row of images by row of images, and what is left below."""
        height, width = self.size_hw
        rows = [list(row) for _, row in groupby(self.cells, lambda cell: cell.y)]
        for row, end in zip(rows, [*(row[0].y for row in rows[1:]), height], strict=True):
            band = np.full((end - row[0].y, width, 3), GREY, np.uint8)
            for cell in row:
                band[: cell.height, cell.x : cell.x + cell.width] = self.pixels_of(cell)
            yield band

    def write(self, path: Path, layout: str = "tiled") -> Path:
        """The scene as PNG, or as GeoTIFF in UTM; returns the path with its ending."""
        path = path.with_name(path.name + SUFFIXES[layout])
        if layout == "png":
            cv2.imwrite(str(path), np.concatenate([*self.bands()]))
            return path
        import rasterio
        from rasterio.windows import Window

        height, width = self.size_hw
        kind = {"driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8", "photometric": "RGB"}
        kind |= {"compress": "deflate", "zlevel": 1, "bigtiff": "if_safer"}
        kind |= {"tiled": True, "blockxsize": 512, "blockysize": 512} if layout == "tiled" else {"blockysize": 16}
        place = rasterio.transform.from_origin(500_000, 5_000_000, METRES, METRES)
        with rasterio.open(path, "w", crs="EPSG:32633", transform=place, **kind) as file:
            y = 0
            for band in self.bands():
                part = Window(0, y, width, len(band))
                file.write(np.ascontiguousarray(band[..., ::-1].transpose(2, 0, 1)), window=part)
                y += len(band)
        return path

    def truth(self, name: str = "scene") -> dict[str, Any]:
        """The objects as a COCO dict of one image; regions of every class are of the category REGIONS."""
        height, width = self.size_hw
        rows: list[dict[str, Any]] = []
        for cell in self.cells:
            at = self.notes.rows(int(self.order[cell.image]))
            for box, label in zip(
                mirrored(self.notes.boxes[at] * self.scale, cell), self.notes.labels[at], strict=True
            ):
                x1, y1, x2, y2 = box.tolist()
                row = {
                    "id": len(rows) + 1,
                    "image_id": 1,
                    "category_id": int(label) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                }
                rows.append(row | {"area": (x2 - x1) * (y2 - y1), "iscrowd": 0})
        names = {0: REGIONS} if any(row["category_id"] == 0 for row in rows) else {}
        names |= {i + 1: name for i, name in self.notes.names.items()}
        return {
            "images": [{"id": 1, "file_name": name, "width": width, "height": height}],
            "categories": [{"id": i, "name": name} for i, name in names.items()],
            "annotations": rows,
        }


@lru_cache(maxsize=256)
def loaded(file: Path, width: int, height: int) -> np.ndarray:
    """An image as training reads it, of this size."""
    from tinyyolo.datasets import images

    pixels: np.ndarray = images.load(file)
    return pixels if pixels.shape[1::-1] == (width, height) else cv2.resize(pixels, (width, height), interpolation=3)


def judged(truth: dict[str, Any], rows: np.ndarray, conf: float) -> Any:
    """`evaluation.find_errors` of detections (K, 6) xyxy, score, label on a scene; nothing is cut off by max_dets."""
    from tinyyolo.evaluation import find_errors

    xywh = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], axis=1)
    found = {"image_id": np.ones(len(rows), int), "category_id": rows[:, 5].astype(int) + 1}
    found |= {"bbox": xywh.astype(float), "score": rows[:, 4].astype(float)}
    ignore = [REGIONS] if truth["categories"][0]["name"] == REGIONS else []
    return find_errors(truth, found, threshold=conf, max_dets=[max(1, len(rows))], ignore=ignore)


def right_of(errors: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of `Errors`: (M,) bool whether each object that counts was found, (D,) bool whether each detection is right."""
    from tinyyolo.evaluation.errors import CAUSES, FOUND, REGION, TRUE

    counted = np.isin(errors.verdict, [TRUE, *CAUSES])
    return errors.state[errors.state != REGION] == FOUND, errors.verdict[counted] == TRUE


def rows_of(result: Any) -> np.ndarray:
    """(K, 6) xyxy, score, class of Results."""
    rows: np.ndarray = result.boxes.data.cpu().numpy().astype(np.float64)
    return rows


def shares(errors: Any) -> str:
    """Recall, precision and detections as cells of a table."""
    found, right = right_of(errors)
    return f"{found.mean():.4f} | {right.mean():.4f} | {len(right):,}"


def table(title: str, header: Sequence[str], rows: Sequence[str]) -> None:
    """Print a markdown table; rows are cells joined by bars."""
    print(f"\n{title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    print("\n".join(f"| {row} |" for row in rows), flush=True)


def keys_of(args: argparse.Namespace) -> dict[str, Any]:
    """The keys of `predict` in this run."""
    return {"imgsz": 640, "tile": 640, "overlap": 96, "conf": args.conf, "verbose": False, **args.keys}


def mosaic_of(args: argparse.Namespace, side: int, seed: int = 0, gap: int = 0) -> Mosaic:
    """A scene of the run's set."""
    how = {"scale": args.scale, "gap": gap, "seed": seed, "ignore": args.ignore}
    return Mosaic.of(args.annotations, args.images, side, **how)


def said(args: argparse.Namespace, mosaic: Mosaic, truth: dict[str, Any]) -> str:
    """What a table is of."""
    height, width = mosaic.size_hw
    keys = " ".join(f"{key}={value}" for key, value in keys_of(args).items() if key != "verbose")
    counts = f"{len(mosaic.cells)} images, {len(truth['annotations']):,} boxes"
    return f"{args.annotations.name}: {width} x {height} px, {counts}; {keys}"


def single_images(model: Any, mosaic: Mosaic, args: argparse.Namespace) -> np.ndarray:
    """Detections (K, 6) of each image alone at its own size, in pixels of the scene."""
    keys = {key: value for key, value in keys_of(args).items() if key not in ("tile", "overlap", "imgsz")}
    found = [np.zeros((0, 6))]
    for cell in mosaic.cells:
        side = -(-max(cell.width, cell.height) // STRIDE) * STRIDE
        pixels = np.ascontiguousarray(mosaic.pixels_of(cell))
        rows = rows_of(model.predict(pixels, **keys, imgsz=side, tile="off")[0])
        rows[:, :4] += [cell.x, cell.y] * 2
        found.append(rows)
    return np.concatenate(found)


def recall(args: argparse.Namespace, folder: Path) -> None:
    """A scene in windows and its images alone. The gap takes away what only a mosaic has: neighbours."""
    from tinyyolo import Model

    model, rows = Model(args.model), []
    for gap in (0, 64):
        mosaic = mosaic_of(args, args.side, gap=gap)
        truth = mosaic.truth()
        alone = judged(truth, single_images(model, mosaic, args), args.conf)
        scene = mosaic.write(folder / f"gap-{gap}", args.layout)
        tiled = judged(truth, rows_of(model.predict(scene, **keys_of(args))[0]), args.conf)
        (before, was), (after, now) = right_of(alone), right_of(tiled)
        change, least = after.astype(int) - before, after.mean() - before.mean()
        error = change.std() / len(change) ** 0.5
        where = f"{gap} px of grey between them" if gap else "side by side"
        rows += [f"{where}: each image alone | {shares(alone)} | |", f"{where}: scene in windows | {shares(tiled)}"]
        rows[-1] += f" | {least:+.4f} ± {error:.4f} | {now.mean() - was.mean():+.4f}"
        rows[-2] = rows[-2].removesuffix(" |")
    head = ("", "recall", "precision", "detections", "recall: more (standard error)", "precision: more")
    table(f"Recall. {said(args, mosaic, truth)}", head, rows)


# --- the same scene by several slicers, each in a process of its own ---


class Clock:
    """CPU seconds of this thread within a function that is replaced by a timed one; inner calls count once."""

    def __init__(self) -> None:
        self.seconds, self.depth = 0.0, 0

    def on(self, holder: Any, name: str) -> None:
        """Time `holder.name` from now on, whether a function, a method or a class method."""
        raw = vars(holder).get(name) or getattr(holder, name)
        inner = raw.__func__ if isinstance(raw, (classmethod, staticmethod)) else raw

        def timed(*args: Any, **kwargs: Any) -> Any:
            start, self.depth = time.thread_time(), self.depth + 1
            try:
                return inner(*args, **kwargs)
            finally:
                self.depth -= 1
                self.seconds += 0.0 if self.depth else time.thread_time() - start

        setattr(holder, name, type(raw)(timed) if isinstance(raw, (classmethod, staticmethod)) else timed)

    def on_path(self, module: str, path: str) -> None:
        """Time `path` of a module, if it is there."""
        holder: Any = importlib.import_module(module)
        *owners, name = path.split(".")
        for owner in owners:
            holder = getattr(holder, owner, None)
        if hasattr(holder, name):
            self.on(holder, name)


def slicer(name: str, model: Any, keys: dict[str, Any]) -> Callable[[str], np.ndarray]:
    """A function from the path of a scene to detections (K, 6); the same windows, as far as the slicer has them."""
    tile, overlap, conf = keys["tile"], keys["overlap"], keys["conf"]
    one = {key: value for key, value in keys.items() if key != "overlap"} | {"tile": "off"}
    if name == "tinyyolo":
        return lambda path: rows_of(model.predict(path, **keys)[0])
    if name == "sahi":
        from sahi import AutoDetectionModel
        from sahi.predict import get_sliced_prediction

        net = AutoDetectionModel.from_pretrained(
            model_type="ultralytics", model=model, confidence_threshold=conf, image_size=keys["imgsz"], device="cpu"
        )
        share = overlap / tile
        how = {"slice_height": tile, "slice_width": tile, "overlap_height_ratio": share, "overlap_width_ratio": share}
        how |= {"batch_size": keys.get("batch", 1), "perform_standard_pred": False, "verbose": 0}

        def sahi(path: str) -> np.ndarray:
            found = get_sliced_prediction(path, net, **how).object_prediction_list
            rows = [[*one.bbox.to_xyxy(), one.score.value, one.category.id] for one in found]
            return np.array(rows, float).reshape(-1, 6)

        return sahi
    import supervision

    def seen(window: np.ndarray) -> Any:
        return supervision.Detections.from_ultralytics(model.predict(window, **one)[0])

    cut = supervision.InferenceSlicer(seen, slice_wh=tile, overlap_wh=overlap)

    def sv(path: str) -> np.ndarray:
        found = cut(cv2.imread(path))  # BGR, as the model takes arrays
        return np.column_stack([found.xyxy, found.confidence, found.class_id])

    return sv


def work(job: dict[str, Any]) -> dict[str, float]:
    """One slicer on one scene; writes its detections, returns seconds and megabytes."""
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if job["slicer"] == "command":
        from tinyyolo.cli import main as command

        start = time.process_time(), time.perf_counter()
        status = command(job["words"])
        if status:
            sys.exit(status)
        return {"cpu": time.process_time() - start[0], "wall": time.perf_counter() - start[1], "peak": peak_memory()}
    from tinyyolo import Model

    model = Model(job["model"])
    run = slicer(job["slicer"], model, job["keys"])
    model.predict(np.full((64, 64, 3), GREY, np.uint8), conf=job["keys"]["conf"], imgsz=64, verbose=False)  # warm
    net, merge = Clock(), Clock()
    for name in ("features", "candidates"):
        net.on(type(model.model), name)
    for module, path in MERGING[job["slicer"]]:
        merge.on_path(module, path)
    start = time.process_time(), time.perf_counter()
    rows = run(job["scene"])
    took = {"cpu": time.process_time() - start[0], "wall": time.perf_counter() - start[1]}
    np.save(job["out"], rows)
    return took | {"net": net.seconds, "merge": merge.seconds, "peak": peak_memory()}


def peak_memory() -> float:
    """Megabytes at most resident so far; not getrusage's, which a new process inherits. Linux only."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


def apart(job: dict[str, Any]) -> dict[str, float]:
    """`work` in a process of its own."""
    words = [sys.executable, __file__, "work", json.dumps(job)]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(f"{job['slicer']}: {done.stderr[-2000:]}")
    out: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return out


def peers(args: argparse.Namespace, folder: Path) -> None:
    """Slicers take turns on one scene; of each the round with the least CPU time counts."""
    mosaic = mosaic_of(args, args.side)
    truth, scene = mosaic.truth(), mosaic.write(folder / "scene", "png" if args.layout == "png" else args.layout)
    there = [name for name in SLICERS if find_spec(name)]
    took: dict[str, list[dict[str, float]]] = {name: [] for name in there}
    for _ in range(args.rounds):
        for name in there:
            job = {"slicer": name, "model": str(args.model), "keys": keys_of(args), "scene": str(scene)}
            took[name].append(apart(job | {"out": str(folder / f"{name}.npy")}))
    rows = [f"{name} | not installed | | | | | | | | |" for name in SLICERS if name not in there]
    best = {name: min(rounds, key=lambda one: one["cpu"]) for name, rounds in took.items()}
    found = {name: np.load(folder / f"{name}.npy") for name in there}
    fewest = min(len(one) for one in found.values())
    for name, one in best.items():
        boxes = found[name][np.argsort(-found[name][:, 4], kind="stable")]
        alike = right_of(judged(truth, boxes[:fewest], args.conf))[0].mean()
        ratio = best["tinyyolo"]["cpu"] / one["cpu"]
        shown = f"{one['cpu']:.1f} | {ratio:.2f} | {one['cpu'] / one['net'] - 1:.1%} | {one['merge'] / one['cpu']:.2%}"
        figures = f"{shares(judged(truth, boxes, args.conf))} | {alike:.4f} | {shown}"
        rows.append(f"{name} | {figures} | {one['wall']:.1f} | {one['peak']:.0f}")
    head = ["", "recall", "precision", "detections", f"recall of the best {fewest:,}", "CPU s", "ours / theirs"]
    head += ["over the model's own", "merging", "wall s", "peak MB"]
    table(f"Peers. {said(args, mosaic, truth)}; 1 thread, {args.rounds} rounds", head, rows)


# --- seams ---


def cuts(size_hw: tuple[int, int], keys: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """x and y where a core ends and the next begins, px."""
    from tinyyolo.scenes.windows import spans

    halo = keys["overlap"] // 2
    rows, columns = (
        np.array([span.core_stop for span in spans(n, keys["tile"], halo, STRIDE)[:-1]], float) for n in size_hw
    )
    return columns, rows


def distance(boxes: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(K,) px from boxes (K, 4) xyxy to the nearest cut, 0 where it goes through the box.

    Examples:
        >>> distance(np.array([[4.0, 0, 9, 5], [12, 20, 30, 30]]), np.array([10.0, 25.0]), np.array([])).tolist()
        [1.0, 0.0]
    """
    least = np.full(len(boxes), np.inf)
    for axis, lines in ((0, columns), (1, rows)):
        beyond = np.maximum(boxes[:, axis, None] - lines, lines - boxes[:, axis + 2, None])
        least = np.minimum(least, np.maximum(beyond, 0).min(axis=1, initial=np.inf))
    return least


def matched(rows: np.ndarray, others: np.ndarray, score: float = SAME_SCORE) -> np.ndarray:
    """(K,) bool: which detections (K, 6) have one of their class among `others` at SAME_IOU, scored within `score`."""
    import torch

    from tinyyolo.boxes.sparse import overlapping

    out = np.zeros(len(rows), bool)
    boxes, rest = (torch.from_numpy(one[:, :4]).float() for one in (rows, others))
    labels, rest_labels = (torch.from_numpy(one[:, 5]).long() for one in (rows, others))
    for i, j in overlapping(boxes, rest, labels, rest_labels, SAME_IOU):
        near = np.abs(rows[i.numpy(), 4] - others[j.numpy(), 4]) <= score
        out[i.numpy()[near]] = True
    return out


def seams(args: argparse.Namespace, folder: Path) -> None:
    """One forward over whole scenes against windows, and objects near cuts against all others."""
    from tinyyolo import Model

    model, keys = Model(args.model), keys_of(args)
    low = args.conf / 2  # what the other side finds under `conf` is a difference of the score alone
    shared = {halo: [np.zeros(0, bool)] * 3 for halo in args.halos}
    near, whole_found, tiled_found = [], [], []
    for seed in range(args.scenes):
        mosaic = mosaic_of(args, min(args.side, args.whole), seed)
        scene, truth = np.concatenate([*mosaic.bands()]), mosaic.truth()
        full = {key: value for key, value in keys.items() if key != "overlap"}
        full |= {"tile": "off", "imgsz": max(mosaic.size_hw), "conf": low}
        whole = rows_of(model.predict(scene, **full)[0])
        for halo in args.halos:
            rows = rows_of(model.predict(scene, **{**keys, "overlap": 2 * halo, "conf": low})[0])
            sure, seen = whole[whole[:, 4] >= args.conf], rows[rows[:, 4] >= args.conf]
            same = [matched(sure, rows), matched(sure, rows, score=1.0), ~matched(seen, whole)]
            shared[halo] = [np.append(one, more) for one, more in zip(shared[halo], same, strict=True)]
        rows = rows_of(model.predict(scene, **keys)[0])
        errors = judged(truth, whole, args.conf)
        near.append(distance(errors.truth.boxes[errors.truth.labels >= 0], *cuts(mosaic.size_hw, keys)) <= NEAR)
        whole_found.append(right_of(errors)[0])
        tiled_found.append(right_of(judged(truth, rows, args.conf))[0])
    lines = [f"{halo} | {' | '.join(f'{one.mean():.2%}' for one in same)}" for halo, same in shared.items()]
    count = len(shared[args.halos[0]][0])
    head = (
        f"halo px ({count:,} detections of whole scenes)",
        "matched",
        "at any score",
        "of those in windows not matched",
    )
    what = f"{args.scenes} scenes; the last: {said(args, mosaic, truth)}"
    table(f"Seams at IoU {SAME_IOU}, score within {SAME_SCORE}. {what}", head, lines)
    at, before, after = map(np.concatenate, (near, whole_found, tiled_found))
    lines = [
        f"windows | {line(at, after)}",
        f"one forward over the whole scene | {line(at, before)}",
        f"windows minus whole, object by object | {line(at, after.astype(int) - before)}",
    ]
    head = (
        "recall",
        f"within {NEAR} px of a cut ({at.sum():,})",
        f"elsewhere ({(~at).sum():,})",
        "points more near a cut",
    )
    table(f"Seam bias. {what}", head, lines)


def line(near: np.ndarray, values: np.ndarray) -> str:
    """Means near a cut and elsewhere, their difference in points and its standard error, as cells."""
    one, other = values[near], values[~near]
    error = (one.var() / max(1, len(one)) + other.var() / max(1, len(other))) ** 0.5
    return f"{one.mean():.4f} | {other.mean():.4f} | {100 * (one.mean() - other.mean()):+.2f} ± {100 * error:.2f}"


def memory(args: argparse.Namespace, folder: Path) -> None:
    """The command on GeoTIFFs of several sizes, with pictures and a map."""
    rows, first = [], None
    for side in args.sides:
        mosaic = mosaic_of(args, side)
        scene = mosaic.write(folder / f"scene-{side}", args.layout)
        shutil.rmtree(folder / f"run-{side}", ignore_errors=True)  # of an earlier measurement
        keys = {key: value for key, value in keys_of(args).items() if key != "verbose"} | {"save_geojson": "true"}
        keys |= {"model": args.model, "source": scene, "project": folder, "name": f"run-{side}", "exist_ok": "true"}
        took = apart({"slicer": "command", "words": ["predict", *(f"{key}={value}" for key, value in keys.items())]})
        first = first or took["peak"]
        boxes = sum(len(json.loads(file.read_text())["features"]) for file in folder.glob(f"run-{side}/*.geojson"))
        height, width = mosaic.size_hw
        more, size = took["peak"] - first, scene.stat().st_size / 2**20
        shown = f"{boxes:,} | {took['cpu']:.0f} | {took['wall']:.0f} | {took['peak']:.0f} | {more:+.0f}"
        rows.append(f"{width} x {height} | {size:.0f} | {shown}")
    head = ("px", "file MB", "boxes", "CPU s", "wall s", "peak MB", "more than the first")
    table(f"Memory of `tinyyolo predict`, {args.layout}, {keys_of(args)}", head, rows)


def unite(args: argparse.Namespace, folder: Path) -> None:
    """Joining the bands of a scene of so many drawn objects, each found by a dozen candidates: CPU time."""
    import torch

    from tinyyolo.detectors.postprocess import Postprocess
    from tinyyolo.engine.predict.scenes import united
    from tinyyolo.scenes.bands import Bands
    from tinyyolo.scenes.sweep import Found

    rules, lines = Postprocess(args.conf, votes=4), []
    for count in args.objects:
        rng = np.random.default_rng(0)
        side = int(ROOM * count**0.5)
        middle = np.repeat(rng.uniform(0, side, (count, 2)), CANDIDATES, 0)
        middle += rng.normal(0, 0.5, middle.shape)
        boxes = np.hstack([middle - 4, middle + 4]) + rng.normal(0, 0.25, (len(middle), 4))
        rows = torch.from_numpy(np.c_[boxes, rng.uniform(0.001, 1, len(boxes))]).float()
        bands, band = Bands(folder / f"bands-{count}"), rows[:, 1].clamp(0, side - 1).div(640).long()
        for i in range(int(band.max()) + 1):
            mine = rows[band == i]
            bands.put(i, Found(mine[:, :4], mine[:, 4], torch.zeros(len(mine), dtype=torch.int64)))
        took = []
        for _ in range(args.rounds):
            start = time.process_time()
            found, _ = united(rules, bands, int(band.max()) + 1, None)
            took.append(time.process_time() - start)
        lines.append(f"{count:,} | {len(rows):,} | {len(found.scores):,} | {min(took):.2f}")
    head = ("objects", "candidates", "detections", "CPU s")
    table(f"Joining a scene's bands, conf {args.conf}, 1 thread, the quickest of {args.rounds}", head, lines)


def mosaic(args: argparse.Namespace, folder: Path) -> None:
    """Write PNG, GeoTIFF and truth."""
    made = mosaic_of(args, args.side)
    for layout in dict.fromkeys(("png", args.layout)):
        scene = made.write(folder / "scene", layout)
        truth = made.truth(scene.name)
        scene.with_suffix(f"{scene.suffix}.json").write_text(json.dumps(truth))
        print(f"{scene}: {said(args, made, truth)}")


PARTS = {"mosaic": mosaic, "recall": recall, "peers": peers, "seams": seams, "memory": memory, "unite": unite}


def main(words: Sequence[str] | None = None) -> None:
    """Run one part, or all that measure."""
    words = list(sys.argv[1:] if words is None else words)
    if words[:1] == ["work"]:
        print(json.dumps(work(json.loads(words[1]))))
        return
    after = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "all"])
    parser.add_argument("model", type=Path, help="a checkpoint; - for mosaic and unite")
    parser.add_argument("annotations", type=Path, help="COCO JSON")
    parser.add_argument("images", type=Path)
    parser.add_argument("--side", type=int, default=6000, help="px that a scene has at least")
    parser.add_argument("--sides", type=int, nargs="+", default=[3000, 6000], help="of `memory`")
    parser.add_argument("--whole", type=int, default=1920, help="px, of scenes that `seams` looks at in one forward")
    parser.add_argument("--scenes", type=int, default=2, help="of `seams`")
    parser.add_argument("--halos", type=int, nargs="+", default=list(HALOS), help="px, of `seams`")
    parser.add_argument("--rounds", type=int, default=1, help="of `peers` and `unite`")
    parser.add_argument("--objects", type=int, nargs="+", default=[10_000, 100_000], help="of `unite`")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--conf", type=float, default=0.25)
    parser.add_argument("--ignore", nargs="*", default=[])
    parser.add_argument("--layout", choices=SUFFIXES, default="tiled", help="GeoTIFF in tiles or strips, or PNG")
    parser.add_argument("--out", type=Path, help="keep the files here")
    args = parser.parse_args(words[:after])
    pairs = dict(word.split("=", 1) for word in words[after + 1 :])
    args.keys = {key: yaml.safe_load(value) for key, value in pairs.items()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for part in [name for name in PARTS if name != "mosaic"] if args.part == "all" else [args.part]:
            PARTS[part](args, folder)


if __name__ == "__main__":
    main()
