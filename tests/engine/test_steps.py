"""Steps of a training: a loss that is no number, accumulated gradients, saving inside an epoch."""

import math

import pytest

from tests.engine.test_engine import RUN, TINY
from tests.support.kills import rows, same
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.engine import checkpoint
from tinyyolo.engine.trainer import TinyTrainer

NAN = math.nan
RUN = {**RUN, "imgsz": 64, "epochs": 2}  # three batches an epoch


MIXED = {"nbs": 4, "mosaic": 0.6, "mixup": 0.3, "multi_scale": 0.2}


class Killed(Exception):
    pass


def spoiling(at, times, value=NAN):
    """A trainer whose model's loss is no number at the `at`-th batch of the run, as often as said."""

    class Spoiled(TinyTrainer):
        left = times

        def get_model(self, *args, **kwargs):
            model = super().get_model(*args, **kwargs)
            real = model.loss

            def loss(*given):
                total, items = real(*given)
                if model.training and self.iteration == at and Spoiled.left:
                    Spoiled.left -= 1
                    total = total * value
                return total, items

            model.loss = loss
            return model

    return Spoiled


def rates(trainer):
    return {group["initial_lr"] for group in trainer.optimizer.param_groups}


def trained(data, trainer=None, callbacks=None, **keys):
    model = Model("tinyyolo-n.yaml", overrides=TINY)
    for event, call in (callbacks or {}).items():
        model.add_callback(event, call)
    model.train(trainer=trainer, data=data, **{**RUN, **keys})
    return model


class TestNoNumber:
    @pytest.mark.parametrize(
        ("at", "keys", "value"),
        [
            (2, {}, NAN),
            (5, {"save": False}, math.inf),
            pytest.param(5, {}, NAN, marks=pytest.mark.slow),
            pytest.param(6, {"save_every": 1}, math.inf, marks=pytest.mark.slow),
        ],
    )
    def test_goes_on_with_half_the_rate(self, tiny_set, at, keys, value, caplog):
        trainer = trained(tiny_set, spoiling(at, 1, value), optimizer="SGD", **keys).trainer
        assert rates(trainer) == {0.005} and set(trainer.scheduler.base_lrs) == {0.005}
        epoch, batch = divmod(at - 1, 3)
        assert f"the loss became {value:g} in epoch {epoch + 1}, batch {batch + 1}: back to the last" in caplog.text
        assert len(rows(trainer.save_dir)) == 3 and trainer.finite()
        assert checkpoint.load(trainer.last)["epoch"] == 1

    def test_gives_up_after_three_with_the_images(self, tiny_set):
        seen = []
        with pytest.raises(UserError, match="in epoch 2, batch 2, as in 3 attempts") as caught:
            trained(
                tiny_set,
                spoiling(5, 9),
                {"on_train_batch_end": lambda t: seen.append((t.iteration, list(t.files), rates(t)))},
                optimizer="SGD",
            )
        files = next(files for iteration, files, _ in reversed(seen) if iteration == 5)
        assert all(file.rpartition("/")[2] in str(caught.value) for file in files) and len(files) == 2
        assert "last.pt holds the last good state" in str(caught.value) and "\n" not in str(caught.value)
        assert [rate for iteration, _, rate in seen if iteration == 5] == [{0.01}, {0.005}, {0.0025}, {0.00125}]

    @pytest.mark.slow
    def test_goes_back_to_the_state_of_the_checkpoint(self, tiny_set):
        """With the rate of the whole run at a half, a spoilt second epoch equals one that was never begun before."""
        epochs = []
        keep = lambda t: epochs.append({k: v.clone() for k, v in t.model.state_dict().items()})  # noqa: E731
        trained(tiny_set, spoiling(5, 1), {"on_train_epoch_start": keep})
        assert len(epochs) == 3
        same(epochs[2], epochs[1])

    def test_after_resuming_too(self, tiny_set):
        def kill(trainer):
            if trainer.iteration == 4:
                raise Killed

        victim = Model("tinyyolo-n.yaml", overrides=TINY)
        victim.add_callback("on_train_batch_end", kill)
        with pytest.raises(Killed):
            victim.train(data=tiny_set, trainer=spoiling(2, 1), optimizer="SGD", **RUN)
        resumed = Model("tinyyolo-n.yaml")
        resumed.train(resume=victim.trainer.last, trainer=spoiling(5, 1))
        assert rates(resumed.trainer) == {0.0025} and set(resumed.trainer.scheduler.base_lrs) == {0.0025}

    @pytest.mark.slow
    def test_weights_that_are_none_are_not_saved(self, tiny_set):
        def spoil(trainer):
            if trainer.iteration == 6 and not trainer.nan_recovery_attempts:
                trainer.model.bbox_head.state_dict()
                next(trainer.model.parameters()).data.fill_(float("nan"))

        trainer = trained(tiny_set, None, {"on_train_batch_end": spoil}).trainer
        assert trainer.finite() and len(rows(trainer.save_dir)) == 3


