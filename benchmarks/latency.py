"""Parameters, GFLOPs and CPU latency of the anchor YOLO beside stock ultralytics models, in one run.

    python benchmarks/latency.py                                           # nano size, 640 px, batch 1, one thread
    python benchmarks/latency.py --models tinyyolo-s yolov8s-p2 --threads 2 --size 320

Forward passes of fused models in evaluation, on channels-last maps, which both libraries use on x86; NMS is not in it.
The models take turns, so that a busy moment meets all of them; the figures are each model's best and median round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false")

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from ultralytics.nn.tasks import DetectionModel

from tinyyolo.config import load_model_yaml
from tinyyolo.detectors.build import build_model

CLASSES = 4
MODELS = ("tinyyolo-n", "yolov8n-p2", "yolo26n-p2")


def build(name: str) -> nn.Module:
    """A fused model in eval mode, with random weights."""
    torch.manual_seed(0)
    stock = name.startswith(("yolov", "yolo1", "yolo2"))
    model = (
        DetectionModel(f"{name}.yaml", nc=CLASSES, verbose=False)
        if stock
        else build_model(load_model_yaml(name), CLASSES)
    )
    return model.eval().fuse(verbose=False).to(memory_format=torch.channels_last)


def main() -> None:
    """Print a table; ratios are to the first stock model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    image = torch.rand(1, 3, args.size, args.size).contiguous(memory_format=torch.channels_last)
    models = {name: build(name) for name in args.models}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for turn in range(args.rounds + 2):
            for name, model in models.items():
                start = time.perf_counter()
                model(image)
                if turn >= 2:  # the first rounds warm up
                    seconds[name].append(time.perf_counter() - start)
        flops = {}
        for name, model in models.items():
            with FlopCounterMode(display=False) as counter:
                model(image)
            flops[name] = counter.get_total_flops() / 1e9
    rival = next((name for name in models if name.startswith("yolov")), next(iter(models)))
    print(f"{args.size} px, batch 1, {args.threads} thread(s), {args.rounds} rounds, torch {torch.__version__}")
    print(f"| model | parameters | GFLOPs | best ms | median ms | best to {rival} | median to {rival} |")
    print("|---|---|---|---|---|---|---|")
    for name, model in models.items():
        best, middle = min(seconds[name]), statistics.median(seconds[name])
        count = sum(p.numel() for p in model.parameters()) / 1e6
        ratios = [best / min(seconds[rival]), middle / statistics.median(seconds[rival])]
        figures = f"{1e3 * best:.0f} | {1e3 * middle:.0f} | {ratios[0]:.2f} | {ratios[1]:.2f}"
        print(f"| {name} | {count:.2f} M | {flops[name]:.1f} | {figures} |")


if __name__ == "__main__":
    main()
