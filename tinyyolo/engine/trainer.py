"""The trainer: ultralytics' loop with our data, checkpoints and recipes, and epochs that depend on their seed alone."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from copy import copy, deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from tinyyolo.boxes.convert import areas
from tinyyolo.compat import own_amp_check
from tinyyolo.config import UserError
from tinyyolo.datasets.train.dataset import report_left_out
from tinyyolo.detectors.base import targets_of
from tinyyolo.engine import checkpoint
from tinyyolo.engine.arguments import engine_args
from tinyyolo.engine.prepare import PreparedTrainer, under
from tinyyolo.engine.validator import TinyValidator
from tinyyolo.io import new_file

EPOCH_SEED = 1_000_003  # a prime: seeds of (run, epoch) do not meet
STEP_DECAY = 0.1  # of the learning rate at each of `lr_steps`


class TinyTrainer(PreparedTrainer):
    """Trains any tinyyolo detector; arguments and what they raise are those of `PreparedTrainer`.

    Differences from ultralytics' trainer: arguments of our own (`OWN`), published schedules, plain checkpoints with all
    that resuming needs, and seeding per epoch, so that a run that was killed and resumed equals one that was not.
    """

    def __init__(self, *args: Any, **parts: Any):
        super().__init__(*args, **parts)
        self.still: list[nn.Parameter] = []  # parameters that do not learn
        self.twins: list[tuple[Tensor, Tensor]] = []  # of frozen modules: in the average, which rounds, and the model
        self.iteration = self.close_mosaic = 0
        self.add_callback("on_train_start", TinyTrainer.start)
        self.add_callback("on_train_epoch_start", TinyTrainer.seed_epoch)
        self.add_callback("on_train_batch_start", TinyTrainer.warm_up)

    # ---- recipe

    def _setup_train(self) -> None:
        """As upstream, without its download for the AMP check and with frozen parameters kept frozen."""
        self.still = [parameter for parameter in self.model.parameters() if not parameter.requires_grad]
        for parameter in self.still:
            parameter.requires_grad = True  # or upstream warns of each and un-freezes it
        with own_amp_check():
            super()._setup_train()
        if RANK in {-1, 0}:
            self.write_args()
        if not self.own["ema"]:
            self.ema.decay = lambda updates: 0.0  # the average is the model itself

    def _build_train_pipeline(self) -> None:
        """Freeze again before the optimiser is built."""
        for parameter in self.still:
            parameter.requires_grad = False
        super()._build_train_pipeline()

    def build_optimizer(  # type: ignore[override]  # what we pass on is `more`
        self, model: nn.Module, name: str = "auto", lr: float = 0.001, momentum: float = 0.9, **more: Any
    ) -> Any:
        """For `decay_all` SGD over all that learns in one group, as published; `lr_batch` scales the rate."""
        if self.own["lr_batch"]:
            lr = lr * self.batch_size / self.own["lr_batch"]
        if not self.own["decay_all"]:
            return super().build_optimizer(model, name, lr, momentum, **more)
        if name != "SGD":
            raise UserError(f"optimizer={name}: decay_all needs optimizer=SGD")
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = optim.SGD(trained, lr=lr, momentum=momentum, weight_decay=self.args.weight_decay)
        optimizer.param_groups[0]["param_group"] = "all"  # upstream rescales the decay of groups called "weight"
        return optimizer

    def _model_train(self) -> None:
        """Train mode, but for the batch norms of frozen parts, whose statistics stay as they are."""
        super()._model_train()
        for name, module in unwrap_model(self.model).named_modules():
            if isinstance(module, nn.BatchNorm2d) and under(name, self.frozen):
                module.eval()

    def set_class_weights(self) -> None:
        """Weights of the classes in the anchor YOLO's class loss: (1 / objects)^cls_pw over their mean per object."""
        if not self.args.cls_pw:
            return
        labels = np.concatenate([label["cls"][:, 0] for label in self.train_loader.dataset.labels])
        counts = np.bincount(labels[labels >= 0].astype(int), minlength=self.data["nc"]).astype(np.float32)
        if not counts.any():
            return
        weights = self.compute_class_weights(counts)
        weights = weights / ((weights * counts).sum() / counts.sum())
        head: Any = unwrap_model(self.model).bbox_head
        head.class_weights = torch.from_numpy(weights).to(self.device, torch.float32)
        LOGGER.info(f"Class weights: {weights.round(3)}")

    def _setup_scheduler(self) -> None:
        """A tenth of the rate after each of `lr_steps`, else upstream's."""
        if (steps := self.own["lr_steps"]) is None:
            super()._setup_scheduler()
            return
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
        for average, own in self.twins:
            average.copy_(own)

    @staticmethod
    def start(trainer: TinyTrainer) -> None:
        """Count iterations from where the run begins; take closing mosaic over from the loop, see `seed_epoch`."""
        trainer.iteration = trainer.start_epoch * len(trainer.train_loader)
        trainer.close_mosaic, trainer.args.close_mosaic = trainer.args.close_mosaic, 0
        own, average = unwrap_model(trainer.model).state_dict(), trainer.ema.ema.state_dict()
        trainer.twins = [(average[name], own[name]) for name in own if under(name, trainer.frozen)]

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
        """Our validator, which does not know our training keys."""
        args = engine_args(vars(self.args))
        validator = TinyValidator(self.test_loader, save_dir=self.save_dir, args=args, _callbacks=self.callbacks)
        validator.data = self.data
        return validator

    def plot_training_labels(self) -> None:
        """Sizes of the training objects."""
        from tinyyolo import plots

        notes = self.train_loader.dataset.annotations
        sides = np.sqrt(areas(notes.boxes[notes.labels >= 0]))
        self.on_plot(plots.size_histogram(sides, self.save_dir / "labels.png"))

    def plot_training_samples(self, batch: dict[str, Any], ni: int) -> None:
        """The images of a batch as the model sees them, with their boxes."""
        from tinyyolo import plots

        images = (batch["img"].cpu().numpy()[:, ::-1].transpose(0, 2, 3, 1) * 255).astype(np.uint8)
        rows = [
            {"image": image, "boxes": t["boxes"].cpu().numpy(), "labels": t["labels"].cpu().numpy()}
            for image, t in zip(images, targets_of(batch), strict=True)
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
            own: Any = deepcopy(unwrap_model(self.model))
            self.detector = checkpoint.fill(own.cpu(), checkpoint.load(best), best)
            self.metrics = self.validator(model=deepcopy(self.detector))  # which it fuses
            self.metrics.pop("fitness", None)
        report_left_out(self.train_loader.dataset)

    # ---- checkpoints

    def save_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Add a row to results.csv as upstream does, the file whole at every time."""
        row = {"epoch": self.epoch + 1, "time": time.time() - self.train_time_start, **metrics}
        old = self.csv.read_text(encoding="utf-8") if self.csv.exists() else ",".join(row) + "\n"
        with new_file(self.csv, overwrite=True) as file:
            file.write(old + ",".join(f"{value:.6g}" for value in row.values()) + "\n")

    def save_model(self) -> bool:
        """Write last.pt, and best.pt when this epoch is the best."""
        content = checkpoint.of_model(
            self.ema.ema,
            {**vars(self.args), "close_mosaic": self.close_mosaic},
            epoch=self.epoch,
            metrics={**self.metrics, "fitness": self.fitness},
            resume=checkpoint.state(self),
        )
        checkpoint.save(self.last, content)
        if self.best_fitness == self.fitness:
            checkpoint.save(self.best, content)
        if self.save_period > 0 and self.epoch % self.save_period == 0:
            checkpoint.save(self.wdir / f"epoch{self.epoch}.pt", content)
        return True

    def check_resume(self, overrides: Mapping[str, Any]) -> None:
        """The arguments are the checkpoint's already, by `checkpoint.to_resume`; upstream would load it its own way."""
        self.resume = self.ckpt is not None

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        """Go on where the checkpoint was written."""
        if ckpt is not None:
            checkpoint.restore(self, ckpt)

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Stop with the cause: repeating an epoch from the same state with the same seed ends the same way."""
        if self.loss is not None and not torch.isfinite(self.loss).all():
            kept = f"; {self.last} holds epoch {epoch}" if self.last.exists() else ""
            raise UserError(
                f"the loss became {float(self.loss):g} in epoch {epoch + 1}: try a smaller lr0 or amp=False{kept}"
            )
        return False
