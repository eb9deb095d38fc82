"""train, val, predict, track, export and info as the command runs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyyolo import ranks
from tinyyolo.config import UserError
from tinyyolo.engine.arguments import with_file
from tinyyolo.engine.deploy.benchmark import ROWS
from tinyyolo.engine.deploy.benchmark import benchmark as measure
from tinyyolo.engine.keys import check_keys
from tinyyolo.engine.model import SMALLEST, Model
from tinyyolo.engine.stopping import stoppable

# What `tinyyolo train` does when no data is named: about five minutes on 2 CPU cores, see README.md.
DEMO = {"data": "toy.yaml", "imgsz": 320, "epochs": 12, "batch": 8}
TRAINED = "tinyyolo-n.pt"  # what predicts where no model is named


def model_and_keys(mode: str, keys: dict[str, Any], default: str = "") -> tuple[Model, dict[str, Any]]:
    """The model with the dotted keys in its YAML, and the others; those of the file that `cfg=` names are among them.

    Raises:
        UserError: no model is named, and there is no default; or `weights=` of another model, or of a checkpoint.
    """
    keys = with_file(mode, keys)
    name = keys.pop("model", None) or default
    if not name:
        raise UserError(f"{mode}: model= is missing: a checkpoint such as runs/train/weights/best.pt")
    dotted = {key: keys.pop(key) for key in list(keys) if "." in key}
    check_keys(mode, {"trust": (trust := keys.pop("trust", False))})
    model, weights = Model(str(name), overrides=dotted, trust=trust), keys.pop("weights", None)
    if weights is not None:
        check_keys(mode, {"weights": weights})
        if model.ckpt:
            raise UserError(
                f"weights={weights}: model={name} is a checkpoint with its own; name the YAML of the weights"
            )
        model.load(weights)
    return model, keys


def train(**keys: Any) -> None:
    """Train a model: tinyyolo train model=tinyyolo-n.yaml data=my.yaml epochs=100 imgsz=640

    Keys are those of docs/keys.md (ultralytics' and our own); dotted keys change the model's YAML
    (head.assigner.topk=3). It starts from the weights that come along where there are some for the model's size;
    pretrained=false starts from scratch, pretrained=FILE from others. Without data= it trains the smallest model on a
    drawn toy set, about five minutes on 2 cores. To continue a run that was cut off:
    tinyyolo train resume=runs/train/weights/last.pt
    """
    keys = with_file("train", keys)
    resume, dotted = keys.get("resume", False), any("." in key for key in keys)
    if resume is not False:
        named = keys.pop("model", None)
        name = named if resume is True else resume
        if not name:
            raise UserError("train: resume= needs the checkpoint: resume=runs/train/weights/last.pt")
        model, plain = Model(SMALLEST), {**keys, "resume": str(name)}
    else:
        model, plain = model_and_keys("train", keys, SMALLEST)
    if resume is False and "data" not in plain:
        if dotted:
            model.model.yaml  # noqa: B018 - built: a mistake in a dotted key is told before a set is drawn
        plain = {**DEMO, **plain}
    model.train(**plain)
    if model.trainer is None or not ranks.first():
        return  # another process says it
    folder = Path(model.trainer.save_dir)
    print(f"Best checkpoint: {folder / 'weights' / 'best.pt'}\nPictures: {folder}")


def val(**keys: Any) -> None:
    """Validate a checkpoint: tinyyolo val model=best.pt data=my.yaml split=test

    Prints AP, AP50, AP75, AP by size, AR and oLRP in percent for all classes and each one, and the scores from which on
    `predict` would show each; writes metrics.json, predictions.json (COCO results) and pictures. Without data= the
    training data are taken.
    """
    model, plain = model_and_keys("val", keys)
    model.val(**plain)


def way_on(predictor: Any) -> str:
    """What one does after an interrupted prediction."""
    begun = predictor is not None and predictor.unfinished is not None and predictor.unfinished.begun
    return "the same command goes on with the scene" if begun else "what is written stays"


def trained_and_keys(mode: str, keys: dict[str, Any]) -> tuple[Model, dict[str, Any]]:
    """As `model_and_keys`; where no model is named it is the one that comes along, which is told."""
    keys = with_file(mode, keys)
    if not keys.get("model") and "source" in keys:
        print(f"No model= is given: {TRAINED} finds what it knows from drawn scenes, see docs/weights.md")
    return model_and_keys(mode, keys, TRAINED)


def predict(**keys: Any) -> None:
    """Detect objects: tinyyolo predict model=best.pt source=images/

    source is an image, a folder with all its folders, a glob, a video or a txt list; a damaged file is named and
    counted, the rest goes on. Each class is shown from the score on at which validation found the least error (LRP);
    conf=0.25 is one for all, conf='{ship: 0.1}' one for a class. Draws into runs/predict; save_txt=true, save_crop=true
    and save_json=true write boxes as well; out=boxes.gpkg (.geojson, .fgb, .parquet, .csv) is one map of all images;
    show_labels=true prints class names into the picture. Without model= it is tinyyolo-n.pt, which has learnt from
    drawn scenes alone, see docs/weights.md.
    """
    model, plain = trained_and_keys("predict", keys)
    with stoppable(lambda: way_on(model.predictor)):
        for _ in model.predict(plain.pop("source", None), stream=True, **{"save": True, **plain}):
            pass


def track(**keys: Any) -> None:
    """Follow objects: tinyyolo track model=best.pt source=video.mp4 out=tracks.txt

    source is a video, or frames: a folder, a glob or a txt list of images, those of one folder in order being one
    video. Draws into runs/track, each track in its colour; show_labels=true prints its number. out=tracks.txt is MOT
    text, out=tracks.json rows with classes. tracker=botsort.yaml (which takes the camera's motion out), bytetrack.yaml
    or a YAML of your own; association=nwd, iou, diou, expand or centre says by what a detection continues a track, see
    docs/track.md. A track begins from the score on that predict shows; conf= sets it.
    """
    model, plain = trained_and_keys("track", keys)
    with stoppable(lambda: "what is written stays"):
        for _ in model.track(plain.pop("source", None), stream=True, **{"save": True, **plain}):
            pass


def export(**keys: Any) -> None:
    """Write a checkpoint for other programs: tinyyolo export model=best.pt format=onnx

    The file stands beside the checkpoint. format=onnx and format=openvino take any image size and give detections, or
    with nms=false candidates; half=true is for weights of 16 bits. They are tried beside the checkpoint first, and not
    written if they find something else. int8=true data=my.yaml is for weights and maps of 8 bits, which do find
    something else: AP and AP_vt of both on the data are printed. format=torchscript runs by itself at one image size;
    it is code, which predict and val run with trust=true. format=safetensors holds the weights, no code, and stands
    for the .pt anywhere.
    """
    model, plain = model_and_keys("export", keys)
    print(model.export(**plain))


def benchmark(
    model: str | Path,
    data: str,
    *,
    imgsz: int = 0,
    split: str = "val",
    formats: str | Sequence[str] = tuple(ROWS),
    project: str | Path = "runs",
    name: str = "benchmark",
) -> None:
    """Compare a checkpoint with its exports: tinyyolo benchmark model=best.pt data=my.yaml

    AP, AP by size, milliseconds of the first picture from its pixels to its detections (median, warm), size on disk and
    memory of the process, as a table, benchmark.json and benchmark.png. formats=[checkpoint,onnx] are some of them.
    """
    rows = [formats] if isinstance(formats, str) else list(formats)
    measure(str(model), data, imgsz, split, rows, str(project), name)


def info(**keys: Any) -> None:
    """Print a model's size and cost: tinyyolo info model=tinyyolo-n.yaml imgsz=640"""
    model, plain = model_and_keys("predict", keys, SMALLEST)
    imgsz = plain.pop("imgsz", 640)
    if plain:
        raise UserError(f"info: unknown key {next(iter(plain))!r}; Choices: imgsz, model")
    model.info(imgsz=imgsz)
