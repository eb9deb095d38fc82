"""Time and memory of evaluators on sets like AI-TOD-v2's test set, reading of the JSON files included.

    python benchmarks/evaluation.py                          # 100 and 1,000 images, every evaluator that is installed
    python benchmarks/evaluation.py --images 14018           # AI-TOD-v2's test size; pycocotools takes an hour: --all

Each evaluator runs alone in a fresh process with one thread; the figures are those of that process, imports included.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

NAMES = ("airplane", "bridge", "storage-tank", "ship", "swimming-pool", "vehicle", "person", "wind-mill")
SHARES = (855, 803, 6090, 18946, 466, 332604, 16030, 335)  # objects of AI-TOD-v2's test set (Table 1)
PER_IMAGE = 26.1  # objects, which gives 355 thousand on 14,018 images; detections are 7.5 times as many
SIZE = (12.7, 5.6)  # mean and deviation of the side, px
SLOW = ("pycocotools",)  # left out above LARGE images
LARGE = 2000
MAX_DETS = (100, 300, 1500)
AREAS = ((0, 1e10), (0, 64), (64, 256), (256, 1024), (1024, 1e10))


def draw_image(rng: np.random.Generator, image_id: int) -> tuple[list[dict], list[dict]]:
    """Objects in clusters, and for each about three detections near it and four elsewhere."""
    number = min(int(rng.lognormal(np.log(PER_IMAGE) - 0.72, 1.2)), 2000)
    side = np.clip(rng.gamma((SIZE[0] / SIZE[1]) ** 2, SIZE[1] ** 2 / SIZE[0], (number, 1)), 2, 64)
    wh = np.maximum(np.round(side * np.exp(rng.normal(0, 0.2, (number, 2)))), 2)
    centres = rng.uniform(0, 800, (max(1, number // 20), 2))
    xy = np.round(np.clip(centres[rng.integers(len(centres), size=number)] + rng.normal(0, 60, (number, 2)), 0, 790))
    main = rng.choice(len(NAMES), p=np.divide(SHARES, sum(SHARES)))
    category = np.where(rng.random(number) < 0.9, main, rng.integers(len(NAMES), size=number)) + 1
    near = np.repeat(np.arange(number), rng.integers(1, 6, number))
    far = rng.integers(max(number, 1), size=int(4.5 * number)) if number else near
    boxes = np.concatenate([xy, wh], 1)
    moved = boxes[near] + rng.normal(0, 0.15, (len(near), 4)) * np.tile(wh[near], 2)
    noise = np.concatenate([rng.uniform(0, 780, (len(far), 2)), wh[far] * rng.uniform(0.6, 1.6, (len(far), 2))], 1)
    found = np.round(np.concatenate([moved, noise]), 2)
    found[:, 2:] = np.maximum(found[:, 2:], 1)
    scores = np.round(np.concatenate([rng.beta(2, 2, len(near)), rng.beta(1, 6, len(far))]), 4)
    objects = [
        {"image_id": image_id, "category_id": int(c), "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
        for c, b in zip(category, boxes.tolist(), strict=True)
    ]
    detections = [
        {"image_id": image_id, "category_id": int(c), "bbox": b, "score": s}
        for c, b, s in zip(category[np.append(near, far)], found.tolist(), scores.tolist(), strict=True)
    ]
    return objects, detections


def write_set(images: int, folder: Path) -> tuple[Path, Path, int, int]:
    """Write both files image by image; returns their paths and the numbers of objects and detections."""
    gt_path, dt_path = folder / f"gt_{images}.json", folder / f"dt_{images}.json"
    rng = np.random.default_rng(images)
    objects = detections = 0
    with gt_path.open("w") as gt, dt_path.open("w") as dt:
        frames = [{"id": i, "file_name": f"{i:06d}.png", "width": 800, "height": 800} for i in range(1, images + 1)]
        classes = [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
        gt.write(f'{{"images": {json.dumps(frames)}, "categories": {json.dumps(classes)}, "annotations": [')
        dt.write("[")
        for frame in frames:
            own, found = draw_image(rng, frame["id"])
            own = [{"id": objects + i, **record} for i, record in enumerate(own, 1)]
            for file, records, before in ((gt, own, objects), (dt, found, detections)):
                if records:
                    file.write((", " if before else "") + json.dumps(records)[1:-1])
            objects, detections = objects + len(own), detections + len(found)
        gt.write("]}")
        dt.write("]")
    return gt_path, dt_path, objects, detections


def run_tinyyolo(gt: str, dt: str) -> float:
    from tinyyolo.evaluation import evaluate

    return evaluate(gt, dt)["AP"]


def run_coco_api(api: type, evaluator: type, gt: str, dt: str) -> float:
    truth = api(gt)
    run = evaluator(truth, truth.loadRes(dt), "bbox")
    run.params.maxDets, run.params.areaRng = list(MAX_DETS), [list(a) for a in AREAS]
    run.params.areaRngLbl = ["all", "verytiny", "tiny", "small", "medium"]
    run.evaluate()
    run.accumulate()
    precision = np.asarray(run.eval["precision"])[:, :, :, 0, -1]
    return float(precision[precision > -1].mean())


def run_pycocotools(gt: str, dt: str) -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return run_coco_api(COCO, COCOeval, gt, dt)


def run_faster_coco_eval(gt: str, dt: str) -> float:
    from faster_coco_eval import COCO, COCOeval_faster

    return run_coco_api(COCO, COCOeval_faster, gt, dt)


def run_hotcoco(gt: str, dt: str) -> float:
    from hotcoco import COCO, COCOeval

    return run_coco_api(COCO, COCOeval, gt, dt)


EVALUATORS = {
    "tinyyolo": run_tinyyolo,
    "hotcoco": run_hotcoco,
    "faster_coco_eval": run_faster_coco_eval,
    "pycocotools": run_pycocotools,
}


def measure(name: str, gt: Path, dt: Path) -> dict[str, float] | None:
    """Run one evaluator in a process of its own; None, and its last words, if it fails."""
    threads = {key: "1" for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")}
    command = [sys.executable, __file__, "--one", name, str(gt), str(dt)]
    done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True)
    if done.returncode:
        print(f"{name} failed: {(done.stderr.splitlines() or ['no message'])[-1]}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def one(name: str, gt: str, dt: str) -> None:
    """The process of one evaluator: AP and its own cost as JSON on the last line."""
    start = time.perf_counter()
    ap = EVALUATORS[name](gt, dt)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cost = {"wall": time.perf_counter() - start, "cpu": usage.ru_utime + usage.ru_stime, "mb": usage.ru_maxrss / 1024}
    print(json.dumps({"AP": ap, **cost}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--all", action="store_true", help=f"also {', '.join(SLOW)} above {LARGE} images")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(*given.one)
        return
    print(
        f"{'images':>7} {'objects':>8} {'detections':>10}  {'evaluator':<17} "
        f"{'CPU s':>8} {'wall s':>8} {'MB':>7} {'ratio':>7}  AP"
    )
    for images in given.images:
        with tempfile.TemporaryDirectory() as folder:
            gt, dt, objects, detections = write_set(images, Path(folder))
            own = 0.0
            for name in EVALUATORS:
                if importlib.util.find_spec(name) is None or (name in SLOW and images > LARGE and not given.all):
                    continue
                cost = measure(name, gt, dt)
                if cost is None:
                    continue
                own = own or cost["cpu"]
                print(
                    f"{images:7} {objects:8} {detections:10}  {name:<17} "
                    f"{cost['cpu']:8.2f} {cost['wall']:8.2f} {cost['mb']:7.0f} {cost['cpu'] / own:7.1f}  "
                    f"{cost['AP']:.12f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
