"""The trainer: ultralytics' loop with our data, checkpoints and recipes, and epochs that depend on their seed alone."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import nn, optim
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import unwrap_model

from tinyyolo import ranks, together
from tinyyolo.boxes.convert import areas
from tinyyolo.compat import own_amp_check, own_ranks
from tinyyolo.config import UserError
from tinyyolo.datasets.train.skipped import SKIPPED, keep_skipped_of_all, report_left_out, report_skipped
from tinyyolo.detectors.base import targets_of
from tinyyolo.engine import checkpoint
from tinyyolo.engine.arguments import engine_args
from tinyyolo.engine.keys import LAST
from tinyyolo.engine.prepare import under
from tinyyolo.engine.steps import GaveUp, SteppedTrainer
from tinyyolo.engine.stopping import command
from tinyyolo.engine.validator import TinyValidator
from tinyyolo.io import new_file

OF_FIRST = ("on_pretrain_routine_start", "on_model_save", "on_train_end")  # events of one process, as upstream has it
OWN_MOSAIC = (
    "mosaic takes its other three images from those that a process has seen lately: they depend on the number of "
    "processes; cache=ram takes them from all images"
)
STEP_DECAY = 0.1  # of the learning rate at each of `lr_steps`


class TinyTrainer(SteppedTrainer):
    """Trains any tinyyolo detector; arguments and what they raise are those of `PreparedTrainer`.

    Differences from ultralytics' trainer: arguments of our own (`OWN`), published schedules, plain checkpoints with all
    that resuming needs, and seeding per epoch, so that a run that was killed and resumed equals one that was not.
    """

    def __init__(self, *args: Any, **parts: Any):
        super().__init__(*args, **parts)
        self.still: list[nn.Parameter] = []  # parameters that do not learn
        self.finished = False
        if not self.saved and ranks.first():
            (self.save_dir / SKIPPED).unlink(missing_ok=True)

    # ---- the run

    def train(self) -> None:
        """As upstream; processes that load images end with it, however it ends, and a fault says how to go on.

        Raises:
            UserError: the run cannot go on; names the checkpoint to resume from.
        """
        try:
            with own_ranks():
                super().train()
        except GaveUp:
            raise
        except UserError as error:
            cause = str(error).rpartition("tinyyolo.config.UserError: ")[2].strip()  # of a process's traceback
            raise UserError(f"{cause}; {self.way_on()}") from error
        except RuntimeError as error:
            if together.lost(error):
                raise UserError(f"{ranks.LOST}; {self.way_on()}") from error
            if together.several() and "out of memory" in str(error):
                said = str(error).splitlines()[0]
                raise UserError(f"{said}: a smaller batch= or imgsz=, or more GPUs need less on each") from error
            if "DataLoader worker" not in str(error):
                raise
            cause = f"a process that loads images died ({' '.join(str(error).split())[:100]}): fewer workers= need less"
            raise UserError(f"{cause} memory; {self.way_on()}") from error
        finally:
            for loader in (getattr(self, "train_loader", None), getattr(self, "test_loader", None)):
                if loader is not None:
                    loader.close()

    def way_on(self) -> str:
        """How a run that was stopped goes on, in words."""
        if self.finished:
            return f"the run is finished: {self.best}"
        return f"go on with: {command(self.last)}" if self.saved else "nothing has been saved yet"

    def _do_train(self) -> None:
        """As upstream; of a run whose epochs are all done only what comes behind them."""
        if not self.ckpt or checkpoint.phase(self.ckpt) == checkpoint.TRAIN:
            super()._do_train()
            return
        self._setup_train()
        self.epoch = self.start_epoch - 1
        self.validator.args.quantize = 16 if self.device.type != "cpu" and self.amp else None  # as in training
        self.final_eval()
        self.run_callbacks("on_train_end")

    def run_callbacks(self, event: str) -> None:
        """As upstream; those of OF_FIRST in the first process alone."""
        if ranks.first() or event not in OF_FIRST:
            super().run_callbacks(event)

    # ---- recipe

    def _setup_train(self) -> None:
        """As upstream, without its download for the AMP check and with frozen parameters kept frozen."""
        self.still = [parameter for parameter in self.model.parameters() if not parameter.requires_grad]
        for parameter in self.still:
            parameter.requires_grad = True  # or upstream warns of each and un-freezes it
        with own_amp_check():
            super()._setup_train()
        if together.several():
            self.model = together.Summed(self.model)
        self.write_args()
        if together.several() and self.args.mosaic and not self.args.cache:
            LOGGER.info(OWN_MOSAIC)
        if not self.args.val:
            LOGGER.info("val=false: validation after the last epoch alone")
        if self.own["select"] == LAST:
            self.stopper.patience = math.inf
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
        """For `decay_all` SGD over all that learns, as published: in one group, or biases in another if they have a
        rate or decay of their own; `lr_batch` scales the rate."""
        if self.own["lr_batch"]:
            lr = lr * self.batch_size / self.own["lr_batch"]
        if not self.own["decay_all"]:
            return super().build_optimizer(model, name, lr, momentum, **more)
        if name != "SGD":
            raise UserError(f"optimizer={name}: decay_all needs optimizer=SGD")
        apart = biases(model) if self.own["bias_lr"] != 1 or not self.own["bias_decay"] else []
        known = set(map(id, apart))
        trained = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
        decay = self.args.weight_decay
        # Upstream rescales the decay of groups called "weight".
        groups = [{"params": trained, "lr": lr, "weight_decay": decay, "param_group": "all"}]
        if apart:
            groups.append({"params": apart, "lr": lr * self.own["bias_lr"], "param_group": "biases"})
            groups[-1]["weight_decay"] = decay * self.own["bias_decay"]
        return optim.SGD(groups, lr=lr, momentum=momentum)

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

    # ---- validation and plots

    def get_validator(self) -> TinyValidator:
        """Our validator, which does not know our training keys."""
        args = engine_args(vars(self.args))
        validator = TinyValidator(self.test_loader, save_dir=self.save_dir, args=args, _callbacks=self.callbacks)
        validator.data, validator.own = self.data, self.own
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
        self.on_plot(plots.label_mosaic(rows, names, self.save_dir / f"train_batch{self.iteration - 1}.jpg"))

    def draw_curves(self) -> None:
        """Losses and metrics over the epochs."""
        from tinyyolo import plots

        self.on_plot(plots.training_curves(self.csv, self.save_dir / "results.png"))

    def plot_metrics(self) -> None:
        """Drawn by `final_eval`, before it says that the run is finished."""

    def final_eval(self) -> None:
        """Validate the best checkpoint, write its table and pictures, then drop what only resuming needs from both.

        The best one's thresholds are then those that this validation has told.

        last.pt comes last: until then it says that this is left to do.
        """
        if not self.saved:  # with save=false, stopped before the last epoch
            self.save_model()
        best = together.from_first(lambda: next((path for path in (self.best, self.last) if path.exists()), None))
        if best:
            LOGGER.info(f"\nValidating {best}...")
            self.validator.args.plots = self.args.plots
            own: Any = deepcopy(unwrap_model(self.model))
            self.detector = checkpoint.fill(own.cpu(), together.from_first(lambda: checkpoint.load(best)), best)
            self.metrics = self.validator(model=deepcopy(self.detector))  # which it fuses
            self.metrics.pop("fitness", None)
            self.detector.thresholds = self.validator.thresholds
        report_left_out(self.train_loader.dataset)
        keep_skipped_of_all(self.train_loader.dataset, self.save_dir)
        report_skipped(self.save_dir)
        if ranks.first():
            if self.args.plots:
                self.draw_curves()
            for path in (self.best, self.last):
                if path.exists():
                    found = {"thresholds": self.validator.thresholds} if path == best else {}
                    checkpoint.save(path, {**checkpoint.load(path), **found, "resume": None})
        self.finished = True

    # ---- checkpoints

    def save_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Add a row to results.csv as upstream does, the file whole at every time; nan for what was not looked at."""
        if not ranks.first():
            return
        row = {"epoch": self.epoch + 1, "time": time.time() - self.train_time_start, **metrics}
        row |= dict.fromkeys(self.metrics, math.nan) if self.validated != self.epoch else {}
        old = self.csv.read_text(encoding="utf-8") if self.csv.exists() else ",".join(row) + "\n"
        with new_file(self.csv, overwrite=True) as file:
            file.write(old + ",".join(f"{value:.6g}" for value in row.values()) + "\n")

    def save_model(self) -> bool:
        """Write best.pt when this epoch is the best, or under `select=last`, and last.pt behind it."""
        files = [self.best] if self.own["select"] == LAST or self.best_fitness == self.fitness else []
        if self.save_period > 0 and self.epoch % self.save_period == 0:
            files.append(self.wdir / f"epoch{self.epoch}.pt")
        self.keep(*files, self.last, self.content())
        return True

    def check_resume(self, overrides: Mapping[str, Any]) -> None:
        """The arguments are the checkpoint's already, by `checkpoint.to_resume`; upstream would load it its own way."""
        self.resume = self.ckpt is not None

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        """Go on where the checkpoint was written."""
        if ckpt is not None:
            checkpoint.restore(self, ckpt)


def biases(model: nn.Module) -> list[nn.Parameter]:
    """The biases that learn, but for those of norms: what the official code gives a rate and a decay of their own."""
    norms = (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._NormBase)
    found = [getattr(module, "bias", None) for module in model.modules() if not isinstance(module, norms)]
    return [bias for bias in found if isinstance(bias, nn.Parameter) and bias.requires_grad]
