"""The table of keys: what each of ultralytics' keys and of ours does in each mode, or what to use instead.

docs/keys.md is written from it: `python -m tinyyolo.engine.keys docs/keys.md`.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ultralytics.utils import DEFAULT_CFG_DICT

from tinyyolo.config import ROOTS, UserError, load_yaml, parse_value, shown, suggest
from tinyyolo.engine.track.association import ASSOCIATIONS
from tinyyolo.scenes.rendering import BANDS_WORDS, STRETCH_WORDS, is_bands, is_stretch

MODES = {"t": "train", "v": "val", "p": "predict", "k": "track", "e": "export"}
LETTERS = {mode: letter for letter, mode in MODES.items()}
NOT_OF_TRACKS = ("shard", "engine", "actors", "embed", "save_geojson")  # keys of predict that track has not
DEFAULTS = load_yaml(next(file for root in ROOTS if (file := root / "cfg/default.yaml").is_file()))
OWN = {key: value for key, value in DEFAULTS.items() if key not in DEFAULT_CFG_DICT}  # those of ours alone


class Kind(NamedTuple):
    """A set of values.

    Attributes:
        words: what a message says of it.
        holds: whether a value is one of it.
        choices: all of them, where there are few.
        typed: it holds text as it is typed: `name=0123` and `name=2024-11-25` are no numbers and no dates.
    """

    words: str
    holds: Callable[[Any], bool]
    choices: tuple[str, ...] = ()
    typed: bool = False


def number(low: float, high: float = math.inf, whole: bool = False) -> Kind:
    """Finite numbers from `low` to `high`.

    Examples:
        >>> number(0, 1).words, number(0, 1).holds(0.5), number(0).holds("fast"), number(1, whole=True).holds(True)
        ('a number from 0 to 1', True, False, False)
    """
    kind = int if whole else (int, float)
    words = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
    return Kind(
        f"a {'whole ' * whole}number {words}",
        lambda v: isinstance(v, kind) and not isinstance(v, bool) and math.isfinite(v) and low <= v <= high,
    )


def one_of(*choices: Any) -> Kind:
    """Some values; words in any case; 1 is not true."""
    names = tuple(map(shown, choices))
    known = {(type(one), name.lower()) for one, name in zip(choices, names, strict=True)}
    words = ("one of " if len(names) > 1 else "") + ", ".join(names)
    return Kind(words, lambda v: (type(v), str(v).lower()) in known, names)


def is_list(value: Any, holds: Callable[[Any], bool], *lengths: int) -> bool:
    """Whether `value` is a list of such values, of one of these lengths if there are any."""
    return isinstance(value, (list, tuple)) and all(map(holds, value)) and (not lengths or len(value) in lengths)


def is_text(value: Any) -> bool:
    """Whether a value is a string."""
    return isinstance(value, str)


def share_of(shard: str) -> tuple[int, int] | None:
    """i and n of a shard's i/n, i from 1 to n; None if it is none.

    Examples:
        >>> share_of("1/2"), share_of("2/2"), share_of("0/2"), share_of("1")
        ((1, 2), (2, 2), None, None)
    """
    if not (found := re.fullmatch(r"(\d{1,6})/(\d{1,6})", shard)):
        return None
    i, n = map(int, found.groups())
    return (i, n) if 1 <= i <= n else None


ANY = Kind("", lambda v: True)
SWITCH = Kind("true or false", lambda v: isinstance(v, bool))
LAYOUT = Kind("true or false", lambda v: isinstance(v, bool))  # false asks for something, too
TEXT = Kind("text", lambda v: not isinstance(v, (bool, int, float, list, tuple, dict)) and v != "", typed=True)
SOURCE = Kind("", lambda v: True, typed=True)
COUNT, ONE_UP, INTEGER = (number(low, whole=True) for low in (0, 1, -math.inf))
SIDE = number(32, 32768, whole=True)  # px; a network input of more would ask for more memory than machines have
POSITIVE, FACTOR = number(0), number(0, 1)
IMGSZ = Kind(
    "a whole number from 32 to 32768, or [height, width]", lambda v: SIDE.holds(v) or is_list(v, SIDE.holds, 1, 2)
)
BATCH = Kind(
    "images per step (1 or more), -1 or a share of GPU memory",
    lambda v: number(-1).holds(v) and (v == -1 or 0 < v < 1 or ONE_UP.holds(v)),
)
# YAML reads off as false.
TILE = Kind("auto, off, or px (32 to 32768)", lambda v: v in ("auto", "off", False) or SIDE.holds(v))
ZOOM = Kind("a number from .05 to 20", number(0.05, 20).holds)
OVERLAP = Kind("px (1 or more), or a share of the window, 0 to below 1", lambda v: FACTOR.holds(v) or ONE_UP.holds(v))
BANDS, STRETCH = Kind(BANDS_WORDS, is_bands), Kind(STRETCH_WORDS, is_stretch)
SCORE = Kind(
    "auto, a number from 0 to 1, or scores by class in quotes such as '{ship: 0.1, car: 0.3}'",
    lambda v: (
        v == "auto" or FACTOR.holds(v) or (isinstance(v, Mapping) and bool(v) and is_list([*v.values()], FACTOR.holds))
    ),
)
SHARD = Kind("i/n, such as 1/2 and 2/2", lambda v: isinstance(v, str) and share_of(v) is not None, typed=True)
FILE = Kind("", lambda v: isinstance(v, (str, Path)) and v != "")
OUT = Kind("a file or a list of files", lambda v: FILE.holds(v) or (bool(v) and is_list(v, FILE.holds)), typed=True)
CLASS = Kind("a class", lambda v: isinstance(v, str) or COUNT.holds(v))
CLASSES = Kind("classes such as ship, 0 or [ship,2]", lambda v: CLASS.holds(v) or is_list(v, CLASS.holds))
SCALE = Kind("a number from 0 to 1, or [least, most]", lambda v: FACTOR.holds(v) or is_list(v, POSITIVE.holds, 2))
SHARE = Kind("a share from 0 to 1, or a number of images", lambda v: v != 0 and (FACTOR.holds(v) or ONE_UP.holds(v)))
FREEZE = Kind("how many parts, a list of their numbers, or of names such as [backbone]", CLASSES.holds)
INDEX = Kind("a list of whole numbers, such as [0]", lambda v: is_list(v, INTEGER.holds))
STEPS = Kind("a list of epochs, such as [8,11]", lambda v: is_list(v, ONE_UP.holds))
MINUTES = "min"
EVERY = Kind(
    f"a number of batches, or minutes such as 10{MINUTES}",
    lambda v: ONE_UP.holds(v) or (isinstance(v, str) and re.fullmatch(rf"0*[1-9]\d{{0,6}}{MINUTES}", v) is not None),
)
OPTIMIZER = one_of("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "MuSGD", "auto")
SELECT = BEST, LAST = "best", "last"  # the epoch that becomes best.pt
START = Kind("true, false or the path of a checkpoint", lambda v: isinstance(v, bool) or TEXT.holds(v), typed=True)
AUGMENTATIONS = Kind(
    "a list of albumentations transforms", lambda v: is_list(v, lambda one: not isinstance(one, (str, int, float)))
)
NOTHING: dict[Kind, tuple[Any, ...]] = {SWITCH: (False,), FACTOR: (0,)}  # what says nothing where nothing is to be said
NULLABLE = {
    "bands",
    "stretch",
    "nbs",
    "iou",
    "max_det",
    "lr_steps",
    "lr_batch",
    "shard",
    "engine",
    "actors",
    "warmup_iters",
    "clip_grad",
    "save_every",
    "out",
    "association",
}  # and ultralytics' with null

TRACED = "no export has such a setting"
OTHER_TASK = "no model here has such a part: every one finds upright boxes"


class Key(NamedTuple):
    """One key: first letters of the modes in which it works, its values, what it does, what to use elsewhere."""

    modes: str
    kind: Kind
    text: str
    instead: str = ""

    def refusal(self, mode: str) -> str:
        """What to use instead in `mode`, or '' where the key works."""
        takers = " and ".join(MODES[letter] for letter in self.modes)
        return "" if LETTERS[mode] in self.modes else self.instead or f"a key of {takers}"


KEYS: dict[str, Key] = {
    # ---- the run
    "task": Key("tvpe", one_of("detect"), "detect; there is no other"),
    "mode": Key("tvpe", one_of(*MODES.values()), "what the command says"),
    "model": Key("tvpe", TEXT, "a model YAML or its name, or a checkpoint; in Python `Model(...)` takes it"),
    "trust": Key(
        "vp",
        SWITCH,
        "run a .torchscript file of another process or maker: it is code; in Python `Model(..., trust=True)`",
        "val and predict run such files",
    ),
    "weights": Key(
        "tvpe",
        TEXT,
        "the authors' checkpoint for the YAML of model=, .pth or .safetensors; in Python `Model(...).load(path)`",
    ),
    "cfg": Key("tvpe", TEXT, "a YAML of keys; what stands on the command line wins over it"),
    "data": Key("tve", TEXT, "a data YAML or its name; export: with int8=true", "a model knows its own classes"),
    "source": Key("p", SOURCE, "an image, a folder, a glob, a video, a txt list, several as [a.tif, b.tif], an array"),
    "tile": Key("tvp", TILE, "auto cuts images over 1.5 times imgsz into windows of imgsz px; N px; off shrinks them"),
    "overlap": Key("tvp", OVERLAP, "what neighbouring windows share"),
    "zoom": Key("tvp", ZOOM, "factor by which images that are cut are resampled; 2 shows objects at twice their size"),
    "bands": Key(
        "tvp",
        BANDS,
        "which bands of the files are red, green and blue; null: as declared; a model keeps those of its training",
        "the checkpoint's go into the file",
    ),
    "stretch": Key(
        "tvp",
        STRETCH,
        "what becomes 0 and 255; null: [2%,98%] of each file, 8 and full 16 bits as they are; kept as bands are",
        "the checkpoint's goes into the file",
    ),
    "shard": Key("p", SHARD, "look at the i-th of n shares of the images alone; `tinyyolo merge` joins them"),
    "engine": Key("p", one_of("ray"), "who looks at the tiles of scenes: null this process, ray the actors of Ray"),
    "actors": Key("p", ONE_UP, "with engine=ray: how many; null: as many as the CPUs or GPUs hold"),
    "save_geojson": Key("p", SWITCH, "boxes of each image as polygons, on the map where it has a place there"),
    "out": Key(
        "p",
        OUT,
        "one map of all images, or several: NAME.geojson, .gpkg, .fgb, .parquet or .csv; track: NAME.txt, MOT text, or"
        " NAME.json, rows",
    ),
    "imgsz": Key(
        "tvpe",
        IMGSZ,
        "longer side of the network input in px; predict, export and val of an export also take [height, width]",
    ),
    "device": Key(
        "tvp",
        ANY,
        "cpu, 0, mps; train also 0,1: a process a GPU, see docs/distributed.md",
        "an export is traced on the CPU and runs on any device",
    ),
    "project": Key("tvp", TEXT, "folder of the runs", "an export stands beside its checkpoint"),
    "name": Key("tvp", TEXT, "the run's folder in it", "an export stands beside its checkpoint"),
    "save_dir": Key("tvp", TEXT, "the run's folder itself", "an export stands beside its checkpoint"),
    "exist_ok": Key("tvp", SWITCH, "write into a run folder that exists"),
    "verbose": Key("tvp", SWITCH, "say more: the model's size, every class, every image"),
    "batch": Key(
        "tvp",
        BATCH,
        "images at a time, of all processes together; in training also -1 or a share of GPU memory",
        "an export takes any",
    ),
    "workers": Key("tv", COUNT, "processes that load images; 0 on a CPU"),
    "classes": Key("tvp", CLASSES, "only these classes, by name or index", "predict and val take classes="),
    "single_cls": Key("tv", SWITCH, "take every object for one class", "use agnostic_nms=true"),
    "plots": Key("tv", SWITCH, "draw curves and pictures", "save=true draws"),
    # ---- training
    "epochs": Key("t", ONE_UP, "passes over the training images"),
    "time": Key("t", POSITIVE, "hours to train, instead of epochs"),
    "patience": Key("t", COUNT, "stop after so many epochs without a better AP; 0: never"),
    "save": Key("tp", SWITCH, "train: a checkpoint every epoch, not only the last; predict: draw", "plots=true draws"),
    "save_period": Key("t", number(-1, whole=True), "keep a checkpoint of its own every so many epochs"),
    "save_every": Key("t", EVERY, "save inside an epoch too, every so many batches or minutes; resuming goes on there"),
    "cache": Key("t", one_of(True, False, "ram"), "keep decoded images in memory"),
    "pretrained": Key(
        "t",
        START,
        "true: a model YAML starts from the weights that come along for its size, if any, see docs/weights.md; false:"
        " from scratch; a path: from a checkpoint, or another network's state dict, as far as it fits",
        "model= is the checkpoint",
    ),
    "optimizer": Key("t", OPTIMIZER, "MuSGD, SGD, AdamW, ..."),
    "seed": Key("t", COUNT, "of weights, order and augmentation"),
    "deterministic": Key(
        "t",
        SWITCH,
        "only operations that give the same twice; gradients of RoIAlign and deformable convolutions have no such form"
        " on a GPU, where two-stage trainings repeat nearly, not to the bit",
    ),
    "rect": Key("tvp", SWITCH, "batches of one aspect ratio, less padding; val and predict: true"),
    "cos_lr": Key("t", SWITCH, "learning rate along a cosine"),
    "close_mosaic": Key("t", COUNT, "last epochs without mosaic"),
    "resume": Key("t", START, "go on with a run that was cut off: its last.pt, or true for the loaded one"),
    "amp": Key("t", one_of(True, False, "fp16", "bf16", "fp32"), "mixed precision on a GPU"),
    "fraction": Key("te", SHARE, "share of the training images to use, or how many; export: with int8=true, else 100"),
    "freeze": Key("t", FREEZE, "parts that do not learn: the first so many, a list of their numbers or of names"),
    "multi_scale": Key("t", FACTOR, "vary the image size by this share"),
    "channels_last": Key("t", LAYOUT, "memory layout on a GPU", "evaluation on a CPU is always channels-last"),
    "val": Key("t", SWITCH, "validate after every epoch, not only the last"),
    "lr0": Key("t", POSITIVE, "first learning rate"),
    "lrf": Key("t", FACTOR, "last learning rate as a share of the first"),
    "momentum": Key("t", FACTOR, "of SGD; beta 1 of Adam"),
    "weight_decay": Key("t", FACTOR, "L2 penalty"),
    "warmup_epochs": Key("t", POSITIVE, "epochs of warm-up"),
    "warmup_momentum": Key("t", FACTOR, "momentum at the start of it"),
    "warmup_bias_lr": Key("t", FACTOR, "learning rate of biases at the start of it"),
    "nbs": Key("t", ONE_UP, "images an optimiser step; null: one step a batch"),
    "box": Key("t", POSITIVE, "weight of the box loss: the model's `head.gains.box`"),
    "cls": Key("t", POSITIVE, "weight of the class loss: the model's `head.gains.cls`"),
    "cls_pw": Key("t", FACTOR, "weigh rare classes more (anchor YOLO): 1 / objects to this power"),
    # ---- augmentation
    "hsv_h": Key("t", FACTOR, "vary the hue by this share"),
    "hsv_s": Key("t", FACTOR, "vary the saturation"),
    "hsv_v": Key("t", FACTOR, "vary the brightness"),
    "degrees": Key("t", number(-360, 360), "rotate by up to so many degrees"),
    "translate": Key("t", FACTOR, "shift by up to this share"),
    "scale": Key("t", SCALE, "scale by 1 - this to 1 + this, or from the first to the second"),
    "shear": Key("t", number(-180, 180), "shear by up to so many degrees"),
    "perspective": Key("t", FACTOR, "perspective, 0 to .001"),
    "flipud": Key("t", FACTOR, "chance to flip upside down"),
    "fliplr": Key("t", FACTOR, "chance to flip left and right"),
    "bgr": Key("t", FACTOR, "chance to swap red and blue"),
    "mosaic": Key("t", FACTOR, "chance of four images in one"),
    "mixup": Key("t", FACTOR, "chance of two images blended"),
    "cutmix": Key("t", FACTOR, "chance of a piece of another image"),
    "augmentations": Key("t", AUGMENTATIONS, "a list of albumentations transforms, in Python; none unless given"),
    # ---- validation
    "split": Key("tve", TEXT, "the split to validate on; export: with int8=true"),
    "save_json": Key("tvp", SWITCH, "write predictions.json; val always does"),
    "conf": Key(
        "tvp",
        SCORE,
        "least score. predict: auto, for each class that at which LRP was least in validation, or .25 if the model has"
        " none; {ship: .1} leaves the others at auto. train and val: a number, by default the model's, or .001",
    ),
    "iou": Key("tvp", FACTOR, "NMS takes boxes above it for one; the model's, or .5"),
    "max_det": Key("tvp", ONE_UP, "detections an image; the model's, or 3000"),
    "agnostic_nms": Key("tvp", SWITCH, "NMS across classes"),
    # ---- prediction
    "vid_stride": Key("p", ONE_UP, "every so many frames of a video"),
    "stream_buffer": Key("p", SWITCH, "of a stream: every frame, not the latest"),
    "embed": Key("p", INDEX, "in Python: a vector an image from these maps of the neck; `Model.embed` takes all"),
    "show": Key("p", SWITCH, "open a window"),
    "save_frames": Key("p", SWITCH, "every frame of a video as an image"),
    "save_txt": Key("vp", SWITCH, "detections as YOLO txt", "use `tinyyolo val save_txt=true` afterwards"),
    "save_conf": Key("vp", SWITCH, "scores in them too", "use `tinyyolo val save_txt=true` afterwards"),
    "save_crop": Key("p", SWITCH, "each detection as an image"),
    "show_labels": Key("p", SWITCH, "class names in pictures"),
    "show_conf": Key("p", SWITCH, "scores in pictures"),
    "show_boxes": Key("p", SWITCH, "boxes in pictures"),
    "line_width": Key("p", ONE_UP, "of boxes in px"),
    # ---- tracks
    "tracker": Key("k", TEXT, "bytetrack.yaml, botsort.yaml, or a YAML of your own with their keys, see docs/track.md"),
    "association": Key(
        "k",
        one_of(*ASSOCIATIONS),
        "by what a detection continues a track; null: what the YAML of tracker= says",
    ),
    "persist": Key("k", SWITCH, "go on with the same tracks when another video begins, in Python with another call"),
    # ---- export
    "format": Key(
        "e",
        TEXT,
        "onnx, which many programs run, and openvino, at any size; torchscript, which torch runs, at one size;"
        " safetensors, weights without code",
    ),
    "nms": Key(
        "e",
        SWITCH,
        "of onnx and openvino: the file suppresses and gives detections (true), or gives candidates alone",
        "suppression is never part of the network; iou=, max_det= and agnostic_nms= set it",
    ),
    "half": Key(
        "vpe",
        SWITCH,
        "maps of 16 bits, in an onnx file weights too, in openvino these alone; boxes and suppression stay at 32",
        "amp= trains in mixed precision",
    ),
    "int8": Key(
        "e",
        SWITCH,
        "of onnx: weights and maps of 8 bits, by the images of data=; boxes and suppression stay at 32",
        "tiny boxes need float32; amp= trains in mixed precision",
    ),
    # ---- tinyyolo's own
    "lr_steps": Key("t", STEPS, "epochs at which the learning rate falls by ten"),
    "lr_batch": Key("t", number(1), "lr0 is for this batch size and grows with `batch`"),
    "warmup_iters": Key("t", COUNT, "iterations of linear warm-up, instead of epochs"),
    "warmup_factor": Key("t", FACTOR, "its first learning rate as a share"),
    "warmup_constant": Key("t", SWITCH, "keep that share through the warm-up instead of rising from it"),
    "clip_grad": Key("t", POSITIVE, "largest gradient norm; null: no clipping"),
    "ema": Key("t", SWITCH, "validate and save the moving average of the weights"),
    "decay_all": Key("t", SWITCH, "weight decay on norms and biases too; plain SGD"),
    "bias_lr": Key("t", POSITIVE, "learning rate of biases, norms' aside, as a multiple of lr0; for decay_all"),
    "bias_decay": Key("t", SWITCH, "weight decay on these biases; for decay_all"),
    "skip_empty": Key("t", SWITCH, "leave images without objects out"),
    "min_side": Key("t", POSITIVE, "leave objects with a side under so many px out"),
    "empty_tiles": Key("t", POSITIVE, "windows without objects to learn from, as a share of those with objects"),
    "select": Key("t", one_of(*SELECT), "the epoch that becomes best.pt: the best, by AP in validation, or the last"),
    "sync_bn": Key("t", SWITCH, "several processes: statistics of batch norms over the images of all, not of each"),
    "paste": Key("t", COUNT, "copies of other training objects an image, at most"),
}
# Keys that work nowhere: what to use instead, their kind where a value of it says nothing, and their names.
REFUSED = (
    (OTHER_TASK, ANY, "pose kobj rle angle dlog dgrad dlam mask_ratio"),
    (OTHER_TASK, SWITCH, "overlap_mask retina_masks"),
    ("weights go over by tensor name and shape", SWITCH, "cls_remap"),
    ("the loss is not made for it; use amp=, workers= or a smaller model", ANY, "compile"),
    ("see benchmarks/latency.py", SWITCH, "profile"),
    ("no such loss here; use box=, or head.box_loss.NAME=", ANY, "dfl"),
    ("no layer here drops out; use weight_decay=", FACTOR, "dropout"),
    ("no distillation; start from a checkpoint: model=best.pt", ANY, "distill_model dis"),
    ("boxes have no masks; use paste=", FACTOR, "copy_paste"),
    ("boxes have no masks; use paste=", ANY, "copy_paste_mode"),
    ("use hsv_h=, scale=, mosaic=, paste=", ANY, "auto_augment"),
    ("use cutmix=", FACTOR, "erasing"),
    ("training and prediction are in float32, or mixed precision by amp=", ANY, "quantize"),
    ("suppression is never part of the network; iou=, max_det= and agnostic_nms= set it", SWITCH, "end2end"),
    ("use a larger imgsz=", SWITCH, "augment"),
    ("plots=true of val and `tinyyolo report` show what went wrong", SWITCH, "visualize"),
    ("a .torchscript export runs by torch", SWITCH, "dnn"),
    ("an ONNX file takes any size and batch, a .torchscript file that of imgsz=", SWITCH, "dynamic"),
    (TRACED, SWITCH, "optimize simplify keras"),
    (TRACED, ANY, "opset workspace"),
)
KEYS |= {name: Key("", kind, "", instead) for instead, kind, names in REFUSED for name in names.split()}
KEYS = {  # a tracker predicts first
    name: row._replace(modes=f"{row.modes}k") if "p" in row.modes and name not in NOT_OF_TRACKS else row
    for name, row in KEYS.items()
}
AS_TYPED = frozenset(name for name, row in KEYS.items() if row.kind.typed)


def parsed(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Keys with their strings read as YAML, but for those of text, whose numbers are text too; see `Kind.typed`.

    Examples:
        >>> parsed({"lr0": "1e-3", "name": "0123", "project": 2024, "resume": "true", "data": "null"})
        {'lr0': 0.001, 'name': '0123', 'project': '2024', 'resume': True, 'data': None}
        >>> parsed({"source": "[a.png, b.png]"}), parsed({"source": "[ab]*.png"}) # a list, a glob
        ({'source': ['a.png', 'b.png']}, {'source': '[ab]*.png'})
    """
    return {key: as_typed(key, value) if key in AS_TYPED else parse_value(value) for key, value in keys.items()}


