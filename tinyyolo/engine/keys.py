"""The table of keys: what each of ultralytics' keys and of ours does in each mode, or what to use instead.

docs/keys.md is written from it: `python -m tinyyolo.engine.keys docs/keys.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyyolo.compat import DEFAULT_CFG_DICT
from tinyyolo.config import UserError, suggest
from tinyyolo.engine.kinds import (
    ANY,
    AUGMENTATIONS,
    BATCH,
    CLASSES,
    COUNT,
    EPOCHS,
    FACTOR,
    FREEZE,
    IMGSZ,
    INDEX,
    OPTIMIZER,
    SCALE,
    SHARE,
    START,
    STEPS,
    SWITCH,
    TEXT,
    Kind,
    Number,
    OneOf,
    shown,
)

MODES = {"t": "train", "v": "val", "p": "predict", "e": "export"}


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        modes: first letters of the modes in which it works.
        kind: what its values are.
        text: what it does.
        instead: what to use where it does not work.
        off: values that ask for nothing, accepted where the key does not work; None always is.
    """

    modes: str
    kind: Kind
    text: str
    instead: str = ""
    off: tuple[Any, ...] = ()

    def refusal(self, mode: str) -> str:
        """What to use instead in `mode`, or '' where the key works."""
        if mode[0] in self.modes:
            return ""
        takers = " and ".join(MODES[letter] for letter in self.modes)
        return self.instead or f"a key of {takers}"

    def of_another(self, mode: str) -> bool:
        """Whether it works, but not in `mode`."""
        return bool(self.modes) and mode[0] not in self.modes


OWN = {  # key -> default; see cfg/default.yaml for what they mean
    "lr_steps": None,
    "lr_batch": None,
    "warmup_iters": None,
    "warmup_factor": 0.001,
    "clip_grad": 10.0,
    "ema": True,
    "decay_all": False,
    "skip_empty": False,
    "min_side": 0.0,
    "paste": 0,
}
NOTHING = {SWITCH: (False,), FACTOR: (0,)}  # kind -> what asks for nothing of a feature that is not here
OTHER_TASK = "no model here has such a part: every one finds upright boxes"
OTHER_FORMAT = "TorchScript has no such setting"
NO_QAT = "training and prediction are in float32, or mixed precision by amp="
ONE_STAGE_NMS = "suppression is never part of the network; iou=, max_det= and agnostic_nms= set it"
HALF = "tiny boxes need float32; amp= trains in mixed precision"


def key(modes: str, kind: Kind, text: str, instead: str = "") -> Key:
    """A row; a switch that is off, or a chance of 0, says nothing where there is nothing to switch on."""
    return Key(modes, kind, text, instead, NOTHING.get(kind, ()))


