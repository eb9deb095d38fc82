"""What very many scenes cost, and what several processes for them cost: figures of docs/scale.md.

    python benchmarks/scale.py plan --scenes 1000000 --side 10000 --rate 60      # windows, bytes, seconds of a GPU
    python benchmarks/scale.py simulate --scenes 1000000 --workers 100 --seed 0  # shards, slow machines, failures
    python benchmarks/scale.py evaluate --images 20000 --files 40 --seed 0       # peak memory of many files, and of one
    python benchmarks/scale.py ray --scenes 20 --side 4000 --actors 2            # Ray beside as many shards: wall, CPU

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
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false")

import numpy as np

DAY, HOUR, MEGA, TERA = 86_400, 3600, 1e6, 1e12
SHARDS = (1, 4, 16, 64)  # of `simulate`, for each worker
LOOK = 0.2  # s between two looks at the processes of a prediction
NO_WORDS = "ended"  # a process that was never seen alive


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


class Cost(NamedTuple):
    """Seconds of a clock, and of all CPUs, by kind of process."""

    wall: float
    cpu: dict[str, float]


def kind_of(words: Sequence[str]) -> str:
    """What a process of a prediction is, by its command line; "" for one that has none any more."""
    line = " ".join(words)
    names = {"ray::MapWorker": "actors", "ray::": "small actors", "gcs_server": "node", "raylet": "node"}
    names |= {"/ray/": "node"}
    return next((kind for mark, kind in names.items() if mark in line), "tinyyolo" if line else "")


def cost_of(commands: Sequence[Sequence[str]]) -> Cost:
    """Run commands side by side, to the end of every process that they start; looked at every LOOK seconds.

    Raises:
        subprocess.CalledProcessError: one of them failed.
    """
    import psutil

    start, seen = time.perf_counter(), dict[int, tuple[str, float]]()
    started = [psutil.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for words in commands]
    family: dict[int, Any] = {}
    wall = 0.0
    while True:
        running = [one for one in started if one.poll() is None]
        wall = wall if not running and wall else time.perf_counter() - start
        for one in running:
            family |= {child.pid: child for child in [psutil.Process(one.pid), *one.children(recursive=True)]}
        for pid, process in [*family.items()]:
            try:
                times = process.cpu_times()
                seen[pid] = kind_of(process.cmdline()) or seen.get(pid, (NO_WORDS, 0))[0], times.user + times.system
                if process.status() == psutil.STATUS_ZOMBIE:
                    del family[pid]
            except psutil.NoSuchProcess:
                del family[pid]
        if not running and not family:
            break
        time.sleep(LOOK)
    for one, words in zip(started, commands, strict=True):
        if one.returncode:
            raise subprocess.CalledProcessError(one.returncode, words, stderr=one.stderr.read())
    total: dict[str, float] = {}
    for kind, seconds in seen.values():
        total[kind] = total.get(kind, 0) + seconds
    return Cost(wall, total)


def by_ray(given: argparse.Namespace) -> None:
    """Seconds of one process, of a process for each actor by shards, and of Ray's actors, over drawn scenes, in turns.

    All by the command line, from its start to the end of the last process; the median of several rounds.
    """
    import cv2

    rng = np.random.default_rng(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        for i in range(given.scenes):
            small = rng.integers(0, 255, (given.side // 8, given.side // 8, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / "in" / f"{i}.png"), cv2.resize(small, (given.side, given.side)))
        keys = [f"model={given.model}", "source=in", "imgsz=640", "conf=0.25", "save=false", "save_json=true"]
        predict = [sys.executable, "-m", "tinyyolo", "predict", *keys, "exist_ok=true"]
        count = given.actors
        shards = [[*predict, "name=shards", f"shard={i + 1}/{count}"] for i in range(count)]
        ways = {"one process": ([[*predict, "name=one"]], "one")}
        ways[f"{count} shards"] = shards, "shards"
        ways[f"{count} actors"] = [[*predict, "name=ray", "engine=ray", f"actors={count}"]], "ray"
        merge = [sys.executable, "-m", "tinyyolo", "merge", "runs/shards.shards", "exist_ok=true"]
        os.chdir(folder)
        found: dict[str, list[Cost]] = {}
        files = set()
        for _ in range(given.rounds):
            for what, (commands, run) in ways.items():
                shutil.rmtree("runs", ignore_errors=True)
                found.setdefault(what, []).append(cost_of(commands))
                if run == "shards":
                    found.setdefault("merge", []).append(cost_of([merge]))
                files.add(Path("runs", run, "predictions.json").read_bytes())
        show_costs(found, f"{count} shards")
        print(f"the same bytes: {len(files) == 1}")


def show_costs(found: Mapping[str, Sequence[Cost]], beside: str) -> None:
    """The median round of each way, by wall time and CPU time, and how far it is over one of them."""
    wall, cpu = (
        {what: statistics.median(column(c) for c in costs) for what, costs in found.items()}
        for column in (lambda c: c.wall, lambda c: sum(c.cpu.values()))
    )
    for what, costs in found.items():
        parts = ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in costs[-1].cpu.items())
        over = f"{wall[what] / wall[beside] - 1:+.1%} and {cpu[what] / cpu[beside] - 1:+.1%} beside {beside}"
        print(f"{what}: {wall[what]:.1f} s, {cpu[what]:.1f} CPU s, {over}; the last round's {parts}")


def main(words: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    plan, sim, ev, ray = (parts.add_parser(name) for name in ("plan", "simulate", "evaluate", "ray"))
    options = {
        plan: {"scenes": 1_000_000, "side": 10_000, "tile": 640, "overlap": 96, "rate": 60.0, "packed": 0.5},
        sim: {"scenes": 1_000_000, "workers": 100, "seconds": 6.0, "spread": 0.5, "slow": 0.02, "factor": 3.0},
        ev: {"images": 20_000, "files": 40, "objects": 10, "chance": 200, "seed": 0},
        ray: {"scenes": 6, "side": 4000, "actors": 2, "rounds": 3, "seed": 0, "model": "tinyyolo-n.pt"},
    }
    options[plan] |= {"boxes": 200, "row": 30.0}
    options[sim] |= {"hours": 200.0, "replace": 300.0, "seed": 0}
    for own, defaults in options.items():
        for name, value in defaults.items():
            own.add_argument(f"--{name}", type=type(value), default=value)
    given = parser.parse_args(words)
    {"plan": planned, "simulate": simulated, "evaluate": evaluated, "ray": by_ray}[given.part](given)


if __name__ == "__main__":
    main()
