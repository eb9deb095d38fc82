"""train, val, predict and info as the command runs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError
from tinyyolo.engine.arguments import with_file
from tinyyolo.engine.model import Model

# What `tinyyolo train` does when no data is named: about seven minutes on 2 CPU cores, see README.md.
DEMO = {"data": "toy.yaml", "imgsz": 320, "epochs": 12, "batch": 8}


def split(mode: str, keys: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Dotted keys (of the model's YAML) and plain ones (of the run), those of the file that `cfg=` names among them."""
    keys = with_file(mode, keys)
    return {k: v for k, v in keys.items() if "." in k}, {k: v for k, v in keys.items() if "." not in k}


def train(**keys: Any) -> None:
    """Train a model: tinyyolo train model=tinyyolo-n.yaml data=my.yaml epochs=100 imgsz=640

    Keys are those of docs/keys.md (ultralytics' and our own); dotted keys change the model's YAML
    (head.assigner.topk=3). Without data= it trains the smallest model on a drawn toy set, about seven minutes on
    2 cores. To continue a run that was cut off: tinyyolo train resume=runs/train/weights/last.pt
    """
    dotted, plain = split("train", keys)
    resume = plain.get("resume", False)
    if resume is None or resume == "":
        raise UserError("train: resume= is empty; give the checkpoint: resume=runs/train/weights/last.pt")
    demo = not resume and "data" not in plain
    if resume:
        name = plain.pop("model", None) if resume is True else resume
        if not name:
            raise UserError("train: resume= needs the checkpoint: resume=runs/train/weights/last.pt")
        plain |= {"model": str(name), "resume": True}
    model = Model(plain.pop("model", None) or "tinyyolo-n.yaml", overrides=dotted)
    if demo and dotted:
        model.model.yaml  # noqa: B018 - built: a mistake in a dotted key is told before a set is drawn
    model.train(**({**DEMO, **plain} if demo else plain))
    folder = Path(model.trainer.save_dir)
    print(f"Best checkpoint: {folder / 'weights' / 'best.pt'}\nPictures: {folder}")


def val(**keys: Any) -> None:
    """Validate a checkpoint: tinyyolo val model=best.pt data=my.yaml split=test

    Prints AP, AP50, AP75, AP by size, AR and oLRP in percent for all classes and each one, and writes metrics.json,
    predictions.json (COCO results) and pictures. Without data= the training data are taken.
    """
    dotted, plain = split("val", keys)
    Model(need_model(plain, "val"), overrides=dotted).val(**plain)


def predict(**keys: Any) -> None:
    """Detect objects: tinyyolo predict model=best.pt source=images/ conf=0.25

    source is an image, a folder, a glob, a video or a txt list. Draws into runs/predict; save_txt=true, save_crop=true
    and save_json=true write boxes as well; show_labels=true prints class names into the picture.
    """
    dotted, plain = split("predict", keys)
    model = Model(need_model(plain, "predict"), overrides=dotted)
    source = plain.pop("source", None)
    for _ in model.predict(source, stream=True, **{"save": True, **plain}):
        pass


def export(**keys: Any) -> None:
    """Write a checkpoint as TorchScript: tinyyolo export model=best.pt imgsz=640

    The file stands beside the checkpoint; predict and val take it in place of the checkpoint.
    """
    dotted, plain = split("export", keys)
    print(Model(need_model(plain, "export"), overrides=dotted).export(**plain))


def info(**keys: Any) -> None:
    """Print a model's size and cost: tinyyolo info model=tinyyolo-n.yaml imgsz=640"""
    dotted, plain = split("predict", keys)
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
