"""What a trainer needs before it starts: the data, looked at, and the model, built for them, with its frozen parts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn
from ultralytics.cfg import get_cfg
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER, colorstr
from ultralytics.utils.torch_utils import init_seeds, unwrap_model

from tinyyolo import ranks, together
from tinyyolo.compat import own_args_yaml, own_ranks
from tinyyolo.config import UserError, shown, yaml_names
from tinyyolo.datasets import spec as data_yaml
from tinyyolo.datasets.spec import DataSpec
from tinyyolo.datasets.train.dataset import TinyDataset, must_have_objects
from tinyyolo.datasets.train.drawn import DrawnDataset
from tinyyolo.detectors.auto import coverage, describe, is_auto, object_boxes, object_sizes, settle, uses_simd
from tinyyolo.detectors.base import Detector
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.postprocess import class_indices
from tinyyolo.detectors.transfer import Start, carry_over
from tinyyolo.engine import checkpoint
from tinyyolo.engine.arguments import resolve
from tinyyolo.engine.keys import OWN
from tinyyolo.engine.many.devices import own_device
from tinyyolo.engine.predict.scenes import stride_of
from tinyyolo.heads import HEADS
from tinyyolo.io import new_file, tell
from tinyyolo.layers.synced_norm import sync
from tinyyolo.scenes.rendering import Rendering
from tinyyolo.scenes.tiling import Tiling
from tinyyolo.sizes import ENGINE_STRIDE

HEADS_OF = {"head": "bbox_head", "rpn": "rpn_head", "roi": "roi_head"}  # section of a model's YAML -> its module
NOT_TOLD = {"mode", "save_dir", "resume"}  # of the keys of a run, as they stand elsewhere
GAINS = ("box", "cls")  # keys that set the gains of a model's YAML


def data_of(args: dict[str, Any]) -> DataSpec:
    """The data YAML that a run's arguments name, whose path then stands in them."""
    if args["data"] is None:
        names = ", ".join(yaml_names("data"))
        raise UserError(f"data= is missing; a data YAML, its path or its name. Choices: {names}")
    data = data_yaml.load(args["data"])
    args["data"] = str(data.file)
    return data


def data_dict(name: str | DataSpec) -> dict[str, Any]:
    """What the engine wants to know of a data YAML; `spec` is what our datasets use.

    Raises:
        UserError: no such YAML, or a fault in it.
    """
    spec = data_yaml.load(name)
    return {
        **{split: split for split in spec.splits},
        "val": looked_at(spec),
        "names": spec.names,
        "nc": len(spec.names),
        "channels": 3,
        "path": spec.path,
        "yaml_file": str(spec.file),
        "spec": spec,
    }


def read_once(spec: DataSpec, splits: Sequence[str]) -> None:
    """Read the annotations of these splits into `spec`, in the first process of a node for all of them.

    Raises:
        UserError: see `DataSpec.measured`.
    """

    def read() -> tuple[Any, Any]:
        for split in splits:
            spec.measured(split)
        return spec.parsed, spec.seen

    parsed, seen = together.once_per_node(read)
    spec.parsed.update(parsed)
    spec.seen.update(seen)


def looked_at(spec: DataSpec) -> str:
    """The split that validation takes for val: test where there is none, else the first; told."""
    found = next((split for split in ("val", "test") if split in spec.splits), next(iter(spec.splits)))
    if found != "val":
        tell(f"{spec.file}: no split val: validation looks at {found}")
    return found


def split_dataset(
    data: Mapping[str, Any], split: str, args: Any, mode: str, batch: int | None, **options: Any
) -> TinyDataset:
    """The dataset of a split under a run's arguments, unpadded: an 800 px image is looked at at 800 px.

    Args:
        data: from `data_dict`.
        split: its name.
        args: the run's.
        mode: train or val, for the messages.
        batch: images at a time.
        options: of `TinyDataset`.

    Raises:
        UserError: no such split, or not one readable image.
    """
    own = {"imgsz": args.imgsz, "hyp": args, "single_cls": args.single_cls, "stride": ENGINE_STRIDE, "pad": 0.0}
    own["rendering"] = Rendering.of(vars(args))
    kind = DrawnDataset if mode == "train" and data["spec"].fresh(split) else TinyDataset
    return kind(data["spec"], split, batch_size=batch, prefix=colorstr(f"{mode}: "), **own, **options)


