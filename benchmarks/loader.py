"""Training images a CPU-second: stock ultralytics, ours without and with pasted copies, and the drawn school.

    OMP_NUM_THREADS=1 python benchmarks/loader.py --data my.yaml --imgsz 320 > loader.md

Each of them is a process of its own that makes images as one thread of a training does, augmented, up to the tensor.
They take turns, so that what else the machine does meets all of them alike; seconds are CPU seconds, the ratio to stock
is the median over the rounds, and "begin" is what comes before the first image: looking at the files, cutting out what
is copied. The first pass over the images is told apart. Stock ultralytics has its own defaults and a YOLO txt
conversion of the data, and never meets tinyyolo, which changes how it reads images. Exit code 1 where images with
copies are slower to make than BOUND.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

BATCH = 8  # what mosaic's buffer holds is counted in batches
BOUND = 240 / 246  # of stock's images a second, in passes after the first
SCHOOL = 0.1  # share of the images that the school draws: each takes ten times as long
Make = Callable[[int], Any]  # sample i, whatever i is


def stock(data: str, imgsz: int) -> tuple[Make, int]:
    """Ultralytics' own dataset with its own defaults, of a YOLO txt conversion."""
    import yaml
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    found = check_det_dataset(data)
    with open(data, encoding="utf-8") as stream:
        found["names"] = yaml.safe_load(stream)["names"]
    dataset = build_yolo_dataset(get_cfg(overrides={"imgsz": imgsz}), found["train"], BATCH, found)
    return dataset.__getitem__, len(dataset)


def ours(data: str, imgsz: int, **keys: Any) -> tuple[Make, int]:
    """The training split under the keys of a `tinyyolo-n`."""
    from types import SimpleNamespace

    from tinyyolo.config import load_model_yaml
    from tinyyolo.datasets.spec import load
    from tinyyolo.engine.arguments import resolve
    from tinyyolo.engine.prepare import data_dict, split_dataset

    own = load_model_yaml("tinyyolo-n.yaml")["train"]
    args = SimpleNamespace(**resolve("train", {}, {**own, "imgsz": imgsz, **keys}))
    dataset = split_dataset(data_dict(load(data)), "train", args, "train", BATCH)
    return dataset.__getitem__, len(dataset)


CONTESTANTS: dict[str, tuple[Callable[..., tuple[Make, int]], dict[str, Any]]] = {
    "stock ultralytics": (stock, {}),
    "tinyyolo, no copies": (ours, {"paste": 0}),
    "tinyyolo, up to 12 copies": (ours, {}),
    "the school": (ours, {"data": "school.yaml", "mosaic": 0.0, "paste": 0}),
}
COPIES = "tinyyolo, up to 12 copies"


def serve(name: str, data: str, imgsz: int, pipe: Any) -> None:
    """Make as many images as are asked for, in the order of shuffled passes; tells the CPU seconds each time."""
    import random

    import cv2
    import numpy as np
    import torch

    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the contestants print is not the table
    cv2.setNumThreads(0)  # as ultralytics has it
    torch.set_num_threads(1)
    build, keys = CONTESTANTS[name]
    build(**{"data": data, "imgsz": imgsz, **keys})  # imports, files of the first look
    started = time.process_time()
    make, count = build(**{"data": data, "imgsz": imgsz, **keys})
    began = time.process_time() - started
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - ultralytics' augmentation draws from the global state
    torch.manual_seed(0)
    rng, order = np.random.default_rng(0), list[int]()
    pipe.send((count, began))
    while wanted := pipe.recv():
        while len(order) < wanted:
            order += rng.permutation(count).tolist()
        now, order = order[:wanted], order[wanted:]
        started = time.process_time()
        for i in now:
            make(i)
        pipe.send(time.process_time() - started)


def measure(data: str, imgsz: int, a_round: int, passes: int) -> tuple[dict[str, float], dict[str, list[float]], int]:
    """CPU seconds to begin, and an image of each contestant round by round; how many rounds are the first pass."""
    context, pipes, processes = multiprocessing.get_context("spawn"), {}, []
    counts, begins = dict[str, int](), dict[str, float]()
    with tempfile.TemporaryDirectory() as place:
        convert = [sys.executable, "-m", "tinyyolo.cli", "data", "convert", data, "to=yolo", f"out={place}/set"]
        subprocess.run(convert, check=True, stdout=sys.stderr)
        for name, (build, _) in CONTESTANTS.items():
            pipes[name], other = context.Pipe()
            where = f"{place}/set/data.yaml" if build is stock else data
            process = context.Process(target=serve, args=(name, where, imgsz, other), daemon=True)
            process.start()
            other.close()
            counts[name], begins[name] = pipes[name].recv()
            processes.append(process)
        first = math.ceil(counts[COPIES] / a_round)
        seconds: dict[str, list[float]] = {name: [] for name in pipes}
        for _ in range(first * passes):
            for name, pipe in pipes.items():
                wanted = a_round if "data" not in CONTESTANTS[name][1] else max(1, round(SCHOOL * a_round))
                pipe.send(wanted)
                seconds[name].append(pipe.recv() / wanted)
        for pipe in pipes.values():
            pipe.send(0)
        for process in processes:
            process.join()
    return begins, seconds, first


def table(begins: dict[str, float], seconds: dict[str, list[float]], first: int) -> tuple[str, float]:
    """The figures as Markdown, and the ratio of images with copies to stock's after the first pass."""
    reference = next(iter(seconds))
    rows = [
        "| | begin, CPU-s | first pass: ms an image | images a CPU-second | to stock | later: ms an image "
        "| images a CPU-second | to stock |",
        "|---|---|---|---|---|---|---|---|",
    ]
    last = 0.0
    for name, every in seconds.items():
        cells = [f"{begins[name]:.2f}"]
        for part in (slice(first), slice(first, None)):
            mean = statistics.mean(every[part])
            ratio = statistics.median(a / b for a, b in zip(seconds[reference][part], every[part], strict=True))
            cells += [f"{1000 * mean:.2f}", f"{1 / mean:.0f}", f"{ratio:.2f}"]
            last = ratio if name == COPIES else last
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows), last


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a data YAML")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--round", type=int, default=100, help="images at a turn")
    parser.add_argument("--passes", type=int, default=3, help="over the images, two or more")
    words = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    text, ratio = table(*measure(words.data, words.imgsz, words.round, words.passes))
    print(text)
    return 0 if ratio >= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