KEYS: dict[str, Key] = {
    # ---- the run
    "task": key("tvpe", OneOf("detect"), "detect; there is no other"),
    "mode": key("tvpe", OneOf(*MODES.values()), "what the command says"),
    "model": key("tvpe", ANY, "a model YAML or its name, or a checkpoint; in Python `Model(...)` takes it"),
    "cfg": key("tvpe", TEXT, "a YAML of keys; what stands on the command line wins over it"),
    "data": key("tv", TEXT, "a data YAML or its name", "a model knows its own classes"),
    "source": key("p", ANY, "an image, a folder, a glob, a video, a txt list, an array"),
    "imgsz": key("tvpe", IMGSZ, "longer side of the network input in px; predict and export also take [height, width]"),
    "device": key("tvp", ANY, "cpu, 0, [0, 1], mps", "an export is traced on the CPU and runs on any device"),
    "project": key("tvp", ANY, "folder of the runs", "an export stands beside its checkpoint"),
    "name": key("tvp", ANY, "the run's folder in it", "an export stands beside its checkpoint"),
    "save_dir": key("tvp", ANY, "the run's folder itself", "an export stands beside its checkpoint"),
    "exist_ok": key("tvp", SWITCH, "write into a run folder that exists"),
    "verbose": key("tvp", SWITCH, "say more: the model's size, every class, every image"),
    "batch": key("tvp", BATCH, "images at a time; in training also -1 or a share of GPU memory", OTHER_FORMAT),
    "workers": key("tv", COUNT, "processes that load images; 0 on a CPU"),
    "classes": key("tvp", CLASSES, "only these classes, by name or index", "predict and val take classes="),
    "single_cls": key("tv", SWITCH, "take every object for one class", "use agnostic_nms=true"),
    "plots": key("tv", SWITCH, "draw curves and pictures", "save=true draws"),
    # ---- training
    "epochs": key("t", EPOCHS, "passes over the training images"),
    "time": key("t", Number(0, none=True), "hours to train, instead of epochs"),
    "patience": key("t", COUNT, "stop after so many epochs without a better AP; 0: never"),
    "save": key("tp", SWITCH, "train: a checkpoint every epoch, not only the last; predict: draw", "plots=true draws"),
    "save_period": key("t", Number(-1, whole=True), "keep a checkpoint of its own every so many epochs"),
    "cache": key("t", OneOf(True, False, "ram", "disk"), "keep decoded images in memory or as .npy files"),
    "pretrained": key("t", START, "false: start from scratch; a path: from its weights", "model= is the checkpoint"),
    "cls_remap": key("", SWITCH, "rows of the class layer by class name", "weights go over by tensor name and shape"),
    "optimizer": key("t", OPTIMIZER, "MuSGD, SGD, AdamW, ..."),
    "seed": key("t", COUNT, "of weights, order and augmentation"),
    "deterministic": key("t", SWITCH, "only operations that give the same twice"),
    "rect": key("tvp", SWITCH, "batches of one aspect ratio, less padding; val and predict: true"),
    "cos_lr": key("t", SWITCH, "learning rate along a cosine"),
    "close_mosaic": key("t", COUNT, "last epochs without mosaic"),
    "resume": key("t", START, "go on with a run that was cut off: its last.pt, or true for the loaded one"),
    "amp": key("t", OneOf(True, False, "fp16", "bf16", "fp32"), "mixed precision on a GPU"),
    "fraction": key("t", SHARE, "share of the training images to use, or how many"),
    "freeze": key("t", FREEZE, "parts that do not learn: the first so many, a list of their numbers or of names"),
    "multi_scale": key("t", Number(0, 1), "vary the image size by this share"),
    "compile": key("", ANY, "torch.compile", "the loss is not made for it; use amp=, workers= or a smaller model"),
    "channels_last": Key("t", SWITCH, "memory layout on a GPU", "evaluation on a CPU is always channels-last"),
    "profile": key("", SWITCH, "speed for loggers while training", "see benchmarks/latency.py"),
    "val": key("t", SWITCH, "validate after every epoch, not only the last"),
    "lr0": key("t", Number(0), "first learning rate"),
    "lrf": key("t", FACTOR, "last learning rate as a share of the first"),
    "momentum": key("t", FACTOR, "of SGD; beta 1 of Adam"),
    "weight_decay": key("t", FACTOR, "L2 penalty"),
    "warmup_epochs": key("t", Number(0), "epochs of warm-up"),
    "warmup_momentum": key("t", FACTOR, "momentum at the start of it"),
    "warmup_bias_lr": key("t", FACTOR, "learning rate of biases at the start of it"),
    "nbs": key("t", Number(1, whole=True, none=True), "images an optimiser step; null: one step a batch"),
    "box": key("t", Number(0), "weight of the box loss: the model's `head.gains.box`"),
    "cls": key("t", Number(0), "weight of the class loss: the model's `head.gains.cls`"),
    "cls_pw": key("t", FACTOR, "weigh rare classes more (anchor YOLO): 1 / objects to this power"),
    "dfl": key("", Number(0), "distribution focal loss", "no such loss here; use box=, or head.box_loss.NAME="),
    "dropout": key("", FACTOR, "of a classifier", "no layer here drops out; use weight_decay="),
    "distill_model": key("", ANY, "a teacher", "no distillation; start from a checkpoint: model=best.pt"),
    "dis": key("", Number(0), "weight of distillation", "no distillation; start from a checkpoint: model=best.pt"),
    **dict.fromkeys(("pose", "kobj", "rle", "angle"), key("", Number(0), "loss of poses or turned boxes", OTHER_TASK)),
    **dict.fromkeys(("dlog", "dgrad", "dlam"), key("", Number(0), "loss of depth", OTHER_TASK)),
    "overlap_mask": key("", SWITCH, "masks", OTHER_TASK),
    "mask_ratio": key("", EPOCHS, "masks", OTHER_TASK),
    # ---- augmentation
    "hsv_h": key("t", FACTOR, "vary the hue by this share"),
    "hsv_s": key("t", FACTOR, "vary the saturation"),
    "hsv_v": key("t", FACTOR, "vary the brightness"),
    "degrees": key("t", Number(-360, 360), "rotate by up to so many degrees"),
    "translate": key("t", FACTOR, "shift by up to this share"),
    "scale": key("t", SCALE, "scale by 1 - this to 1 + this, or from the first to the second"),
    "shear": key("t", Number(-180, 180), "shear by up to so many degrees"),
    "perspective": key("t", FACTOR, "perspective, 0 to .001"),
    "flipud": key("t", FACTOR, "chance to flip upside down"),
    "fliplr": key("t", FACTOR, "chance to flip left and right"),
    "bgr": key("t", FACTOR, "chance to swap red and blue"),
    "mosaic": key("t", FACTOR, "chance of four images in one"),
    "mixup": key("t", FACTOR, "chance of two images blended"),
    "cutmix": key("t", FACTOR, "chance of a piece of another image"),
    "augmentations": key("t", AUGMENTATIONS, "a list of albumentations transforms, in Python; none unless given"),
    "copy_paste": key("", FACTOR, "copies of masks", "boxes have no masks; use paste="),
    "copy_paste_mode": key("", TEXT, "copies of masks", "boxes have no masks; use paste="),
    "auto_augment": key("", TEXT, "of a classifier", "use hsv_h=, scale=, mosaic=, paste="),
    "erasing": key("", FACTOR, "of a classifier", "use cutmix="),
    # ---- validation
    "split": key("tv", TEXT, "the split to validate on"),
    "save_json": key("tvp", SWITCH, "write predictions.json; val always does"),
    "conf": key(
        "tvp",
        Number(0, 1, none=True),
        "least score; predict .25, else the model's, or .001",
    ),
    "iou": key("tvp", Number(0, 1, none=True), "NMS takes boxes above it for one; the model's, or .5"),
    "max_det": key("tvp", Number(1, whole=True, none=True), "detections an image; the model's, or 3000"),
    "agnostic_nms": key("tvp", SWITCH, "NMS across classes"),
    "quantize": key("", ANY, "8 or 16 bits", NO_QAT),
    "half": key("", SWITCH, "16 bits", HALF),
    "int8": key("", SWITCH, "8 bits", HALF),
    "dnn": key("", SWITCH, "OpenCV's ONNX reader", "a .torchscript export runs by torch"),
    "nms": key("", SWITCH, "suppression in the network", ONE_STAGE_NMS),
    "end2end": key("", SWITCH, "suppression in the network", ONE_STAGE_NMS),
    "augment": key("", SWITCH, "detect at several sizes and flips", "use a larger imgsz="),
    # ---- prediction
    "vid_stride": key("p", EPOCHS, "every so many frames of a video"),
    "stream_buffer": key("p", SWITCH, "of a stream: every frame, not the latest"),
    "visualize": key("", SWITCH, "heat maps", "plots=true of val and `tinyyolo report` show what went wrong"),
    "retina_masks": key("", SWITCH, "masks", OTHER_TASK),
    "embed": key("p", INDEX, "in Python: a vector an image from these maps of the neck; `Model.embed` takes all"),
    "tracker": key("", TEXT, "a tracker", "there is no tracking; use predict"),
    "show": key("p", SWITCH, "open a window"),
    "save_frames": key("p", SWITCH, "every frame of a video as an image"),
    "save_txt": key("vp", SWITCH, "detections as YOLO txt", "use `tinyyolo val save_txt=true` afterwards"),
    "save_conf": key("vp", SWITCH, "scores in them too", "use `tinyyolo val save_txt=true` afterwards"),
    "save_crop": key("p", SWITCH, "each detection as an image"),
    "show_labels": key("p", SWITCH, "class names in pictures"),
    "show_conf": key("p", SWITCH, "scores in pictures"),
    "show_boxes": key("p", SWITCH, "boxes in pictures"),
    "line_width": key("p", Number(1, whole=True, none=True), "of boxes in px"),
    # ---- export
    "format": key("e", TEXT, "torchscript"),
    "optimize": key("", SWITCH, "of one chip's compiler", OTHER_FORMAT),
    "dynamic": key("", SWITCH, "any image size", "an export has the size of imgsz="),
    "simplify": key("", SWITCH, "of ONNX", OTHER_FORMAT),
    "opset": key("", EPOCHS, "of ONNX", OTHER_FORMAT),
    "workspace": key("", Number(0), "of TensorRT", OTHER_FORMAT),
    "keras": key("", SWITCH, "of TensorFlow", OTHER_FORMAT),
    # ---- tinyyolo's own
    "lr_steps": key("t", STEPS, "epochs at which the learning rate falls by ten"),
    "lr_batch": key("t", Number(1, none=True), "lr0 is for this batch size and grows with `batch`"),
    "warmup_iters": key("t", Number(0, whole=True, none=True), "iterations of linear warm-up, instead of epochs"),
    "warmup_factor": key("t", FACTOR, "its first learning rate as a share"),
    "clip_grad": key("t", Number(0, none=True), "largest gradient norm; null: no clipping"),
    "ema": key("t", SWITCH, "validate and save the moving average of the weights"),
    "decay_all": key("t", SWITCH, "weight decay on norms and biases too; plain SGD"),
    "skip_empty": key("t", SWITCH, "leave images without objects out"),
    "min_side": key("t", Number(0), "leave objects with a side under so many px out"),
    "paste": key("t", COUNT, "copies of other training objects an image, at most"),
}


