"""The trainer: ultralytics' loop with our data, checkpoints and recipes, and epochs that depend on their seed alone."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn, optim
from ultralytics.data import build_dataloader
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER, RANK, YAML, IterableSimpleNamespace, colorstr
from ultralytics.utils.torch_utils import unwrap_model

from tinyyolo.compat import engine_args, get_cfg, own_amp_check
from tinyyolo.config import UserError
from tinyyolo.datasets import spec as data_yaml
from tinyyolo.datasets.train.dataset import TinyDataset, report_left_out
from tinyyolo.detectors.auto import describe, is_auto, object_sizes, settle
from tinyyolo.detectors.base import ENGINE_STRIDE, Detector, targets_of
from tinyyolo.detectors.build import build_model
from tinyyolo.engine import checkpoint
from tinyyolo.engine.arguments import OWN
from tinyyolo.engine.validator import TinyValidator
from tinyyolo.io import named, new_file

STEP_DECAY = 0.1  # at each of `lr_steps`
EPOCH_SEED = 1_000_003  # a prime: seeds of (run, epoch) do not meet
MAY_CHANGE_ON_RESUME = ("device", "workers", "cache", "patience", "plots", "save_period", "val", "data")


def data_dict(name: str) -> dict[str, Any]:
    """What the engine wants to know of a data YAML; `spec` is what our datasets use."""
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


class TinyTrainer(DetectionTrainer):
    """Trains any tinyyolo detector.

    Differences from ultralytics' trainer: arguments of our own (`OWN`), published schedules, plain checkpoints with all
    that resuming needs, and seeding per epoch, so that a run that was killed and resumed equals one that was not.

    Args:
        cfg: ultralytics' configuration; overrides: all arguments, ours included.
    """

    def __init__(self, cfg: Any = DEFAULT_CFG_DICT, overrides: dict[str, Any] | None = None, _callbacks: Any = None):
        overrides = dict(overrides or {})
        self.own = {key: overrides.pop(key, default) for key, default in OWN.items()}
        self.ckpt: dict[str, Any] | None = None
        super().__init__(
            engine_args(vars(cfg) if isinstance(cfg, IterableSimpleNamespace) else cfg, OWN), overrides, _callbacks
        )
        vars(self.args).update(self.own)  # for args.yaml, checkpoints and worker processes
        if RANK in {-1, 0}:
            YAML.save(self.save_dir / "args.yaml", vars(self.args))
        self.add_callback("on_train_start", TinyTrainer.start)
        self.add_callback("on_train_epoch_start", TinyTrainer.seed_epoch)
        self.add_callback("on_train_batch_start", TinyTrainer.warm_up)

    # ---- data and model

    def get_dataset(self) -> dict[str, Any]:
        """The data YAML as a dict."""
        data = data_dict(self.args.data)
        if "train" not in data:
            raise UserError(f"{data['yaml_file']}: no split 'train' to train on")
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
            classes=self.args.classes,
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

    def get_model(
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
        """The model stands already (engine/model.py builds it); returns the checkpoint to resume from."""
        if not isinstance(self.model, nn.Module):
            raise UserError("train through tinyyolo.Model, which builds the model")
        return self.ckpt

    # ---- recipe

    def _setup_train(self) -> None:
        """As upstream, without its download for the AMP check and with the model's own frozen parameters kept."""
        frozen = [parameter for parameter in self.model.parameters() if not parameter.requires_grad]
        for parameter in frozen:
            parameter.requires_grad = True  # or upstream warns of each and un-freezes it
        self.frozen = frozen
        with own_amp_check():
            super()._setup_train()
        if not self.own["ema"]:
            self.ema.decay = no_decay

    def _build_train_pipeline(self) -> None:
        """Freeze again before the optimiser is built."""
        for parameter in self.frozen:
            parameter.requires_grad = False
        if self.own["lr_batch"] and self.optimizer is None:
            self.args.lr0 = self.args.lr0 * self.batch_size / self.own["lr_batch"]
        super()._build_train_pipeline()

    def build_optimizer(
        self, model: nn.Module, name: str = "auto", lr: float = 0.001, momentum: float = 0.9, **more: Any
    ) -> Any:
        """Plain SGD over every trainable parameter for `decay_all`, else upstream's groups."""
        if not self.own["decay_all"]:
            return super().build_optimizer(model, name, lr, momentum, **more)
        if name != "SGD":
            raise UserError(f"optimizer={name}: decay_all needs optimizer=SGD")
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = optim.SGD(trained, lr=lr, momentum=momentum, weight_decay=self.args.weight_decay)
        optimizer.param_groups[0]["param_group"] = "all"  # upstream rescales the decay of groups called "weight"
        return optimizer

    def set_class_weights(self) -> None:
        """Weights of the classes in the anchor YOLO's class loss: (1 / objects)^cls_pw over their mean per object.

        Raises:
            UserError: cls_pw for a model without such weights.
        """
        if not self.args.cls_pw:
            return
        head = getattr(unwrap_model(self.model), "bbox_head", None)
        if not hasattr(head, "class_weights"):
            raise UserError(f"cls_pw={self.args.cls_pw}: only the anchor YOLO weighs its classes")
        counts = self.get_class_counts()
        weights = self.compute_class_weights(counts)
        weights = weights / max((weights * counts).sum() / max(counts.sum(), 1), 1e-12)
        head.class_weights = torch.from_numpy(weights).to(self.device, torch.float32)
        LOGGER.info(f"Class weights: {weights.round(3)}")

    def get_class_counts(self) -> np.ndarray:
        """(C,) training objects of each class, ignore regions left out."""
        labels = np.concatenate([label["cls"][:, 0] for label in self.train_loader.dataset.labels])
        return np.bincount(labels[labels >= 0].astype(int), minlength=self.data["nc"]).astype(np.float32)

    def _setup_scheduler(self) -> None:
        """Steps at `lr_steps`, else upstream's."""
        if self.own["lr_steps"] is None:
            super()._setup_scheduler()
            return
        steps = list(self.own["lr_steps"])
        self.lf = lambda epoch: STEP_DECAY ** sum(epoch >= step for step in steps)
        self.scheduler = optim.lr_scheduler.LambdaLR(self.optimizer, lr_lambda=self.lf)

    def _get_warmup_iterations(self, num_batches: int) -> int:
        """Upstream's warm-up is off when ours is on."""
        return 0 if self.own["warmup_iters"] else super()._get_warmup_iterations(num_batches)

    def optimizer_step(self) -> None:
        """One step, with the recipe's clipping."""
        self.scaler.unscale_(self.optimizer)
        if self.own["clip_grad"]:
            nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=float(self.own["clip_grad"]))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.ema.update(self.model)

    @staticmethod
    def start(trainer: TinyTrainer) -> None:
        """Count iterations from where the run begins; take closing mosaic over from the loop, see `seed_epoch`."""
        trainer.iteration = trainer.start_epoch * len(trainer.train_loader)
        trainer.close_mosaic, trainer.args.close_mosaic = trainer.args.close_mosaic, 0

    @staticmethod
    def seed_epoch(trainer: TinyTrainer) -> None:
        """Give the epoch a seed of its own: order, augmentation and sampling do not depend on what ran before.

        The loader starts afresh every time: the loop does so once, when mosaic closes, which draws from the seed.
        """
        seed = (trainer.args.seed + 1 + RANK + EPOCH_SEED * (trainer.epoch + 1)) % 2**32
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - ultralytics' augmentation draws from the global state
        torch.manual_seed(seed)
        loader = trainer.train_loader
        loader.generator.manual_seed(seed)
        loader.dataset.forget()
        if trainer.close_mosaic and trainer.epoch >= trainer.epochs - trainer.close_mosaic:
            loader.dataset.close_mosaic(hyp=copy(trainer.args))
        loader.reset()

    @staticmethod
    def warm_up(trainer: TinyTrainer) -> None:
        """Linear from `warmup_factor` to the full learning rate over `warmup_iters`, as published."""
        iteration, total = trainer.iteration, trainer.own["warmup_iters"]
        trainer.iteration += 1
        if total and iteration <= total:
            factor = 1 - (1 - iteration / total) * (1 - trainer.own["warmup_factor"])
            for group in trainer.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * trainer.lf(trainer.epoch) * factor

    # ---- validation and plots

    def get_validator(self) -> TinyValidator:
        """Our validator, which does not know our training keys, at the score from which the model's YAML counts."""
        args = engine_args(vars(copy(self.args)), OWN)
        if args["conf"] is None:
            args["conf"] = (unwrap_model(self.model).yaml.get("test") or {}).get("score")
        return TinyValidator(self.test_loader, save_dir=self.save_dir, args=args, _callbacks=self.callbacks)

    def plot_training_labels(self) -> None:
        """Sizes of the training objects."""
        from tinyyolo import plots

        notes = self.train_loader.dataset.annotations
        sides = np.sqrt(np.prod(notes.boxes[notes.labels >= 0, 2:] - notes.boxes[notes.labels >= 0, :2], axis=1))
        self.on_plot(plots.size_histogram(sides, self.save_dir / "labels.png"))

    def plot_training_samples(self, batch: dict[str, Any], ni: int) -> None:
        """The images of a batch as the model sees them, with their boxes."""
        from tinyyolo import plots

        images = (batch["img"].cpu().numpy()[:, ::-1].transpose(0, 2, 3, 1) * 255).astype(np.uint8)
        targets = targets_of(batch)
        rows = [
            {"image": image, "boxes": t["boxes"].cpu().numpy(), "labels": t["labels"].cpu().numpy()}
            for image, t in zip(images, targets, strict=True)
        ]
        names = [self.data["names"][i] for i in range(self.data["nc"])]
        self.on_plot(plots.label_mosaic(rows, names, self.save_dir / f"train_batch{ni}.jpg"))

    def plot_metrics(self) -> None:
        """Losses and metrics over the epochs."""
        from tinyyolo import plots

        self.on_plot(plots.training_curves(self.csv, self.save_dir / "results.png"))

    def final_eval(self) -> None:
        """Drop what only resuming needs from both checkpoints, then validate the best one and write its table."""
        if RANK in {-1, 0}:
            for path in {self.last, self.best}:
                if path.exists():
                    checkpoint.save(path, {**checkpoint.load(path), "resume": None})
        best = self.best if self.best.exists() else self.last
        if best.exists():
            LOGGER.info(f"\nValidating {best}...")
            self.validator.args.plots = self.args.plots
            self.metrics = self.validator(model=checkpoint.to_model(checkpoint.load(best), best))
            self.metrics.pop("fitness", None)
        report_left_out(self.train_loader.dataset)

    # ---- checkpoints

    def save_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Append to results.csv; a full disk is named."""
        with named(self.csv):
            super().save_metrics(metrics)

    def save_model(self) -> bool:
        """Write last.pt, and best.pt when this epoch is the best."""
        raw = unwrap_model(self.model).state_dict()
        content = checkpoint.of_model(
            self.ema.ema,
            {**vars(self.args), "close_mosaic": self.close_mosaic},
            epoch=self.epoch,
            metrics={**self.metrics, "fitness": self.fitness},
            results=read_csv(self.csv),
            resume={
                "model": {key: value.detach().cpu() for key, value in raw.items()},
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "updates": self.ema.updates,
                "best_fitness": self.best_fitness,
                "stopper": {"best_fitness": self.stopper.best_fitness, "best_epoch": self.stopper.best_epoch},
            },
        )
        checkpoint.save(self.last, content)
        if self.best_fitness == self.fitness:
            checkpoint.save(self.best, content)
        if self.save_period > 0 and self.epoch % self.save_period == 0:
            checkpoint.save(self.wdir / f"epoch{self.epoch}.pt", content)
        return True

    def check_resume(self, overrides: Mapping[str, Any]) -> None:
        """Take every argument from the checkpoint in `resume`, but for a few that do not change the result.

        Raises:
            UserError: no checkpoint, or the run is finished; ultralytics would start another on a downloaded set.
        """
        self.resume = bool(self.args.resume)
        if not self.resume:
            return
        path = Path(str(self.args.resume))
        self.ckpt = checkpoint.load(path)
        if not self.ckpt.get("resume"):
            raise UserError(
                f"{path}: this training is finished, there is nothing to resume; start a new one from it: model={path}"
            )
        kept = dict(self.ckpt["train_args"])
        self.own = {key: kept.pop(key, default) for key, default in OWN.items()}
        kept.update({key: overrides[key] for key in MAY_CHANGE_ON_RESUME if overrides.get(key) is not None})
        save_dir = str(path.resolve().parent.parent)
        self.args = get_cfg({**DEFAULT_CFG_DICT, **kept, "resume": str(path), "save_dir": save_dir})

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        """Restore weights, their average, optimiser, scaler and early stopping as they were."""
        if ckpt is None:
            return
        state = ckpt["resume"]
        unwrap_model(self.model).load_state_dict(state["model"])
        self.ema.ema.load_state_dict(ckpt["model"])
        self.ema.updates = state["updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.best_fitness = state["best_fitness"]
        self.stopper.best_fitness, self.stopper.best_epoch = (
            state["stopper"]["best_fitness"],
            state["stopper"]["best_epoch"],
        )
        self.start_epoch = ckpt["epoch"] + 1
        keep_rows(self.csv, self.start_epoch)
        LOGGER.info(f"Resuming at epoch {self.start_epoch + 1} of {self.epochs}")

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Stop with the cause: repeating an epoch from the same state with the same seed ends the same way."""
        if self.loss is not None and not torch.isfinite(self.loss).all():
            kept = f"; {self.last} holds epoch {epoch}" if self.last.exists() else ""
            raise UserError(
                f"the loss became {float(self.loss):g} in epoch {epoch + 1}: try a smaller lr0 or amp=False{kept}"
            )
        return False


def no_decay(updates: int) -> float:
    """EMA decay of recipes without one: the average is the model itself."""
    return 0.0


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of results.csv so far."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def keep_rows(path: Path, count: int) -> None:
    """Cut results.csv to its first `count` epochs: a run killed after writing its row would write it twice."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        with new_file(path, overwrite=True) as file:
            file.write("".join(lines[: count + 1]))
