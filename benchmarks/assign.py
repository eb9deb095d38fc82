"""Seconds and memory of NWD-RKA (k = 2) and RFLA (k = 3, 1) against objects and image side, on one thread.

    python benchmarks/assign.py                     # some minutes; the whole table
    python benchmarks/assign.py --sides 800 --objects 100 500 2000 --json assign.json

Four ways in one run: `plain`, the dense float32 NWD-RKA as one writes it first (whole matrix, loop over objects);
`dense`, this project's path for any boxes (the matrix in portions); `grid`, the lattice; `rfla`, RFLA on the lattice.
All on the published anchors of each, strides 4 to 64, three a cell. Each case runs in a process of its own: the best of
several runs in seconds of that thread, which other work on the machine hardly changes, and the highest memory above the
start without the result. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tinyyolo.assigners import IGNORE, NEGATIVE, HierarchicalAssigner, RankingAssigner
from tinyyolo.boxes.anchors import AnchorGrid

OBJECTS = (27, 100, 500, 1000, 2000, 5000)
SIDES = (800, 1600, 3200)
SIZE = (12.7, 5.6)  # mean and deviation of an object's side, px: AI-TOD-v2
LIMITS = {
    "plain": 1e8,
    "dense": 2e8,
    "grid": float("inf"),
    "rfla": float("inf"),
}  # pairs of object and anchor; more is left out
SECONDS, RUNS = 1.0, 15  # a figure is the best of this many runs, or of as many as this time allows
MEGABYTE = 1e6
TARGETS = (
    "grid against plain: 100x at 100 and 500 objects; grid: 50 ms at 2000, 40 MB at any count; rfla: 3x grid, 40 MB"
)


def draw_objects(count: int, side: int) -> torch.Tensor:
    """(count, 4) whole-number boxes as in AI-TOD."""
    generator = torch.Generator().manual_seed(count)
    centre = torch.rand(count, 2, generator=generator) * side
    wh = (SIZE[0] + SIZE[1] * torch.randn(count, 2, generator=generator)).clamp(min=2)
    return torch.cat((centre - wh / 2, centre + wh / 2), 1).round()


def plain(anchors: torch.Tensor, objects: torch.Tensor, k: int = 2, constant: float = 12.7) -> torch.Tensor:
    """The obvious way: all similarities at once, then object by object."""
    centre, wh = (objects[:, None, :2] + objects[:, None, 2:]) / 2, objects[:, None, 2:] - objects[:, None, :2] + 1e-6
    others, others_wh = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2] + 1e-6
    square = (centre - others).square().sum(-1) + 1e-6 + (wh - others_wh).square().sum(-1) / 4
    similarity = torch.exp(-square.sqrt() / constant)
    gt_index = torch.full((len(anchors),), IGNORE)
    gt_index[similarity.amax(0) < 0.3] = NEGATIVE
    best = similarity.topk(k, dim=1).values
    for i in range(len(objects)):
        for j in range(k):
            gt_index[similarity[i] == best[i, j]] = i
    return gt_index


def work(method: str, count: int, side: int) -> Callable[[], torch.Tensor]:
    """What is timed; the anchors of the dense ways exist beforehand, as in a trainer that keeps them."""
    grid = AnchorGrid(strides=(4, 8, 16, 32, 64), scales=(8,), ratios=(0.5, 1, 2))
    objects = draw_objects(count, side)
    if method == "grid":
        return lambda: RankingAssigner().on_grid(grid, (side, side), objects).gt_index
    if method == "rfla":
        priors = AnchorGrid(strides=(4, 8, 16, 32, 64), fields=(35, 91, 267, 427, 555), ratios=(0.5, 1, 2))
        return lambda: HierarchicalAssigner().on_grid(priors, (side, side), objects).gt_index
    anchors = grid.boxes((side, side))
    if method == "dense":
        return lambda: RankingAssigner()(anchors, objects).gt_index
    return lambda: plain(anchors, objects)


def memory(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM highest since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def measure(method: str, count: int, side: int, pipe: multiprocessing.connection.Connection) -> None:
    """Send (seconds, bytes) of one case; runs in a process of its own."""
    torch.set_num_threads(1)
    work(method, 1, 64)()  # what torch loads on first use is no cost of the assigner
    call = work(method, count, side)
    gc.collect()
    start = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts over
    seconds = []
    while len(seconds) < RUNS and sum(seconds) < SECONDS:
        begin = time.process_time()
        result = call()
        seconds.append(time.process_time() - begin)
        if len(seconds) == 1:
            extra = memory("VmHWM") - start - result.numel() * result.element_size()
    pipe.send((min(seconds), max(extra, 0)))


def run(method: str, count: int, side: int) -> dict[str, float]:
    """One figure of the table."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(method, count, side, theirs))
    process.start()
    theirs.close()
    seconds, extra = ours.recv()
    process.join()
    return {"method": method, "objects": count, "side": side, "seconds": seconds, "megabytes": extra / MEGABYTE}


def line(side: int, count: int, found: dict[str, dict[str, float]]) -> str:
    """A line of the table."""
    text = f"{side:>5} {count:>8}"
    for method in LIMITS:
        row = found.get(method)
        text += f"{row['seconds'] * 1e3:12.1f}{row['megabytes']:11.1f}" if row else f"{'-':>12}{'-':>11}"
    grid = found["grid"]["seconds"]
    ratios = [
        f"{found['plain']['seconds'] / grid:.0f}x" if "plain" in found else "-",
        f"{found['rfla']['seconds'] / grid:.2f}x",
    ]
    return text + "".join(f"{ratio:>12}" for ratio in ratios)


def main() -> None:
    """Parse the arguments, measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=OBJECTS)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--json", type=Path, help="also save the figures here")
    arguments = parser.parse_args()
    grid = AnchorGrid(strides=(4, 8, 16, 32, 64), scales=(8,), ratios=(0.5, 1, 2))
    print(
        f"{'side':>5} {'objects':>8}"
        + "".join(f"{m + ' ms':>12}{m + ' MB':>11}" for m in LIMITS)
        + f"{'plain/grid':>12}{'rfla/grid':>12}"
    )
    rows = []
    for side in arguments.sides:
        anchors = sum(grid.level_sizes((side, side)))
        for count in arguments.objects:
            found = {m: run(m, count, side) for m, limit in LIMITS.items() if count * anchors <= limit}
            print(line(side, count, found), flush=True)
            rows += found.values()
    print(TARGETS)
    if arguments.json:
        arguments.json.write_text(json.dumps({"torch": torch.__version__, "threads": 1, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
