"""What very many scenes cost, and what several processes for them cost: figures of docs/scale.md.

    python benchmarks/scale.py plan --scenes 1000000 --side 10000 --rate 60      # windows, bytes, seconds of a GPU
    python benchmarks/scale.py simulate --scenes 1000000 --workers 100 --seed 0  # shards, slow machines, failures
    python benchmarks/scale.py evaluate --images 20000 --files 40 --seed 0       # peak memory of many files, and of one
    python benchmarks/scale.py ray --scenes 6 --side 4000 --actors 1 2           # Ray beside one process, wall time

`simulate` takes all else from its options: seconds a scene (by a lognormal law), how many workers are slow and by how
much, mean hours between failures of a worker, seconds until its successor works. A shard that fails goes on where it
was (`--resume`), or starts anew. `plan` counts windows by the package's own rule.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false")

import numpy as np

DAY, HOUR, MEGA, TERA = 86_400, 3600, 1e6, 1e12
SHARDS = (1, 4, 16, 64)  # of `simulate`, for each worker


class Failures(NamedTuple):
    """Workers: the share that is slow and by which factor, hours between failures of one, seconds to replace it."""

    slow: float = 0.02
    factor: float = 3.0
    hours: float = 200.0
    replace: float = 300.0
    resume: bool = True


class Outcome(NamedTuple):
    """Seconds until all is done, seconds of all workers that were spent on work done twice, failures."""

    makespan: float
    twice: float
    failed: int


def simulate(work: Sequence[float], workers: int, ways: Failures, rng: np.random.Generator, scene: float) -> Outcome:
    """Workers take shards from a queue until none is left; one that fails puts the rest of its shard at the end.

    Args:
        work: seconds that each shard takes on a common machine.
        workers: how many.
        ways: how they fail.
        rng: by chance.
        scene: seconds that are lost of a shard that goes on where it was: half a scene, on average.
    """
    speed = np.where(rng.random(workers) < ways.slow, ways.factor, 1.0)
    free = [(0.0, worker) for worker in range(workers)]
    queue = [(0.0, i, float(seconds)) for i, seconds in enumerate(work)]  # when it can begin, its number, what is left
    heapq.heapify(queue)
    end = twice = 0.0
    failed = 0
    while queue:
        begin, number, left = heapq.heappop(queue)
        now, worker = heapq.heappop(free)
        now = max(now, begin)
        takes, until = left * speed[worker], rng.exponential(ways.hours * HOUR)
        if until >= takes:
            end = max(end, now + takes)
            heapq.heappush(free, (now + takes, worker))
            continue
        failed += 1
        lost = min(until, scene * speed[worker]) if ways.resume else until
        twice += lost
        heapq.heappush(queue, (now + until, number, left - (until - lost) / speed[worker]))
        heapq.heappush(free, (now + until + ways.replace, worker))
    return Outcome(end, twice, failed)


def shard_work(scenes: int, shards: int, mean: float, spread: float, rng: np.random.Generator) -> np.ndarray:
    """Seconds of each shard: sums of lognormal times of its scenes, by a gamma law of their mean and variance."""
    each = np.full(shards, scenes // shards) + (np.arange(shards) < scenes % shards)
    variance = mean**2 * (math.exp(spread**2) - 1)
    return rng.gamma(each * mean**2 / variance, variance / mean)


def simulated(given: argparse.Namespace) -> None:
    """A table over numbers of shards."""
    mean = given.seconds
    ideal = given.scenes * mean / given.workers
    print(f"{given.scenes:,} scenes of {mean:g} s, {given.workers} workers: {ideal / HOUR:.1f} h if nothing went wrong")
    print("shards a worker | goes on: hours, over the ideal | work done twice | anew: hours, over the ideal | twice")
    for per_worker in SHARDS:
        cells = []
        for resume in (True, False):
            rng = np.random.default_rng(given.seed)
            work = shard_work(given.scenes, per_worker * given.workers, mean, given.spread, rng)
            ways = Failures(given.slow, given.factor, given.hours, given.replace, resume)
            out = simulate(work, given.workers, ways, rng, mean / 2)
            share = out.twice / (given.scenes * mean)
            cells += [f"{out.makespan / HOUR:.1f} h, {out.makespan / ideal - 1:+.0%}", f"{share:.2%}"]
        print(f"{per_worker:>15} | {' | '.join(cells)}")


def planned(given: argparse.Namespace) -> None:
    """What one scene and all scenes are."""
    from tinyyolo.scenes.tiling import Tiling

    tiling = Tiling(given.tile, given.tile, False, given.overlap, 1.0, 32)
    windows = tiling.windows((given.side, given.side))
    seen = sum(math.prod(window.size_hw) for window in windows)
    raw = 3 * given.side**2
    print(f"a scene: {len(windows)} windows in {len({w.y for w in windows})} rows, {raw / MEGA:.0f} MB of pixels;")
    print(f"  windows overlap: {seen / given.side**2 - 1:.0%} of the pixels are looked at twice")
    print(f"  {given.boxes} boxes: {given.boxes * given.row / 1e3:.0f} kB of a shard")
    seconds = len(windows) / given.rate
    print(f"  {seconds:.1f} s at {given.rate:g} windows a second")
    print(f"{given.scenes:,} scenes: {given.scenes * len(windows):,} windows")
    print(f"  read {given.scenes * raw * given.packed / TERA:.0f} TB ({given.packed:g} of the pixels' bytes)")
    print(f"  written {given.scenes * given.boxes * given.row / TERA:.3f} TB")
    print(f"  {given.scenes * seconds / DAY:,.0f} days of one such device")
    print(f"  each must be fed with {raw * given.packed / seconds / MEGA:.0f} MB/s")


def drawn_detections(folder: Path, images: int, files: int, objects: int, chance: int, seed: int) -> None:
    """Objects, a hit each and boxes of chance: one JSON with all detections and the same in several files."""
    rng = np.random.default_rng(seed)
    names = [{"id": i, "name": f"class {i}"} for i in range(1, 4)]
    truth = {"images": [{"id": i, "file_name": f"{i}.png"} for i in range(1, images + 1)], "categories": names}
    annotations = []
    (folder / "many").mkdir()
    with (folder / "one.json").open("w") as one:
        for k in range(files):
            rows = []
            for image in range(1 + k, images + 1, files):
                boxes = np.concatenate([rng.uniform(0, 2000, (objects, 2)), rng.uniform(3, 20, (objects, 2))], 1)
                labels = rng.integers(1, 4, objects).tolist()
                for box, label in zip(boxes.round(1).tolist(), labels, strict=True):
                    number = len(annotations) + 1
                    annotations.append({"id": number, "image_id": image, "category_id": label, "bbox": box})
                    annotations[-1] |= {"area": box[2] * box[3], "iscrowd": 0}
                near = (boxes + rng.normal(0, 0.5, boxes.shape)).clip(1)
                far = np.concatenate([rng.uniform(0, 2000, (chance, 2)), rng.uniform(3, 20, (chance, 2))], 1)
                every = np.concatenate([near, far]).round(3).tolist()
                scores = rng.random(len(every)).round(5).tolist()
                labels += rng.integers(1, 4, chance).tolist()
                for box, score, label in zip(every, scores, labels, strict=True):
                    rows.append(json.dumps({"image_id": image, "category_id": label, "bbox": box, "score": score}))
            (folder / "many" / f"{k:04}.json").write_text("[\n" + ",\n".join(rows) + "\n]\n")
            one.write(("[" if k == 0 else ",") + "\n" + ",\n".join(rows))
        one.write("\n]\n")
    (folder / "gt.json").write_text(json.dumps(truth | {"annotations": annotations}))


def peak(words: Sequence[str]) -> tuple[float, float]:
    """Peak memory in MB and CPU seconds of a command."""
    script = f"import sys; from tinyyolo.cli import main; sys.exit(main({list(words)!r}))"
    code = f"import resource, subprocess, sys; subprocess.run([sys.executable, '-c', {script!r}], check=True, stdout=2)"
    code += "; u = resource.getrusage(resource.RUSAGE_CHILDREN); print(u.ru_maxrss / 1e3, u.ru_utime + u.ru_stime)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return float(out[-2]), float(out[-1])


def evaluated(given: argparse.Namespace) -> None:
    """Peak memory and time of `tinyyolo evaluate` on one file and on many, and whether the figures are the same."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn_detections(folder, given.images, given.files, given.objects, given.chance, given.seed)
        count = given.images * (given.objects + given.chance)
        print(f"{count:,} detections, {(folder / 'one.json').stat().st_size / MEGA:.0f} MB in one file")
        for dt in ("one.json", "many"):
            out = folder / f"out-{dt}"
            megabytes, seconds = peak(["evaluate", f"gt={folder / 'gt.json'}", f"dt={folder / dt}", f"out={out}"])
            print(f"{dt:>9}: {megabytes:,.0f} MB at the peak, {seconds:.1f} CPU s")
        same = len({(folder / f"out-{dt}" / "metrics.json").read_bytes() for dt in ("one.json", "many")}) == 1
        print(f"the same figures to the last digit: {same}")