def as_typed(key: str, value: Any) -> Any:
    """The value of a key of text: null, true and false are these where the key knows them."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and KEYS[key].kind is not SOURCE:
        return str(value)
    read = parse_value(value) if value != "" and isinstance(value, str) else value
    if isinstance(read, list) and KEYS[key].kind is SOURCE and len(read) > 1 and all(map(is_text, read)):
        return read
    return read if read is None or (isinstance(read, bool) and KEYS[key].kind is START) else value


def check_keys(mode: str, given: Mapping[str, Any], where: str = "") -> None:
    """Check that keys exist and do something in `mode`, and that their values are of the right kind.

    Raises:
        UserError: names every key, its value, and what it can be or what to use instead.
    """
    found = [fault for name, value in given.items() if (fault := fault_of(mode, name, value))]
    if found:
        raise UserError(where + "; ".join(found))


def fault_of(mode: str, name: str, value: Any) -> str:
    """What is wrong with `name=value` in `mode`, or ''."""
    if name not in KEYS:
        near = suggest(name, KEYS).partition(" Choices")[0]  # without some 120 keys
        return f"{name}: unknown argument; {near if near.startswith('did you mean') else 'see docs/keys.md'}"
    row, said = KEYS[name], f"{name}={shown(value)}: "
    if instead := row.refusal(mode):
        nothing = value is None or value in NOTHING.get(row.kind, ())
        return "" if nothing else f"{said}{mode} does not take it: {instead}"
    if row.kind.holds(value) or (value is None and (name in NULLABLE or DEFAULT_CFG_DICT.get(name, 0) is None)):
        return ""
    return said + (f"unknown; {suggest(value, row.kind.choices)}" if row.kind.choices else f"expected {row.kind.words}")


def describe(name: str, others: Collection[str] = ()) -> str:
    """What `tinyyolo help KEY` prints: where the key works, its values and default, what it does, what to use instead.

    Args:
        name: the key; a model YAML's, with dots, stands in the YAML itself.
        others: words that might be meant, too.

    Raises:
        UserError: there is no such key; names the nearest.

    Examples:
        >>> print(describe("lrf"))
        lrf=0.01: last learning rate as a share of the first
          of train; a number from 0 to 1
    """
    if name not in KEYS:
        near = suggest(name, [*KEYS, *others]).partition(" Choices")[0]
        raise UserError(f"{name!r}: no command and no key; {near if near.startswith('did') else 'see docs/keys.md'}")
    row = KEYS[name]
    modes = [mode for letter, mode in MODES.items() if letter in row.modes]
    instead = instead_of(row)
    if not modes:
        return f"{name}: not taken; {instead}"
    lines = [
        f"{name}={shown(default_of(name))}: {row.text}",
        "; ".join(filter(None, [f"  of {', '.join(modes)}", row.kind.words])),
    ]
    if instead:
        lines.append(f"  elsewhere: {instead}")
    return "\n".join(lines)


def default_of(name: str) -> Any:
    """A key's value where it is not given."""
    return {**DEFAULT_CFG_DICT, **DEFAULTS}.get(name)


