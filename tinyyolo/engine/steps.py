"""The trainer's steps: epochs that depend on their seed alone, warm-up, saving inside an epoch, back from NaN."""

from __future__ import annotations

import random
import time
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import unwrap_model

from tinyyolo import ranks, together
from tinyyolo.config import UserError
from tinyyolo.datasets.train.loader import InBlocks, Share, TinyLoader, go_to, place_of, seed_of, share_out, unpacked
from tinyyolo.datasets.train.padding import grown
from tinyyolo.datasets.train.skipped import keep_skipped
from tinyyolo.detectors.base import filled
from tinyyolo.engine import checkpoint
from tinyyolo.engine.history.provenance import commit
from tinyyolo.engine.keys import MINUTES
from tinyyolo.engine.prepare import PreparedTrainer, under

EPOCH_SEED = 1_000_003  # a prime: seeds of (run, epoch) do not meet
NAN_ATTEMPTS = 3  # in a row, without one whole epoch between them
MOST_RETRIES = 3  # of upstream's loop when memory is full, each with half the batch; not of several processes
NAN_FACTOR = 0.5  # of the learning rate at each of them


class GaveUp(UserError):
    """What resuming would only meet again."""


class SteppedTrainer(PreparedTrainer):
    """A trainer that stands at a known place at every step, and can be put back there.

    Upstream's loop asks for an optimiser step at every batch, and this class decides: after a resume its own counters,
    which are local to it, would begin anew.
    """

    def __init__(self, *args: Any, **parts: Any):
        super().__init__(*args, **parts)
        self.iteration = self.warmup = self.close_mosaic = 0  # batches begun, of warm-up, of last epochs
        self.steps_every, self.last_step = 1, -1  # batches
        self.pictured = list(self.plot_idx)  # batches of which pictures are drawn
        self.ahead: dict[str, Any] = {}  # what `restore` found of the epoch that comes: grads, batch, mean, place, ...
        self.mean: dict[str, Any] = {}  # of the losses in an epoch that began behind its first batch
        self.places: dict[int, Any] = {}  # worker process -> its place after the last batch that came from it
        self.files: list[str] = []  # images of the last batch
        self.share: Share  # what of each batch is this process's
        self.twins: list[tuple[Tensor, Tensor]] = []  # of frozen modules: in the average, which rounds, and the model
        self.thresholds: list[float] | None = None  # scores of the classes by the last validation
        codes = [*str((self.ckpt or {}).get("commit") or "").split(", "), commit()]  # of every start of the run
        self.commit = ", ".join(dict.fromkeys(filter(None, codes))) or None
        self.validated = -1  # the last epoch that was looked at
        self.ruined = False  # the loss is no number
        self.good: dict[str, Any] | None = None  # the state to go back to where no checkpoint holds it
        self.saved = self.ckpt is not None  # last.pt is this run's
        self.saved_at = time.monotonic()
        self.add_callback("on_train_start", SteppedTrainer.start)
        self.add_callback("on_train_epoch_start", SteppedTrainer.seed_epoch)
        self.add_callback("on_train_batch_start", SteppedTrainer.warm_up)
        self.add_callback("on_train_batch_end", SteppedTrainer.save_inside)
        self.add_callback("on_fit_epoch_end", SteppedTrainer.keep_good)

    def _build_train_pipeline(self) -> None:
        """As upstream, with a loader that can begin inside an epoch; how many batches make a step is ours to count."""
        super()._build_train_pipeline()
        self.train_loader.__class__ = TinyLoader
        batches = self.train_loader.batch_sampler.sampler
        batches.sampler = InBlocks(batches.sampler, *self.train_loader.dataset.decoded())
        self.share = share_out(self.train_loader, ranks.rank(), ranks.size(), fill=True)
        share_out(self.test_loader, ranks.rank(), ranks.size(), fill=False)
        self.train_loader.dataset.placed = self.own["save_every"] is not None
        self.steps_every, self.accumulate, self.last_step = self.accumulate, 1, -1

    def _get_warmup_iterations(self, num_batches: int) -> int:
        """None for upstream's loop, which counts from the batch that it began with; see `warm_up`."""
        self.warmup = 0 if self.own["warmup_iters"] else super()._get_warmup_iterations(num_batches)
        return 0

    # ---- epochs

    @staticmethod
    def start(trainer: SteppedTrainer) -> None:
        """Take closing mosaic over from the loop, see `seed_epoch`; remember what frozen parts are, and the start."""
        trainer.close_mosaic, trainer.args.close_mosaic = trainer.args.close_mosaic, 0
        own, average = unwrap_model(trainer.model).state_dict(), trainer.ema.ema.state_dict()
        trainer.twins = [(average[name], own[name]) for name in own if under(name, trainer.frozen)]
        if not trainer.saved:
            trainer.epoch = trainer.start_epoch - 1
            trainer.good = deepcopy(trainer.content())

    @staticmethod
    def seed_epoch(trainer: SteppedTrainer) -> None:
        """Give the epoch a seed of its own: order, augmentation and sampling do not depend on what ran before.

        Order and augmentation do not depend on how many processes there are either, see `Share`; sampling does. The
        loader starts afresh every time: the loop does so once, when mosaic closes, which draws from the seed.
        """
        seed = trainer.epoch_seed()
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - ultralytics' augmentation draws from the global state
        torch.manual_seed((seed + ranks.rank()) % 2**32)
        loader = trainer.train_loader
        if together.several():
            trainer._oom_retries = MOST_RETRIES
        trainer.share.seed = seed
        loader.generator.manual_seed(seed)
        loader.dataset.forget()
        if trainer.close_mosaic and trainer.epoch >= trainer.epochs - trainer.close_mosaic:
            loader.dataset.close_mosaic(hyp=copy(trainer.args))
        ahead, trainer.ahead = trainer.own_part(trainer.ahead), {}
        trainer.mean = {key: value.to(trainer.device) for key, value in ahead.get("mean", {}).items()}
        trainer.iteration = trainer.epoch * len(loader) + ahead.get("batch", 0)
        trainer.places = trainer.go_inside(ahead) if ahead.get("place") else {}
        loader.begin(ahead.get("batch", 0), trainer.places)
        trainer.plot_idx = [i - loader.first for i in trainer.pictured]  # the loop counts what it sees
        for name, parameter in unwrap_model(trainer.model).named_parameters():
            if name in ahead.get("grads", {}):
                if (grad := ahead["grads"][name]).shape != parameter.shape:
                    raise UserError(f"resume.grads: {name} has the shape {tuple(grad.shape)}")
                parameter.grad = grad.to(parameter)

    def epoch_seed(self) -> int:
        """The seed of this epoch."""
        return int((self.args.seed + EPOCH_SEED * (self.epoch + 1)) % 2**32)

    @staticmethod
    def own_part(ahead: dict[str, Any]) -> dict[str, Any]:
        """What `ahead` says of the epoch to this process; of one that there was not then, no place."""
        others = [ahead, *ahead.get("others", [])]
        own = {key: value for key, value in ahead.items() if key not in ("place", "places", "others")}
        mine = others[ranks.rank()] if ranks.rank() < len(others) else {}
        return own | {key: mine[key] for key in ("place", "places") if key in mine}

    def go_inside(self, ahead: dict[str, Any]) -> dict[int, Any]:
        """Put this process where it stood inside an epoch; returns the places of its loader's processes."""
        loader, place = self.train_loader, ahead["place"]
        if loader.num_workers != ahead["workers"]:
            now, then = loader.num_workers, ahead["workers"]
            LOGGER.warning(f"{now} processes load images, {then} when it was saved: this epoch's other samples differ")
        try:
            go_to(loader.dataset, place if not loader.num_workers else {**place, "recent": []})
        except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"resume.place: not where a training stood: {' '.join(str(error).split())}") from error
        if place.get("cuda") is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(torch.tensor(place["cuda"], dtype=torch.uint8), self.device)
        return ahead["places"] if loader.num_workers == ahead["workers"] else {}

    @staticmethod
    def warm_up(trainer: SteppedTrainer) -> None:
        """Linear over `warmup_iters` from `warmup_factor`, or constant, as published, or upstream's over
        `warmup_epochs`."""
        iteration, total = trainer.iteration, trainer.own["warmup_iters"]
        trainer.iteration += 1
        rate = trainer.lf(trainer.epoch)
        if total and iteration <= total:
            risen = float(iteration == total) if trainer.own["warmup_constant"] else iteration / total
            factor = 1 - (1 - risen) * (1 - trainer.own["warmup_factor"])
            for group in trainer.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate * factor
        elif trainer.warmup and iteration <= trainer.warmup:
            args, span = trainer.args, [0, trainer.warmup]
            for group in trainer.optimizer.param_groups:
                first = args.warmup_bias_lr if group.get("param_group") == "bias" else 0.0
                group["lr"] = float(np.interp(iteration, span, [first, group["initial_lr"] * rate]))
                if "momentum" in group:
                    group["momentum"] = float(np.interp(iteration, span, [args.warmup_momentum, args.momentum]))

    # ---- steps

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """As upstream; fills up images in a corner, keeps what worker processes say and which images these are."""
        self.files = [str(file) for file in batch["im_file"]]
        if news := batch.pop("news"):
            self.train_loader.dataset.note(news)
            keep_skipped(self.train_loader.dataset, self.save_dir)
        if "place" in batch:
            place = unpacked(batch.pop("place"))
            self.places[place.pop("worker")] = place
        if "content_hw" in batch and together.several():  # as if one process had collated them all
            batch = grown(batch, together.largest(batch["img"].shape[2:]))
        before = batch["img"].shape[2:]
        random.seed(seed_of(self.epoch_seed(), self.iteration))  # the size of multi_scale, in all processes
        batch = super().preprocess_batch(batch)
        if "content_hw" in batch:
            sides = [side / old for side, old in zip(batch["img"].shape[2:], before, strict=True)]  # of multi_scale
            batch["content_hw"] = (batch["content_hw"] * batch["img"].new_tensor(sides)).ceil().long()
            detector: Any = unwrap_model(self.model)
            batch["img"] = filled(batch["img"], batch["content_hw"], detector.pad_colour)
        return batch

    def due(self, iteration: int) -> int:
        """Batches that make an optimiser step; in upstream's warm-up they grow from 1."""
        if not self.warmup:
            return self.steps_every
        return max(1, int(np.interp(iteration, [0, self.warmup], [1, self.steps_every]).round()))

    def optimizer_step(self) -> None:
        """One step with the recipe's clipping, if it is due; none from a loss that is no number."""
        iteration, done = self.iteration - 1, self.train_loader.first
        if done and self.mean:  # upstream's mean begins at the first batch that it sees
            i = iteration - self.epoch * len(self.train_loader)
            self.mean = {key: (self.mean[key] * i + value) / (i + 1) for key, value in self.loss_items.items()}
            self.tloss = self.mean
        if self.ruined or not torch.isfinite(self.loss).all():
            self.ruined = self.stop = True  # leaves the epoch
            return
        if iteration - self.last_step < self.due(iteration):
            return
        self.last_step = iteration
        self.scaler.unscale_(self.optimizer)
        if self.own["clip_grad"]:
            nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=float(self.own["clip_grad"]))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.ema.update(self.model)
        for average, own in self.twins:
            average.copy_(own)

    # ---- saving

    def content(self, inside: bool = False) -> dict[str, Any]:
        """A checkpoint of this moment, at the end of an epoch or inside one; its "epoch" is the last whole one."""
        more = self.inside() if inside else {}
        resume = {**checkpoint.state(self), **more}
        return checkpoint.of_model(
            self.ema.ema,
            {**vars(self.args), "close_mosaic": self.close_mosaic, "device": self.asked_device},
            epoch=self.epoch - inside,
            metrics={**self.metrics, "fitness": self.fitness},
            thresholds=self.thresholds,
            commit=self.commit,
            resume=resume,
        )

    def inside(self) -> dict[str, Any]:
        """Where an epoch stands after the batch that is done, in all processes."""
        dataset, workers = self.train_loader.dataset, self.train_loader.num_workers
        cuda = torch.cuda.get_rng_state(self.device).tolist() if self.device.type == "cuda" else None
        own, *others = together.gathered({"place": {**place_of(dataset), "cuda": cuda}, "places": self.places})
        return {
            "phase": checkpoint.TRAIN,
            "batch": self.iteration - self.epoch * len(self.train_loader),
            "mean": {key: value.detach().cpu() for key, value in (self.tloss or {}).items()},
            **own,
            "others": others,
            "workers": workers,
        }

    @staticmethod
    def save_inside(trainer: SteppedTrainer) -> None:
        """Write last.pt inside an epoch when `save_every` says so; its last batch has the epoch's own checkpoint."""
        every, batch = trainer.own["save_every"], trainer.iteration - trainer.epoch * len(trainer.train_loader)
        if every is None or trainer.stop or batch >= len(trainer.train_loader):
            return
        if isinstance(every, str):
            waited = 60 * float(every.removesuffix(MINUTES))
            due = together.from_first(lambda: time.monotonic() - trainer.saved_at >= waited)
        else:
            due = trainer.iteration % every == 0
        if due and not together.in_any(not trainer.finite()):
            trainer.keep(trainer.last, trainer.content(inside=True))

    def keep(self, *files_and_content: Any) -> None:
        """Write one content to some files; last.pt is the last of them, for what it says must be there already."""
        *files, content = files_and_content
        for file in files if ranks.first() else ():
            checkpoint.save(file, content)
        self.saved, self.good, self.saved_at = True, None, time.monotonic()

    @staticmethod
    def keep_good(trainer: SteppedTrainer) -> None:
        """With save=false, hold the state in memory that a checkpoint would hold."""
        if not trainer.args.save and not trainer.stop:
            trainer.good = deepcopy(trainer.content())

    # ---- a loss that is no number

    def finite(self) -> bool:
        """Whether the loss and all weights of this process are numbers."""
        values = [v for v in unwrap_model(self.model).state_dict().values() if v.is_floating_point()]
        values += [] if self.loss is None else [self.loss.detach()]
        return all(bool(torch.isfinite(value).all()) for value in values)

    def validate(self) -> Any:
        """As upstream; not in an epoch that will be done again."""
        if self.ruined:
            return self.metrics, self.fitness
        together.as_first(self.ema.ema.buffers())  # statistics of batch norms
        found = super().validate()
        self.validated = self.epoch
        self.thresholds = self.validator.thresholds
        return found

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Whether the epoch is done again: from the last good state, with half the learning rate, three times in a row.

        Upstream's own does so at the end of an epoch, never in the first one, and with the same rate.

        Raises:
            GaveUp: the loss is no number again; names the images of the batch.
        """
        if not self.ruined and not together.in_any(not self.finite()):
            return False
        batch = self.iteration - epoch * len(self.train_loader)
        words = f"the loss became {self.loss.item():g} in epoch {epoch + 1}, batch {batch}"
        if self.nan_recovery_attempts >= NAN_ATTEMPTS:
            kept = f"; {self.last} holds the last good state" if self.saved else ""
            files = ", ".join(Path(file).name for file in self.files)
            raise GaveUp(
                f"{words}, as in {NAN_ATTEMPTS} attempts before it with more of the learning rate: "
                f"try a smaller lr0 or amp=False; images of the batch: {files}{kept}"
            )
        self.nan_recovery_attempts += 1
        rates = [NAN_FACTOR * group["initial_lr"] for group in self.optimizer.param_groups]
        self._model_train()
        attempts = self.nan_recovery_attempts
        checkpoint.restore(self, together.from_first(lambda: self.good or checkpoint.load(self.last)))
        self.nan_recovery_attempts = attempts
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["initial_lr"] = group["lr"] = rate
        self.scheduler.base_lrs = rates
        self.scheduler.last_epoch = epoch - 1
        self.stop = self.ruined = False
        LOGGER.warning(f"{words}: back to the last good state with half the learning rate, attempt {attempts} of 3")
        return True
