"""train, val, predict and info as the command runs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError
from tinyyolo.engine.model import Model

# What `tinyyolo train` does when no data is named: about 5 minutes on 2 CPU cores.
DEMO = {"data": "toy.yaml", "imgsz": 320, "epochs": 12, "batch": 8}


def split(keys: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Dotted keys (of the model's YAML) and plain ones (of the run)."""
    return {k: v for k, v in keys.items() if "." in k}, {k: v for k, v in keys.items() if "." not in k}


def train(**keys: Any) -> None:
    """Train a model: tinyyolo train model=tinyyolo-n.yaml data=my.yaml epochs=100 imgsz=640

    Keys are ultralytics' training arguments and those of cfg/default.yaml; dotted keys change the model's YAML
    (head.assigner.topk=3). Without data= it trains the smallest model on a drawn toy set, about 5 minutes on 2 cores.
    To continue a run that was cut off: tinyyolo train resume=runs/train/weights/last.pt
    """
    dotted, plain = split(keys)
    resume = plain.get("resume")
    if resume:
        name = plain.pop("model", None) if resume is True else resume
        if not name:
            raise UserError("train: resume= needs the checkpoint: resume=runs/train/weights/last.pt")
        plain |= {"model": str(name), "resume": True}
    elif "data" not in plain:
        plain = {**DEMO, **plain}
    model = Model(plain.pop("model", "tinyyolo-n.yaml"), overrides=dotted)
    model.train(**plain)
    folder = Path(model.trainer.save_dir)
    print(f"Best checkpoint: {folder / 'weights' / 'best.pt'}\nPictures: {folder}")


def val(**keys: Any) -> None:
    """Validate a checkpoint: tinyyolo val model=best.pt data=my.yaml split=test

    Prints AP, AP50, AP75, AP by size, AR and oLRP in percent for all classes and each one, and writes metrics.json,
    predictions.json (COCO results) and pictures. Without data= the training data are taken.
    """
    dotted, plain = split(keys)
    Model(need_model(plain, "val"), overrides=dotted).val(**plain)


def predict(**keys: Any) -> None:
    """Detect objects: tinyyolo predict model=best.pt source=images/ conf=0.25

    source is an image, a folder, a glob, a video or a txt list. Draws into runs/predict; save_txt=true, save_crop=true
    and save_json=true write boxes as well; show_labels=true prints class names into the picture.
    """
    dotted, plain = split(keys)
    model = Model(need_model(plain, "predict"), overrides=dotted)
    source = plain.pop("source", None)
    for _ in model.predict(source, stream=True, **{"save": True, **plain}):
        pass


def export(**keys: Any) -> None:
    """Write a checkpoint as TorchScript: tinyyolo export model=best.pt imgsz=640

    The file stands beside the checkpoint; predict and val take it in place of the checkpoint.
    """
    dotted, plain = split(keys)
    print(Model(need_model(plain, "export"), overrides=dotted).export(**plain))


def info(**keys: Any) -> None:
    """Print a model's size and cost: tinyyolo info model=tinyyolo-n.yaml imgsz=640"""
    dotted, plain = split(keys)
    imgsz = plain.pop("imgsz", 640)
    model = Model(plain.pop("model", "tinyyolo-n.yaml"), overrides=dotted)
    if plain:
        raise UserError(f"info: unknown key {next(iter(plain))!r}; Choices: imgsz, model")
    model.info(imgsz=imgsz)


def need_model(keys: dict[str, Any], command: str) -> str:
    """Take `model` out of the keys.

    Raises:
        UserError: it is missing.
    """
    if "model" not in keys:
        raise UserError(f"{command}: model= is missing: a checkpoint such as runs/train/weights/best.pt")
    return str(keys.pop("model"))
