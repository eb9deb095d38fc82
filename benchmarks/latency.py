"""Parameters, GFLOPs and CPU latency of the anchor YOLO beside stock ultralytics models, in one run.

    python benchmarks/latency.py                                           # nano size, 640 px, batch 1, one thread
    python benchmarks/latency.py --models tinyyolo-s yolov8s-p2 --threads 2 --size 320
    python benchmarks/latency.py --exports           # detections and all: torch, onnxruntime, OpenVINO, stock exports
    python benchmarks/latency.py --post --size 320   # what postprocessing takes beside the network

Forward passes of fused models in evaluation, on channels-last maps, which both libraries use on x86; NMS is not in it.
The models take turns, so that a busy moment meets all of them; the figures are each model's best and median round.

`--exports` takes the weights of `--weights` on a drawn picture, from pixels in [0, 1] to detections of `--score`, with
votes. The stock model has random weights: its threshold is set where as many anchors pass it as pass ours (.001, to
vote), and its NMS is ultralytics' own in the graph (`nms=True`), which has one class an anchor and no votes. `--post`
takes those weights' candidates, and as many candidates as there are anchors, each over .001 in one class.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false")

import cv2
import numpy as np
import onnxruntime
import openvino
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from tinyyolo import Model
from tinyyolo.config import load_model_yaml
from tinyyolo.datasets.drawn.aerial import draw_aerial
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.postprocess import Postprocess, boxes_and_scores
from tinyyolo.engine.deploy.opened import opened

CLASSES = 4
MODELS = ("tinyyolo-n", "yolov8n-p2", "yolo26n-p2")
STOCK = "yolov8n-p2"
VOTES_FROM = 0.001  # score of a candidate that votes
WARM = 2  # rounds that do not count


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


def picture(size: int) -> Tensor:
    """(1, 3, size, size) RGB in [0, 1] with 40 to 80 drawn objects of 4 to 24 px."""
    pixels, *_ = draw_aerial(np.random.default_rng(0), size, (40, 80), (4.0, 24.0))
    return torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)[None].float() / 255


def in_turns(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every round of calls that take turns, warm."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for turn in range(rounds + WARM):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                if turn >= WARM:
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def tell(seconds: Mapping[str, list[float]], to: str) -> None:
    """A table of medians and the best, with ratios to one of them."""
    print("| | median ms | best ms | median to " + to + " | best |\n|---|---:|---:|---:|---:|")
    for name, own in seconds.items():
        other, both = seconds[to], (statistics.median(own), min(own))
        ratios = [both[0] / statistics.median(other), both[1] / min(other)]
        print(f"| {name} | {1e3 * both[0]:.1f} | {1e3 * both[1]:.1f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")


def trained(weights: str) -> tuple[Any, nn.Module]:
    """A checkpoint as `Model`, and its fused network as predictions run it."""
    model = Model(weights)
    network: Any = model.model.float().eval()
    return model, network.fuse(verbose=False).to(memory_format=torch.channels_last)


def stock_of(path: str, image: np.ndarray, threads: int) -> Callable[[], Any]:
    """What runs a stock export on an image, with the options of ours."""
    if path.endswith(".onnx"):
        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {session.get_inputs()[0].name: image})
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    (file,) = Path(path).glob("*.xml")
    compiled = openvino.Core().compile_model(file, "CPU", options)
    return lambda: compiled(image)


def exports(args: argparse.Namespace) -> None:
    """Times from pixels to detections of torch, of the exports, and of stock exports; see the module."""
    image, folder = picture(args.size), Path(args.folder)
    _, network = trained(args.weights)
    rules = Postprocess.of({**network.test, "score": args.score})
    file = folder / Path(args.weights).name
    shutil.copy(Model(args.weights).ckpt_path, file)
    calls: dict[str, Callable[[], Any]] = {"torch": lambda: rules.of_output(network.predict(image))}
    runtimes = {form: opened(Path(Model(file).export(format=form, imgsz=args.size))) for form in ("onnx", "openvino")}
    for form, runtime in runtimes.items():
        calls[form] = lambda runtime=runtime: runtime.detect(image, rules)
    with torch.inference_mode():
        _, scores = boxes_and_scores(network.predict(image))
        count = int((scores > VOTES_FROM).any(-1).sum())
        torch.manual_seed(0)
        stock = YOLO(f"{STOCK}.yaml")
        best = stock.model.eval()(image)[0][0, 4:].amax(0)
        conf = best.sort(descending=True).values[count].item()
    for form in runtimes:
        words = {"nms": True, "conf": conf, "iou": rules.iou, "max_det": 300, "imgsz": args.size}
        words |= {"simplify": False} if form == "onnx" else {}
        path = YOLO(stock.save(folder / f"{STOCK}.pt") or folder / f"{STOCK}.pt").export(format=form, **words)
        calls[f"{STOCK} {form}"] = stock_of(path, image.numpy(), args.threads)
    found = len(calls["torch"]()[0][0])
    print(
        f"{args.size} px, {args.threads} thread(s), {args.rounds} rounds, torch {torch.__version__}: {found} detections"
    )
    print(f"anchors that pass: {count} of {scores.shape[1]}; {STOCK}: {int((best > conf).sum())} of {len(best)}\n")
    seconds = in_turns(calls, args.rounds)
    tell(seconds, "torch")
    mine = min(statistics.median(seconds[form]) for form in runtimes)
    theirs = min(statistics.median(seconds[f"{STOCK} {form}"]) for form in runtimes)
    ratio = mine / statistics.median(seconds["torch"])
    print(f"\nthe better export to torch {ratio:.2f} (bar .6), to the better of {STOCK} {mine / theirs:.2f} (bar 1)")


def post(args: argparse.Namespace) -> None:
    """Times of postprocessing beside the network's; see the module."""
    image = picture(args.size).contiguous(memory_format=torch.channels_last)
    _, network = trained(args.weights)
    rules = Postprocess.of({**network.test, "score": VOTES_FROM})
    with torch.inference_mode():
        boxes, scores = boxes_and_scores(network.predict(image))
        generator = torch.Generator().manual_seed(0)
        some = torch.rand(scores.shape[:2], generator=generator)
        full = torch.zeros_like(scores)
        label = torch.randint(scores.shape[2], some.shape, generator=generator)
        full.scatter_(2, label[..., None], (VOTES_FROM * 1.01 * 500**some)[..., None])  # .001 to .5
    calls = {
        "network": lambda: network.predict(image),
        f"postprocess, {int((scores > VOTES_FROM).sum()):,} candidates": lambda: rules(boxes, scores),
        f"postprocess, {int((full > VOTES_FROM).sum()):,} candidates": lambda: rules(boxes, full),
    }
    print(f"{args.size} px, {args.threads} thread(s), score {VOTES_FROM}, {rules.votes} votes (bar .8)\n")
    tell(in_turns(calls, args.rounds), "network")


def main() -> None:
    """Print a table; ratios are to the first stock model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--exports", action="store_true", help="time the exports of --weights and of a stock model")
    parser.add_argument("--post", action="store_true", help="time postprocessing of --weights")
    parser.add_argument("--weights", default="tinyyolo-n.pt")
    parser.add_argument("--score", type=float, default=0.25, help="of detections")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.exports or args.post:
        with TemporaryDirectory() as args.folder:
            (exports if args.exports else post)(args)
        return
    image = torch.rand(1, 3, args.size, args.size).contiguous(memory_format=torch.channels_last)
    models = {name: build(name) for name in args.models}
    seconds = in_turns({name: partial(model, image) for name, model in models.items()}, args.rounds)
    with torch.inference_mode():
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
