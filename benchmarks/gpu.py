"""Images a second of training and inference on a GPU, and its memory, beside stock ultralytics and torchvision.

    python benchmarks/gpu.py                                              # 800 px, batch 8, float32 and mixed precision
    python benchmarks/gpu.py --device cpu --size 128 --batch 2 --rounds 1 --models tinyyolo-n     # that the script runs

A training step is forward, loss, backward and an SGD step, of drawn pixels with --objects boxes an image; inference is
the network with its own suppression. The figures are median rounds. No machine with a GPU has run it yet.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false")

import torch
from torch import Tensor, nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.nms import non_max_suppression

from tinyyolo.config import load_model_yaml
from tinyyolo.detectors.base import targets_of
from tinyyolo.detectors.build import build_model

CLASSES, RATE = 8, 1e-4
TORCHVISION = "torchvision-faster-rcnn-r50"
MODELS = ("tinyyolo-n", "faster-rcnn-r50-nwdrka", "detectors-r50-nwdrka", "yolov8n-p2", TORCHVISION)
WARM = 2  # rounds that do not count


def batch_of(args: argparse.Namespace) -> dict[str, Tensor]:
    """A batch as the engine has it: random pixels and boxes of 4 to 20 px."""
    torch.manual_seed(0)
    count = args.batch * args.objects
    sizes = (4 + 16 * torch.rand(count, 2)) / args.size
    return {
        "img": torch.rand(args.batch, 3, args.size, args.size, device=args.device),
        "bboxes": torch.cat((sizes / 2 + torch.rand(count, 2) * (1 - sizes), sizes), 1).to(args.device),
        "cls": torch.randint(CLASSES, (count, 1), device=args.device).float(),
        "batch_idx": torch.arange(args.batch, device=args.device).repeat_interleave(args.objects).float(),
    }


def build(name: str, device: str) -> tuple[nn.Module, Callable[..., Tensor], Callable[..., Any]]:
    """A model with random weights, its loss of a batch, and its detections of images."""
    torch.manual_seed(0)
    if name == TORCHVISION:
        model: Any = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES + 1).to(device)

        def theirs(batch: dict[str, Tensor]) -> Tensor:
            targets = [{"boxes": t["boxes"], "labels": t["labels"] + 1} for t in targets_of(batch)]
            return torch.stack(list(model(list(batch["img"]), targets).values())).sum()

        return model, theirs, lambda images: model(list(images))
    if name.startswith("yolov"):
        stock: Any = DetectionModel(f"{name}.yaml", nc=CLASSES, verbose=False).to(device)
        stock.args = SimpleNamespace(**DEFAULT_CFG_DICT)
        return stock, lambda batch: stock.loss(batch)[0].sum(), lambda images: non_max_suppression(stock(images))
    own: Any = build_model(load_model_yaml(name), CLASSES).to(device)
    return own, lambda batch: own.loss(batch)[0], lambda images: own.settings.of_output(own(images))


def seconds(work: Callable[[], Any], device: str) -> float:
    """How long it takes, to the end of what a GPU has been given to do."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def measured(name: str, args: argparse.Namespace, precision: torch.dtype) -> tuple[float, float, float]:
    """Median seconds of a step and of an inference, and GiB at most."""
    model, loss_of, detect = build(name, args.device)
    batch, kind = batch_of(args), torch.device(args.device).type
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    mixed = {"device_type": kind, "dtype": precision, "enabled": precision != torch.float32}

    def step() -> None:
        with torch.autocast(**mixed):
            loss = loss_of(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def infer() -> None:
        with torch.inference_mode(), torch.autocast(**mixed):
            detect(batch["img"])

    if kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = []
    for work, mode in ((step, True), (infer, False)):
        model.train(mode)
        rounds = [seconds(work, args.device) for _ in range(WARM + args.rounds)][WARM:]
        times.append(statistics.median(rounds))
    most = torch.cuda.max_memory_allocated() / 2**30 if kind == "cuda" else float("nan")
    return times[0], times[1], most


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=800)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--objects", type=int, default=30, help="boxes an image")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no GPU here; --device cpu shows that the script runs")
    where = torch.cuda.get_device_name() if args.device.startswith("cuda") else args.device
    print(f"{where}, torch {torch.__version__}, {args.size} px, batch {args.batch}, {args.objects} objects an image")
    print(f"{'model':<28} {'precision':<9} {'train img/s':>11} {'infer img/s':>11} {'GiB':>6}")
    for precision in args.precisions:
        for name in args.models:
            step, infer, most = measured(name, args, getattr(torch, precision))
            rates = (f"{args.batch / each:11.1f}" for each in (step, infer))
            print(f"{name:<28} {precision:<9} {' '.join(rates)} {most:6.2f}", flush=True)


if __name__ == "__main__":
    main()