def instead_of(row: Key) -> str:
    """What the first of the modes that refuse a key says to use; "" if it says but which modes take it, or all do."""
    instead = next(filter(None, map(row.refusal, MODES.values())), "")
    return "" if instead.startswith("a key of") else instead


def markdown() -> str:
    """The content of docs/keys.md."""
    lines = [
        "# Keys",
        "",
        "Every key of `tinyyolo train | val | predict | track | export` and of the methods of `Model` of these names:",
        "ultralytics' own and those of [cfg/default.yaml](../cfg/default.yaml). Where a key does nothing it is refused",
        "in one line, which says what to use. Dotted keys (`head.assigner.topk=3`) change the model's YAML.",
        "This file is written by `python -m tinyyolo.engine.keys docs/keys.md`.",
        "",
        "| key | of | value | default | what it does | elsewhere |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in KEYS.items():
        if row.modes:
            modes = ", ".join(mode for letter, mode in MODES.items() if letter in row.modes)
            modes = "all" if set(row.modes) == set(MODES) else modes
            cells = (f"`{name}`", modes, row.kind.words, f"`{shown(default_of(name))}`", row.text, instead_of(row))
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Keys of ultralytics that are not taken", "", "| key | what to use |", "|---|---|"]
    lines += [f"| `{name}` | {instead_of(row)} |" for name, row in KEYS.items() if not row.modes]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")
