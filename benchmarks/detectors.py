"""Time and memory of one training step and one inference of the paper's detectors, beside torchvision's Faster R-CNN.

    python benchmarks/detectors.py                                        # 800 px, batch 1, 27 and 500 objects
    python benchmarks/detectors.py --models cascade-rcnn-r50-nwdrka --device cuda --size 800
    python benchmarks/detectors.py --rounds 5 --threads 1                 # steadier figures on a busy machine

torchvision's model has the same proposal counts and frozen parameters, and batch norm in eval mode. Every case runs
alone in a fresh process, `rounds` times in turn; the figures are the best round's. On a busy machine compare CPU
seconds. Random weights propose anything from 500 to 3,000 boxes, large ones at that: in inference every model computes
its own proposals and then goes on with the same 3,000 boxes of 8 to 32 px, as a trained one has them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from tinyyolo.config import load_model_yaml
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.two_stage import TwoStage

RIVAL = "torchvision"
OURS = "faster-rcnn-r50-nwdrka"
CLASSES = 8
SIDES = (4.0, 12.0)  # px, smallest and spread of the objects' sides
PROPOSED_SIDES = (8.0, 24.0)
PROPOSALS = 3000
SEED = 0
LEARNING_RATE = 1e-4


def objects(count: int, size: int, sides: tuple[float, float] = SIDES) -> dict[str, torch.Tensor]:
    """`count` boxes of 4 to 16 px, or of other sides, anywhere in the image, whole pixels."""
    generator = torch.Generator().manual_seed(SEED)
    sides = sides[0] + sides[1] * torch.rand(count, 2, generator=generator)
    corner = (size - sides) * torch.rand(count, 2, generator=generator)
    boxes = torch.cat([corner, corner + sides], dim=1).round()
    return {"boxes": boxes, "labels": torch.randint(CLASSES, (count,), generator=generator)}


def torchvision_model(size: int) -> nn.Module:
    """torchvision's Faster R-CNN with the published proposal counts, stem and first stage frozen."""
    counts = {f"rpn_{when}_nms_top_n_{mode}": PROPOSALS for when in ("pre", "post") for mode in ("train", "test")}
    model = fasterrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        min_size=size,
        max_size=size,
        box_detections_per_img=PROPOSALS,
        **counts,
    )
    body = model.backbone.body
    for module in (body.conv1, body.bn1, body.layer1):
        module.requires_grad_(False)
    return model


def fix_proposals(model: nn.Module, boxes: torch.Tensor) -> None:
    """Let a two-stage model in eval mode compute its proposals as ever, and go on with `boxes` (K, 4)."""
    if isinstance(model, GeneralizedRCNN):
        compute, fixed = model.rpn.forward, ([boxes], {})
        model.rpn.forward = lambda *given: (compute(*given), fixed)[not model.training]
    elif isinstance(model, TwoStage):
        compute, fixed = model.rpn_head.proposals, (boxes[None], boxes.new_ones(1, len(boxes)))
        model.rpn_head.proposals = lambda *given: (compute(*given), fixed)[not model.training]


def calls(name: str, size: int, count: int, device: str) -> dict[str, Callable[[], None]]:
    """{"train": one step, "infer": one image} of a model."""
    torch.manual_seed(SEED)
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(SEED)).to(device)
    target = {key: value.to(device) for key, value in objects(count, size).items()}
    if name == RIVAL:
        model = torchvision_model(size).to(device)
        theirs = [{**target, "labels": target["labels"] + 1}]
        loss = lambda: sum(model([image[0]], theirs).values())  # noqa: E731
        infer = lambda: model([image[0]])  # noqa: E731
    else:
        model = build_model(load_model_yaml(name)).to(device)
        loss = lambda: sum(model.losses(model.features(image), [target], (size, size)).values())  # noqa: E731
        infer = lambda: model.detect(model.features(image), (size, size))  # noqa: E731
    fix_proposals(model, objects(PROPOSALS, size, PROPOSED_SIDES)["boxes"].to(device))
    trained = [p for p in model.train().parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=LEARNING_RATE, momentum=0.9)

    def train_step() -> None:
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    @torch.no_grad()
    def inference() -> None:
        model.eval()
        infer()

    return {"train": train_step, "infer": inference}


def measure(name: str, mode: str, size: int, count: int, device: str, repeats: int) -> dict[str, float]:
    """Best wall and CPU seconds of `repeats` calls after one that warms up, and the peak memory in MB."""
    call, wall, cpu = calls(name, size, count, device)[mode], [], []
    finish = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    for _ in range(repeats + 1):
        finish()
        wall.append(-time.perf_counter())
        cpu.append(-time.process_time())
        call()
        finish()
        wall[-1] += time.perf_counter()
        cpu[-1] += time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {"wall": min(wall[1:]), "cpu": min(cpu[1:]), "mb": peak}


def in_fresh_process(args: argparse.Namespace, case: tuple[str, str, int]) -> dict[str, float]:
    """`measure` of one case alone."""
    name, mode, count = case
    command = [sys.executable, __file__, "--case", name, mode, str(count), "--size", str(args.size)]
    command += ["--device", args.device, "--threads", str(args.threads), "--repeats", str(args.repeats)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def table(found: dict[tuple[str, str, int], dict[str, float]]) -> list[str]:
    """Lines of the report; the ratio is CPU seconds to torchvision's of the same case."""
    lines = ["| model | call | objects | wall s | CPU s | peak MB | CPU ratio |", "|---|---|---|---|---|---|---|"]
    for (name, mode, count), best in found.items():
        rival = found.get((RIVAL, mode, count))
        ratio = f"{best['cpu'] / rival['cpu']:.2f}" if rival else ""
        figures = f"{best['wall']:.2f} | {best['cpu']:.2f} | {best['mb']:.0f} | {ratio}"
        lines.append(f"| {name} | {mode} | {count} | {figures} |")
    return lines


def main() -> None:
    """Run every case in turn and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[OURS, RIVAL], help=f"YAML names, or {RIVAL}")
    parser.add_argument("--modes", nargs="*", default=["train", "infer"], choices=["train", "infer"])
    parser.add_argument("--objects", nargs="*", type=int, default=[27, 500])
    parser.add_argument("--size", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        torch.set_num_threads(args.threads)
        name, mode, count = args.case
        print(json.dumps(measure(name, mode, args.size, int(count), args.device, args.repeats)))
        return
    cases = [(name, mode, count) for mode in args.modes for count in args.objects for name in args.models]
    found: dict[tuple[str, str, int], dict[str, float]] = {}
    for _ in range(args.rounds):
        for case in cases:
            one = in_fresh_process(args, case)
            best = found.get(case, one)
            found[case] = {key: min(best[key], one[key]) for key in one}
    print("\n".join(table(found)))
    if args.json:
        args.json.write_text(json.dumps([{"case": case, **best} for case, best in found.items()], indent=1))


if __name__ == "__main__":
    main()
