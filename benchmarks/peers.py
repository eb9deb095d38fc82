"""Train a stock ultralytics model from scratch as its users would, and score it with tinyyolo's evaluator.

    python benchmarks/peers.py model=yolov8n-p2.yaml data=my.yaml epochs=20 imgsz=320 batch=8 project=runs name=v8

Training is ultralytics' own YOLO(...).train with its own defaults but for nbs=batch, so that every model of a
comparison takes the same number of optimiser steps, on a YOLO txt conversion of the data, which has no ignore regions.
best.pt, by ultralytics' own fitness, then finds objects under tinyyolo's protocol (score .001, 3,000 an image, NMS at
IoU .5) and, in `metrics_nms_0.7.json`, at ultralytics' own NMS; `metrics_last.json` is last.pt under the protocol. All
are scored on the original annotations with their ignore regions. tinyyolo is not imported before the training is over:
it changes parts of ultralytics.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

PROTOCOL = {"conf": 0.001, "max_det": 3000}
SCORED = {  # metrics file -> checkpoint and IoU of the NMS: tinyyolo's, ultralytics' own
    "metrics.json": ("best", 0.5),
    "metrics_nms_0.7.json": ("best", 0.7),
    "metrics_last.json": ("last", 0.5),
}
NEEDED = ("model", "data", "epochs", "imgsz", "batch", "project", "name")
NO_LIMIT = 3600.0  # seconds an image: ultralytics drops images when its NMS is slow, as on a busy machine


def main(words: list[str]) -> int:
    """Train, find, score; writes metrics and `peer.json` into the run's folder."""
    pairs = dict(word.split("=", 1) for word in words if "=" in word)
    if missing := [key for key in NEEDED if key not in pairs]:
        print(f"peers: {missing[0]}= is missing; needed: {', '.join(NEEDED)}", file=sys.stderr)
        return 2
    given = {key: value if key in {"model", "data", "name"} else yaml.safe_load(value) for key, value in pairs.items()}
    data, folder = given.pop("data"), Path(given.pop("project")).absolute() / given.pop("name")
    with tempfile.TemporaryDirectory() as place:
        convert = [sys.executable, "-m", "tinyyolo.cli", "data", "convert", data, "to=yolo", f"out={place}/set"]
        subprocess.run(convert, check=True)
        params, found = train_and_find(given.pop("model"), f"{place}/set/data.yaml", folder, given)
    for name, detections in found.items():
        score(data, detections, folder / name)
    (folder / "peer.json").write_text(json.dumps({"params": params}) + "\n", encoding="utf-8")
    return 0


def train_and_find(model: str, data: str, folder: Path, given: dict[str, Any]) -> tuple[int, dict[str, list[dict]]]:
    """Parameters of the stock model, and its detections by name of the metrics file."""
    import ultralytics.utils.nms as nms
    from ultralytics import YOLO

    nms.non_max_suppression = partial(nms.non_max_suppression, max_time_img=NO_LIMIT)
    where = {"project": str(folder.parent), "name": folder.name, "exist_ok": True, "plots": False}
    stock = YOLO(model)
    stock.add_callback("on_train_start", channels_last)
    stock.train(data=data, nbs=given["batch"], pretrained=False, **where, **given)
    kept = {key: given[key] for key in ("imgsz", "batch", "device", "workers") if key in given}
    found = {}
    for name, (checkpoint, iou) in SCORED.items():
        trained = YOLO(folder / "weights" / f"{checkpoint}.pt")
        params = sum(p.numel() for p in trained.model.parameters())
        part = Path(name).stem
        where = {"project": str(folder), "name": part, "exist_ok": True, "plots": False, "save_json": True}
        trained.val(data=data, split="val", iou=iou, **PROTOCOL, **where, **kept)
        written = folder / part / "predictions.json"
        found[name] = json.loads(written.read_text(encoding="utf-8")) if written.exists() else []  # none: no file
    return params, found


def channels_last(trainer: Any) -> None:
    """Lay the stock model's maps out as ours are: a quarter less time on a CPU, the same numbers but for rounding."""
    trainer.model.to(memory_format=torch.channels_last)


def score(data: str, found: list[dict[str, Any]], path: Path) -> None:
    """Metrics of ultralytics' detections on the original annotations.

    Raises:
        UserError: two images of one name, which ultralytics' results cannot tell apart.
    """
    import numpy as np

    from tinyyolo.config import UserError
    from tinyyolo.datasets.spec import load
    from tinyyolo.evaluation import evaluate, write_json

    truth = load(data).read("val")
    ids = {Path(name).name: int(i) for name, i in zip(truth.file_names, truth.image_ids, strict=True)}
    if len(ids) < len(truth.image_ids):
        raise UserError(f"{data}: images of one name in several folders: ultralytics' results cannot tell them apart")
    category = {k + 1: int(truth.category_ids[k]) for k in truth.names}  # ultralytics counts classes from 1
    rows = {
        "image_id": np.array([ids[row["file_name"]] for row in found], dtype=np.int64),
        "category_id": np.array([category[row["category_id"]] for row in found], dtype=np.int64),
        "bbox": np.array([row["bbox"] for row in found], dtype=np.float64).reshape(-1, 4),
        "score": np.array([row["score"] for row in found], dtype=np.float64),
    }
    result = evaluate(truth, rows)
    write_json({key: value for key, value in result.items() if key != "lrp"}, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