def check_keys(mode: str, given: Mapping[str, Any], where: str = "") -> None:
    """Raise UserError for keys that do not exist or do nothing in `mode`, and for values of the wrong kind."""
    found = [problem for name, value in given.items() if (problem := fault_of(mode, name, value))]
    if found:
        raise UserError(where + "; ".join(found))


def fault_of(mode: str, name: str, value: Any) -> str:
    """What is wrong with `name=value` in `mode`, or ''."""
    if name not in KEYS:
        return f"{name}: unknown argument; {nearest(name)}"
    row, said = KEYS[name], f"{name}={shown(value)}: "
    if instead := row.refusal(mode):
        nothing = value is None or value in row.off
        return "" if nothing else f"{said}{mode} does not take it: {instead}"
    optional = name in DEFAULT_CFG_DICT and DEFAULT_CFG_DICT[name] is None
    return "" if row.kind(value) or (value is None and optional) else said + row.kind.refusal(value)


def nearest(name: str) -> str:
    """A suggestion without the full list of some 120 keys."""
    text = suggest(name, KEYS)
    return text.split(" Choices")[0] if text.startswith("did you mean") else "see docs/keys.md"


def markdown() -> str:
    """The content of docs/keys.md."""
    lines = [
        "# Keys",
        "",
        "Every key of `tinyyolo train | val | predict | export` and of `Model.train`, `.val`, `.predict`, `.export`:",
        "ultralytics' own and those of [cfg/default.yaml](../cfg/default.yaml). Where a key does nothing it is refused",
        "in one line, which says what to use. Dotted keys (`head.assigner.topk=3`) change the model's YAML.",
        "This file is written by `python -m tinyyolo.engine.keys docs/keys.md`.",
        "",
        "| key | " + " | ".join(MODES.values()) + " | value | what it does | where it is refused: what to use |",
        "|---|" + "---|" * (len(MODES) + 3),
    ]
    for name, row in KEYS.items():
        marks = ["yes" if letter in row.modes else "-" for letter in MODES]
        instead = row.refusal(next((m for letter, m in MODES.items() if letter not in row.modes), "train"))
        lines.append(f"| `{name}` | {' | '.join(marks)} | {row.kind.words} | {row.text} | {instead} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")