def killed(data, at, **keys):
    """The last.pt of a run that died after so many batches."""

    def kill(trainer):
        if trainer.iteration == at:
            raise Killed

    model = Model("tinyyolo-n.yaml", overrides=TINY)
    model.add_callback("on_train_batch_end", kill)
    with pytest.raises(Killed):
        model.train(data=data, **{**RUN, "name": "victim", **keys})
    return model.trainer.last


class TestInsideAnEpoch:
    @pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
    def test_resuming_goes_on_at_the_batch(self, tiny_set, workers):
        processes = {"on_pretrain_routine_start": lambda t: setattr(t.args, "workers", workers)}
        whole = trained(tiny_set, None, processes, **MIXED)
        seen = []
        victim = Model("tinyyolo-n.yaml", overrides=TINY)
        victim.add_callback("on_pretrain_routine_start", processes["on_pretrain_routine_start"])

        def kill(trainer):
            if trainer.iteration == 4:
                raise Killed

        victim.add_callback("on_train_batch_start", kill)
        with pytest.raises(Killed):
            victim.train(data=tiny_set, **{**RUN, **MIXED, "save_every": 1, "name": "victim"})
        resumed = Model("tinyyolo-n.yaml")
        resumed.add_callback("on_pretrain_routine_start", processes["on_pretrain_routine_start"])
        resumed.add_callback("on_train_batch_start", lambda t: seen.append(t.iteration))
        resumed.train(resume=victim.trainer.last)
        assert seen == [4, 5], "the fourth batch was done"
        same(resumed.trainer.model.state_dict(), whole.trainer.model.state_dict())
        same(resumed.trainer.optimizer.state_dict(), whole.trainer.optimizer.state_dict())
        assert rows(resumed.trainer.save_dir) == rows(whole.trainer.save_dir)

    def test_minutes(self, tiny_set, monkeypatch):
        now = [0.0]
        monkeypatch.setattr("tinyyolo.engine.steps.time.monotonic", lambda: now[0])
        saved = []

        def later(trainer):
            now[0] += 45

        def look(trainer):
            saved.append(trainer.saved and checkpoint.load(trainer.last)["resume"].get("batch"))

        model = Model("tinyyolo-n.yaml", overrides=TINY)
        model.add_callback("on_train_batch_start", later)
        model.add_callback("on_train_batch_start", look)
        model.train(data=tiny_set, **{**RUN, "epochs": 1, "save_every": "1min"})
        assert saved == [False, False, 2], "after 90 s, within the third batch's 45"

    @pytest.mark.parametrize("value", [0, -1, "10s", "0min", "min", True, 1.5, "-3min"])
    def test_what_it_is_not(self, tiny_set, value):
        with pytest.raises(UserError, match=r"save_every=.*batches, or minutes such as 10min"):
            trained(tiny_set, save_every=value)

    def test_not_without_checkpoints(self, tiny_set):
        with pytest.raises(UserError, match="save_every=2: save=false"):
            trained(tiny_set, save_every=2, save=False)

    @pytest.mark.slow
    def test_another_number_of_processes_is_told(self, tiny_set, caplog):
        last = killed(tiny_set, 2, save_every=1)
        resumed = Model("tinyyolo-n.yaml")
        resumed.add_callback("on_pretrain_routine_start", lambda t: setattr(t.args, "workers", 2))
        resumed.train(resume=last)
        assert "2 processes load images, 0 when it was saved" in caplog.text


def test_gradients_that_wait_at_the_end_of_an_epoch_are_kept(tiny_set):
    keys = {"nbs": 4, "warmup_epochs": 0, "epochs": 3}  # a step every two batches, three an epoch
    whole = trained(tiny_set, **keys)
    last = killed(tiny_set, 4, **keys)
    assert checkpoint.load(last)["resume"]["grads"]
    resumed = Model("tinyyolo-n.yaml")
    resumed.train(resume=last)
    same(resumed.trainer.model.state_dict(), whole.trainer.model.state_dict())
    assert whole.trainer.last_step == resumed.trainer.last_step
