"""Checkpoints without a training: small, of any content, and with records as one likes."""

import io
import zipfile
from pathlib import Path

import torch

from tinyyolo.config import load_model_yaml
from tinyyolo.detectors.build import build_model
from tinyyolo.engine import checkpoint

SMALLEST = {  # 64 tensors
    "backbone.channels": [4, 4],
    "backbone.depths": [1],
    "backbone.pools": 3,
    "neck.channels": [4],
    "head.anchors": [[[6, 6], [10, 10]]],
    "head.hidden": [4],
}
NAMES = {0: "dark", 1: "bright"}


def content(**more) -> dict:
    """What the checkpoint of an untrained model of two classes holds, every weight its own."""
    torch.manual_seed(0)
    model = build_model(load_model_yaml("tinyyolo-n.yaml", SMALLEST), len(NAMES))
    model.names = NAMES
    return {**checkpoint.of_model(model, {"imgsz": 64, "patience": 7}), **more}


def unfinished(held: dict) -> dict:
    """`held` as a training left it after its first epoch."""
    resume = {
        "model": dict(held["model"]),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
        "scaler": {},
        "updates": 3,
        "best_fitness": 0.5,
        "stopper": {"best_fitness": 0.5, "best_epoch": 0},
    }
    return {**held, "epoch": 0, "resume": resume}


def saved(held, path: Path) -> Path:
    """Write anything as torch writes it."""
    torch.save(held, path)
    return path


def records(path: Path) -> list[tuple[str, bytes]]:
    """The records of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def archive(path: Path, rows, compression: int = zipfile.ZIP_STORED) -> Path:
    """Write a zip archive of such records."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        for name, data in rows:
            file.writestr(name, data)
    path.write_bytes(out.getvalue())
    return path