def by_ray(given: argparse.Namespace) -> None:
    """Wall seconds of one process and of Ray's actors over drawn scenes, in turns, the least of several rounds."""
    import cv2
    import torch

    from tinyyolo import Model

    torch.set_num_threads(1)
    rng = np.random.default_rng(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        for i in range(given.scenes):
            small = rng.integers(0, 255, (given.side // 8, given.side // 8, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / "in" / f"{i}.png"), cv2.resize(small, (given.side, given.side)))
        os.chdir(folder)
        found: dict[str, list[float]] = {}
        files = set()
        for _ in range(given.rounds):
            for actors in (0, *given.actors):
                keys = {"imgsz": 640, "conf": 0.25, "save_json": True, "name": f"a{actors}", "exist_ok": True}
                keys |= {"engine": "ray", "actors": actors} if actors else {}
                started = time.perf_counter()
                Model(given.model).predict("in", **keys)
                what = f"{actors} actors" if actors else "one process"
                found.setdefault(what, []).append(time.perf_counter() - started)
                files.add(Path("runs", f"a{actors}", "predictions.json").read_bytes())
        alone = min(found["one process"])
        for what, seconds in found.items():
            print(
                f"{what}: {min(seconds):.1f} s, {min(seconds) / alone - 1:+.1%}; rounds {np.round(seconds, 1).tolist()}"
            )
        print(f"the same bytes: {len(files) == 1}")


def main(words: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    plan, sim, ev, ray = (parts.add_parser(name) for name in ("plan", "simulate", "evaluate", "ray"))
    options = {
        plan: {"scenes": 1_000_000, "side": 10_000, "tile": 640, "overlap": 96, "rate": 60.0, "packed": 0.5},
        sim: {"scenes": 1_000_000, "workers": 100, "seconds": 6.0, "spread": 0.5, "slow": 0.02, "factor": 3.0},
        ev: {"images": 20_000, "files": 40, "objects": 10, "chance": 200, "seed": 0},
        ray: {"scenes": 6, "side": 4000, "rounds": 2, "seed": 0, "model": "tinyyolo-n.pt"},
    }
    options[plan] |= {"boxes": 200, "row": 30.0}
    options[sim] |= {"hours": 200.0, "replace": 300.0, "seed": 0}
    for own, defaults in options.items():
        for name, value in defaults.items():
            own.add_argument(f"--{name}", type=type(value), default=value)
    ray.add_argument("--actors", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args(words)
    {"plan": planned, "simulate": simulated, "evaluate": evaluated, "ray": by_ray}[given.part](given)


if __name__ == "__main__":
    main()
