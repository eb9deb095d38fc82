"""What a trainer needs before it starts: the data, looked at, and the model, built for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from ultralytics.data import build_dataloader
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER, RANK, YAML, IterableSimpleNamespace, colorstr
from ultralytics.utils.torch_utils import init_seeds

from tinyyolo.compat import engine_args, get_cfg
from tinyyolo.config import UserError
from tinyyolo.datasets import spec as data_yaml
from tinyyolo.datasets.spec import DataSpec
from tinyyolo.datasets.train.dataset import TinyDataset
from tinyyolo.detectors.auto import describe, is_auto, object_sizes, settle
from tinyyolo.detectors.base import ENGINE_STRIDE, Detector
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.postprocess import class_indices
from tinyyolo.engine import checkpoint, recipe
from tinyyolo.engine.keys import OWN


def data_dict(name: str | DataSpec) -> dict[str, Any]:
    """What the engine wants to know of a data YAML; `spec` is what our datasets use.

    Raises:
        UserError: no such YAML, or a fault in it.
    """
    spec = data_yaml.load(name)
    return {
        **{split: split for split in spec.splits},
        "val": "val" if "val" in spec.splits else next(iter(spec.splits)),
        "names": spec.names,
        "nc": len(spec.names),
        "channels": 3,
        "path": spec.path,
        "yaml_file": str(spec.file),
        "spec": spec,
    }


class PreparedTrainer(DetectionTrainer):
    """A trainer whose data were looked at and whose model was built before anything is written.

    Args:
        cfg: ultralytics' configuration.
        overrides: all arguments, ours included.
        spec: the resolved model YAML.
        data: the data YAML.
        weights: a state dict to start from; what fits is taken.
        content: the checkpoint to resume from.

    Raises:
        UserError: data that are not there, or a model that cannot be built for them.
    """

    # Upstream sets these to None or a path first, which is all that their types know.
    model: Any
    ema: Any
    lf: Any
    metrics: Any
    optimizer: Any
    scheduler: Any
    validator: Any

    def __init__(
        self,
        cfg: Any = DEFAULT_CFG_DICT,
        overrides: dict[str, Any] | None = None,
        _callbacks: Any = None,
        *,
        spec: Mapping[str, Any],
        data: DataSpec,
        weights: Mapping[str, Tensor] | None = None,
        content: dict[str, Any] | None = None,
    ):
        overrides = dict(overrides or {})
        self.own = {key: overrides.pop(key, default) for key, default in OWN.items()}
        self.ckpt, self.data_spec = content, data
        self.frozen: list[str] = []  # modules that `freeze=` names
        self.detector: Detector | None = None  # the best one, when all is done
        cfg = engine_args(vars(cfg) if isinstance(cfg, IterableSimpleNamespace) else cfg, OWN)
        self.args = get_cfg(cfg, overrides)
        self.data = self.get_dataset()
        init_seeds(self.args.seed + 1 + RANK)
        detector = self.get_model(spec, weights, self.args.verbose)
        self.frozen = recipe.freeze(detector, self.args.freeze)
        super().__init__(cfg, overrides, _callbacks)
        self.model = detector
        vars(self.args).update(self.own)  # for args.yaml, checkpoints and worker processes
        if RANK in {-1, 0}:
            YAML.save(self.save_dir / "args.yaml", vars(self.args))
            self.say(overrides)

    def say(self, given: Mapping[str, Any]) -> None:
        """What became of `freeze=`, and of `workers=` on a CPU."""
        if self.frozen:
            count = sum(recipe.under(name, self.frozen) for name, _ in self.model.named_parameters())
            LOGGER.info(f"freeze={self.args.freeze}: {count} tensors do not learn: {', '.join(self.frozen)}")
        if given.get("workers") not in {None, DEFAULT_CFG_DICT["workers"], self.args.workers}:
            LOGGER.info(f"workers={given['workers']}: {self.args.workers} on a CPU, whose cores are all at work")

    # ---- data and model

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
        for split in used:
            self.data_spec.read(split)
        if self.args.single_cls:
            data.update(names={0: "item"}, nc=1)
        return data

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> TinyDataset:
        """The dataset of the split named `img_path`."""
        train = mode == "train"
        return TinyDataset(
            self.data["spec"],
            img_path,
            skip_empty=train and self.own["skip_empty"],
            min_side=self.own["min_side"] if train else 0.0,
            imgsz=self.args.imgsz,
            batch_size=batch,
            augment=train,
            hyp=self.args,
            rect=not train or self.args.rect,
            cache=self.args.cache or None,
            single_cls=self.args.single_cls,
            stride=ENGINE_STRIDE,
            pad=0.0,
            prefix=colorstr(f"{mode}: "),
            classes=class_indices(self.args.classes, self.data["spec"].names),
            fraction=self.args.fraction if train else 1.0,
        )

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """A loader over `build_dataset`; no file is written, so no process waits for another."""
        dataset = self.build_dataset(dataset_path, mode, batch_size)
        workers = self.args.workers if mode == "train" else self.args.workers * 2
        shuffle = mode == "train" and not dataset.rect
        return build_dataloader(
            dataset, batch=batch_size, workers=workers, shuffle=shuffle, rank=rank, device=self.device
        )

    def get_model(  # type: ignore[override]  # upstream takes a module for weights; ours are tensors
        self, cfg: Mapping[str, Any], weights: Mapping[str, torch.Tensor] | None = None, verbose: bool = True
    ) -> Detector:
        """A detector of the resolved YAML `cfg` for the data's classes, with the tensors of `weights` that fit."""
        if is_auto(cfg):
            cfg = settle(cfg, self.object_sizes())
            LOGGER.info(describe(cfg))
        model = build_model(cfg, self.data["nc"])
        model.names = self.data["names"]
        if weights:
            count = checkpoint.transfer(model, weights)
            LOGGER.info(f"Transferred {count}/{len(model.state_dict())} tensors")
        if verbose and RANK in {-1, 0}:
            model.info(imgsz=self.args.imgsz)
        return model

    def object_sizes(self) -> torch.Tensor:
        """(K, 2) w, h of the training objects in px of the network input."""
        notes = self.data["spec"].read("train")
        objects = notes.labels >= 0
        owners = notes.sizes_hw[notes.image_index[objects]]
        return object_sizes(
            torch.from_numpy(notes.boxes[objects].copy()), torch.from_numpy(owners.copy()), self.args.imgsz
        )

    def setup_model(self) -> dict[str, Any] | None:
        """The model stands already; returns the checkpoint to resume from."""
        return self.ckpt