def with_gains(spec: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """A copy of a model YAML with the loss gains `box` and `cls` of `given`, and what these two then are, if anything.

    Raises:
        UserError: the head of this model weighs no losses.

    Examples:
        >>> with_gains({"head": {"type": "yolo", "gains": {"box": 7.5, "cls": 1.0}}}, {"box": 5, "lr0": 0.1})
        ({'head': {'type': 'yolo', 'gains': {'box': 5, 'cls': 1.0}}}, {'box': 5, 'cls': 1.0})
    """
    gains = {key: given[key] for key in GAINS if given.get(key) is not None}
    head = spec.get("head") or {}
    kind = HEADS.get(str(head.get("type")))
    if gains and (kind is None or "gains" not in inspect.signature(kind).parameters):
        name, value = next(iter(gains.items()))
        raise UserError(f"{name}={value}: this model's losses have no gains, as published; only the anchor YOLO's do")
    own = {**(head.get("gains") or {}), **gains}
    spec = {**spec, "head": {**head, "gains": own}} if gains else dict(spec)
    return spec, {key: own[key] for key in GAINS if isinstance(own.get(key), (int, float))}


def parts(model: Detector) -> list[list[str]]:
    """What `freeze=n` counts, in data-flow order: the stages of the backbone, then the neck, then each head.

    Returns:
        Names of modules; a norm belongs to the layer before it.
    """
    out: list[list[str]] = []
    for name, module in stages("backbone", model.backbone):
        if isinstance(module, nn.BatchNorm2d) and out:
            out[-1].append(name)
        elif any(True for _ in module.parameters()):
            out.append([name])
    return out + [[name] for name, _ in model.named_children() if name != "backbone"]


def stages(prefix: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Children of a module, and of its lists, with their names."""
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield from stages(f"{prefix}.{name}", child)
        else:
            yield f"{prefix}.{name}", child


def freeze(model: Detector, given: int | str | Sequence[int | str] | None) -> list[str]:
    """Set `requires_grad` of the parameters that `freeze=` names to False.

    Args:
        model: the detector.
        given: how many of `parts`, or a list of their numbers, or names: sections of the YAML (backbone, neck, head,
            rpn, roi) or modules such as "backbone.stages.0".

    Returns:
        The names of the frozen modules; empty for none.

    Raises:
        UserError: a number or name that there is not, or nothing left to train.
    """
    if given is None:
        return []
    every = parts(model)
    listed = ", ".join(f"{i} {part[0]}" for i, part in enumerate(every))
    wanted = range(given) if isinstance(given, int) else [given] if isinstance(given, str) else given
    names: list[str] = []
    for one in wanted:
        found = every[one] if isinstance(one, int) and one < len(every) else [HEADS_OF.get(str(one), str(one))]
        if not any(under(name, found) for name, _ in model.named_parameters()):
            raise UserError(f"freeze={given}: no part {one!r}; there are {listed}")
        names += found
    for name, parameter in model.named_parameters():
        if under(name, names):
            parameter.requires_grad = False
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"freeze={given}: nothing would be left to train; there are {listed}")
    return names


def under(name: str, modules: Sequence[str]) -> bool:
    """Whether a parameter or module is one of these modules or inside one.

    Examples:
        >>> under("backbone.stages.1.conv", ["backbone.stages.1"]), under("backbone.stages.10", ["backbone.stages.1"])
        (True, False)
    """
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def changed(args: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a training that are not what they are when nothing is said, those of the model's recipe among them.

    Examples:
        >>> changed({**resolve("train", {}, {}), "epochs": 3, "data": "my.yaml"})
        {'data': 'my.yaml', 'epochs': 3}
    """
    usual = resolve("train", {}, {})
    return {key: value for key, value in args.items() if key not in NOT_TOLD and value not in ("", usual.get(key))}


class PreparedTrainer(DetectionTrainer):
    """A trainer whose data were looked at and whose model was built before anything is written.

    Args:
        overrides: all arguments, ours included.
        spec: the resolved model YAML.
        data: the data YAML.
        weights: to start from; what fits is taken.
        content: the checkpoint to resume from.

    Raises:
        UserError: data that are not there, or a model that cannot be built for them or has no part for an argument.
    """

    # Upstream sets these to None or a path first, which is all that their types know.
    model: Any
    ema: Any
    fitness: Any
    lf: Any
    loss: Any
    metrics: Any
    optimizer: Any
    scheduler: Any
    tloss: Any
    validator: Any

    def __init__(
        self,
        overrides: Mapping[str, Any],
        _callbacks: Any = None,
        *,
        spec: Mapping[str, Any],
        data: DataSpec,
        weights: Start | None = None,
        content: dict[str, Any] | None = None,
    ):
        given = dict(overrides)
        self.asked_device = given.get("device")  # of all processes
        given["device"] = own_device(self.asked_device)
        self.own = {key: given.pop(key, default) for key, default in OWN.items()}
        self.ckpt, self.data_spec = content, data
        self.detector: Detector | None = None  # the best one, when all is done
        self.args = get_cfg(overrides=given)
        self.data = self.get_dataset()
        init_seeds(self.args.seed)  # the same weights in all processes
        model = self.get_model(spec, weights, self.args.verbose)
        self.frozen = freeze(model, self.args.freeze)  # modules
        if self.own["sync_bn"]:
            sync(model)
            if ranks.size() == 1:
                LOGGER.info("sync_bn=true: one process, whose batch norms see all images of a batch as it is")
        if self.args.cls_pw and not hasattr(getattr(model, "bbox_head", None), "class_weights"):
            raise UserError(f"cls_pw={self.args.cls_pw}: only the anchor YOLO weighs its classes")
        older = Path(given.get("save_dir") or "", "results.csv")
        rows = older.read_bytes() if older.is_file() else b""
        with own_args_yaml(), own_ranks():
            super().__init__(overrides=given, _callbacks=_callbacks)
        self.args.plots &= ranks.first()
        if rows and not self.csv.exists():  # upstream deletes it before a start that may yet fail
            with new_file(self.csv, mode="wb") as file:
                file.write(rows)
        self.model = model
        vars(self.args).update(self.own)  # for args.yaml, checkpoints and worker processes
        own = " ".join(f"{key}={shown(value)}" for key, value in changed(vars(self.args)).items())
        LOGGER.info(f"{own}; all other keys are at their defaults, and in args.yaml")
        if self.frozen:
            count = sum(under(name, self.frozen) for name, _ in model.named_parameters())
            LOGGER.info(f"freeze={self.args.freeze}: {count} tensors do not learn: {', '.join(self.frozen)}")
        if given.get("workers") not in {None, DEFAULT_CFG_DICT["workers"], self.args.workers}:
            LOGGER.info(f"workers={given['workers']}: {self.args.workers} on a CPU, whose cores are all at work")

    def write_args(self) -> None:
        """Begin results.csv anew and write args.yaml, when everything stands that a start can fail at."""
        if not ranks.first():
            return
        if not self.resume:
            self.csv.unlink(missing_ok=True)
        with new_file(self.save_dir / "args.yaml", overwrite=True) as file:
            yaml.safe_dump(checkpoint.plain(vars(self.args)), file, sort_keys=False, allow_unicode=True)

    def get_dataset(self) -> dict[str, Any]:
        """The data YAML as a dict; its annotations are read, and remembered by it.

        Raises:
            UserError: files that are not there, no split to train or validate on, or a fault in the annotations.
        """
        if getattr(self, "data", None):
            return self.data
        data = data_dict(self.data_spec)
        if "train" not in data:
            raise UserError(f"{data['yaml_file']}: no split 'train' to train on")
        used = list(dict.fromkeys(["train", data.get(self.args.split, self.args.split)]))
        self.data_spec.must_exist(used)
        read_once(self.data_spec, used)
        must_have_objects(self.data_spec.read("train"))
        if self.args.single_cls:
            data.update(names={0: "item"}, nc=1)
        return data

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> TinyDataset:
        """The dataset of the split named `img_path`."""
        classes = class_indices(self.args.classes, self.data["spec"].names)
        tiling = Tiling.of({**vars(self.args), **self.own}, stride_of(SimpleNamespace(model=unwrap_model(self.model))))
        options: dict[str, Any] = {"cache": self.args.cache or None, "classes": classes, "tiling": tiling}
        options["corner"] = unwrap_model(self.model).pad_colour is not None
        if mode == "train":
            options |= {key: self.own[key] for key in ("skip_empty", "min_side", "empty_tiles")} | {
                "seed": self.args.seed
            }
            options |= {"augment": True, "rect": self.args.rect, "fraction": self.args.fraction}
        else:
            options |= {"augment": False, "rect": True}
        return split_dataset(self.data, img_path, self.args, mode, batch, **options)

    def get_model(  # type: ignore[override]  # upstream takes a module for weights; ours are tensors
        self, cfg: Mapping[str, Any], weights: Start | None = None, verbose: bool = True
    ) -> Detector:
        """A detector of the resolved YAML `cfg` for the data's classes, with what of `weights` fits."""
        if is_auto(cfg) or uses_simd(cfg):
            notes = self.data["spec"].read("train")
            objects = notes.labels >= 0
            owners = torch.from_numpy(self.seen_hw(notes.sizes_hw)[notes.image_index[objects]].copy())
            boxes, imgsz = torch.from_numpy(notes.boxes[objects].copy()), self.args.imgsz
            images = [((imgsz, imgsz), object_boxes(boxes, owners, imgsz))]
            sizes, auto = object_sizes(boxes, owners, imgsz), cfg
            cfg = together.from_first(lambda: settle(auto, sizes, images))
            for line in filter(None, (describe(cfg), coverage(cfg, images))):
                LOGGER.info(line)
        model = build_model(cfg, self.data["nc"])
        model.names = self.data["names"]
        if weights:
            LOGGER.info(f"Training {carry_over(model, weights)}")
        if verbose and ranks.first():
            model.info(imgsz=self.args.imgsz)
        return model

    def seen_hw(self, sizes_hw: np.ndarray) -> np.ndarray:
        """Sizes (I, 2) of images; of those that are cut the size that one of their scale would have."""
        tiling = Tiling.of({**vars(self.args), **self.own}, ENGINE_STRIDE)
        cut = np.array([tiling.cuts((h, w)) for h, w in sizes_hw.tolist()], bool)
        return np.where(cut[:, None], self.args.imgsz / tiling.zoom, sizes_hw) if cut.any() else sizes_hw

    def setup_model(self) -> dict[str, Any] | None:
        """The model stands already; returns the checkpoint to resume from."""
        return self.ckpt
