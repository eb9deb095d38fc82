"""What resuming restores, value by value: each line of `checkpoint.restore` and `checkpoint.state` is needed here."""

import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.engine.test_engine import RUN, TINY
from tests.support.checkpoints import content, saved, unfinished
from tests.test_cli import call
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.engine import checkpoint
from tinyyolo.engine.keys import DEFAULTS

ROWS = ["epoch,time,train/box", "1,1.0,9.0", "2,2.0,8.0", "3,3.0,7.0", "4,4.0,6.0"]


def stand_in(folder, seed):
    """What resuming reads and writes of a trainer, every value its seed's own; one optimiser step is done."""
    torch.manual_seed(seed)
    model, average = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 * seed, momentum=0.9)
    optimizer.param_groups[0]["initial_lr"] = 0.25 * seed
    model(torch.ones(1, 3) * seed).sum().backward()
    optimizer.step()
    folder.mkdir()
    (folder / "results.csv").write_text("\n".join(ROWS) + "\n")
    return SimpleNamespace(
        model=model,
        ema=SimpleNamespace(ema=average, updates=10 * seed),
        optimizer=optimizer,
        scaler=torch.amp.GradScaler("cpu", init_scale=2.0**seed, enabled=True),
        best_fitness=0.1 * seed,
        stopper=SimpleNamespace(best_fitness=0.2 * seed, best_epoch=seed),
        scheduler=SimpleNamespace(base_lrs=[0.1]),
        csv=folder / "results.csv",
        start_epoch=0,
        epochs=9,
        stop=False,
        iteration=20 * seed,
        last_step=20 * seed - 2,  # the gradients of one batch wait for the next
        nan_recovery_attempts=seed - 2,
        ahead={},
    )


def of(saved):
    """The checkpoint of a stand-in after epoch index 2."""
    resume = checkpoint.state(saved)
    held = {"model": saved.ema.ema.state_dict(), "epoch": 2, "train_args": {"epochs": 9}, "resume": resume}
    return {**held, "thresholds": [0.1, 0.2]}


@pytest.fixture
def pair(tmp_path):
    """A trainer that was saved after epoch index 2, and another that was put where it stood."""
    saved, other = stand_in(tmp_path / "a", 3), stand_in(tmp_path / "b", 5)
    content = of(saved)
    torch.save(checkpoint.plain(content), tmp_path / "last.pt")
    checkpoint.restore(other, torch.load(tmp_path / "last.pt", weights_only=True))
    return saved, other


def assert_same_tensors(found, expected):
    assert set(found) == set(expected)
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)


class TestRestored:
    def test_weights(self, pair):
        saved, other = pair
        assert_same_tensors(other.model.state_dict(), saved.model.state_dict())

    def test_average_and_its_age(self, pair):
        saved, other = pair
        assert_same_tensors(other.ema.ema.state_dict(), saved.ema.ema.state_dict())
        assert other.ema.updates == 30

    def test_optimiser(self, pair):
        saved, other = pair
        assert other.optimizer.param_groups[0]["lr"] == pytest.approx(0.3)
        assert other.scheduler.base_lrs == [saved.optimizer.param_groups[0]["initial_lr"]] == [0.75]
        found, expected = (t.optimizer.state_dict()["state"] for t in (other, saved))
        for i in (0, 1):
            assert expected[i]["momentum_buffer"].abs().sum() > 0
            torch.testing.assert_close(found[i]["momentum_buffer"], expected[i]["momentum_buffer"], rtol=0, atol=0)

    def test_gradients_that_wait_for_their_step(self, pair):
        saved, other = pair
        assert other.last_step == 58
        grads = {name: parameter.grad for name, parameter in saved.model.named_parameters()}
        assert_same_tensors(other.ahead["grads"], grads)
        saved.last_step = saved.iteration - 1
        assert checkpoint.state(saved)["grads"] == {}, "none wait"

    def test_attempts_after_a_loss_that_is_no_number(self, pair):
        assert pair[1].nan_recovery_attempts == 1

    def test_scaler(self, pair):
        assert pair[1].scaler.get_scale() == 8.0

    def test_a_run_without_mixed_precision_has_no_scale(self, tmp_path):
        saved, other = stand_in(tmp_path / "a", 3), stand_in(tmp_path / "b", 5)
        saved.scaler = torch.amp.GradScaler("cpu", enabled=False)
        checkpoint.restore(other, of(saved))
        assert other.scaler.get_scale() == 32.0

    def test_best_epoch(self, pair):
        other = pair[1]
        assert other.best_fitness == pytest.approx(0.3)
        assert (other.stopper.best_fitness, other.stopper.best_epoch) == (pytest.approx(0.6), 3)

    def test_scores_of_the_classes(self, pair):
        assert pair[1].thresholds == [0.1, 0.2]

    def test_epoch(self, pair):
        assert pair[1].start_epoch == 3

    def test_rows_of_the_epochs_that_count(self, pair):
        assert pair[1].csv.read_text().splitlines() == ROWS[:4]  # the fourth was written, its checkpoint was not


class Killed(Exception):
    pass


def kill(trainer):
    if trainer.epoch == 1:
        raise Killed


def run(data, name, dies=False, **recipe):
    """A model after 3 epochs, or one that died in the second."""
    model = Model("tinyyolo-n.yaml", overrides=TINY)
    if dies:
        model.add_callback("on_train_epoch_end", kill)
    try:
        model.train(data=data, **{**RUN, "epochs": 3, "name": name, **recipe})
    except Killed:
        assert dies
    return model


# The published schedule, which counts iterations and scales the rate, and a fine-tuning with everything else.
RECIPES = {
    "published": {
        "optimizer": "SGD",
        "decay_all": True,
        "lr0": 0.01,
        "lr_batch": 4,
        "lr_steps": [2],
        "warmup_iters": 5,
        "clip_grad": None,
        "ema": False,
    },
    "fine-tuning": {"freeze": ["backbone.stem"], "box": 2.5, "close_mosaic": 2, "patience": 7, "seed": 4, "paste": 2},
}


@pytest.mark.parametrize("name", ["published", pytest.param("fine-tuning", marks=pytest.mark.slow)])
def test_resumed_equals_uninterrupted(tiny_set, name):
    recipe = RECIPES[name]
    whole, victim = run(tiny_set, "whole", **recipe), run(tiny_set, "victim", dies=True, **recipe)
    at_start = {}
    resumed = Model(victim.trainer.last)
    resumed.add_callback("on_train_epoch_start", lambda t: at_start.setdefault("rates", t.scheduler.base_lrs))
    resumed.train(resume=True)
    assert at_start["rates"] == whole.trainer.scheduler.base_lrs
    assert resumed.trainer.close_mosaic == whole.trainer.close_mosaic == recipe.get("close_mosaic", 0)
    assert_same_tensors(resumed.trainer.model.state_dict(), whole.trainer.model.state_dict())
    assert_same_tensors(*(checkpoint.load(m.trainer.last)["model"] for m in (resumed, whole)))
    own = {"name", "save_dir", "resume"}  # of the run, not of its result
    found, expected = ({k: v for k, v in vars(m.trainer.args).items() if k not in own} for m in (resumed, whole))
    assert found == expected
    assert resumed.trainer.own == whole.trainer.own
    assert resumed.trainer.model.bbox_head.gains == whole.trainer.model.bbox_head.gains
    assert resumed.trainer.frozen == whole.trainer.frozen == recipe.get("freeze", [])
    without_time = [
        [row.split(",")[:1] + row.split(",")[2:] for row in m.trainer.csv.read_text().splitlines()]
        for m in (whole, resumed)
    ]
    assert without_time[0] == without_time[1] and len(without_time[0]) == 4


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{}, {"epochs": 9, "patience": 1}])
def test_killed_behind_the_last_epoch_only_the_rest_is_done(tiny_set, keys):
    """After the last epoch's checkpoint, or early stopping's: the final validation alone, and the same files."""

    def kill_late(trainer):
        if trainer.stop:
            raise Killed

    keys = {"epochs": 2, "imgsz": 64, "plots": True, **keys}
    whole = run(tiny_set, "whole", **keys)
    victim = Model("tinyyolo-n.yaml", overrides=TINY)
    victim.add_callback("on_model_save", kill_late)
    with pytest.raises(Killed):
        victim.train(data=tiny_set, **{**RUN, "name": "victim", **keys})
    begun = []
    resumed = Model("tinyyolo-n.yaml")
    resumed.add_callback("on_train_epoch_start", begun.append)
    metrics = resumed.train(resume=victim.trainer.last)
    assert not begun and str(metrics.result) == str(whole.metrics.result)  # with NaN
    last, best = (checkpoint.load(file) for file in (resumed.trainer.last, resumed.trainer.best))
    assert last["resume"] is best["resume"] is None
    assert last["epoch"] == checkpoint.load(whole.trainer.last)["epoch"]
    assert_same_tensors(last["model"], checkpoint.load(whole.trainer.last)["model"])
    folders = [m.trainer.save_dir for m in (whole, resumed)]
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*")) for folder in folders]
    assert files[0] == files[1]
    with pytest.raises(UserError, match="finished"):
        Model("tinyyolo-n.yaml").train(resume=resumed.trainer.last)


class TestMistakes:
    @pytest.mark.parametrize("words", [["resume=true"], ["resume=null", "epochs=1"]])
    def test_resume_without_a_checkpoint_starts_nothing(self, words, tmp_path, capsys):
        code, _, err = call("train", *words, capsys=capsys)
        assert code == 2 and "resume=runs/train/weights/last.pt" in err and len(err.strip().splitlines()) == 1
        assert not (tmp_path / "runs").exists()

    def test_a_missing_checkpoint(self, capsys):
        code, _, err = call("train", "resume=gone.pt", capsys=capsys)
        assert code == 2 and "gone.pt: no such checkpoint" in err

    @pytest.mark.parametrize("given", [{"patience": "soon"}, {"cache": "rma"}])
    def test_values_are_looked_at(self, given):
        with pytest.raises(UserError, match=next(iter(given))):
            checkpoint.to_resume("last.pt", given)

    def test_a_damaged_one_names_the_newest_sound_one(self, tmp_path, capsys):
        held = checkpoint.plain(unfinished(content(train_args={"epochs": 9})))
        for age, (name, epoch) in enumerate([("last", 4), ("best", 3), ("epoch1", 1)]):
            torch.save({**held, "epoch": epoch}, tmp_path / f"{name}.pt")
            os.utime(tmp_path / f"{name}.pt", (1000 - age, 1000 - age))
        last = tmp_path / "last.pt"
        last.write_bytes(last.read_bytes()[:-200])
        expected = f"; the newest sound one is of epoch 4: tinyyolo train resume={tmp_path / 'best.pt'}"
        code, _, err = call("train", f"resume={last}", capsys=capsys)
        assert code == 2 and err.strip().endswith(expected) and len(err.strip().splitlines()) == 1
        (tmp_path / "best.pt").write_bytes(b"")
        with pytest.raises(UserError, match=r"last.pt.*newest sound one is of epoch 2: .*epoch1.pt$"):
            checkpoint.to_resume(last, {})
        torch.save({**held, "epoch": 1, "resume": None}, tmp_path / "epoch1.pt")
        with pytest.raises(UserError, match=r"epoch1.pt is sound, of a finished run: model="):
            checkpoint.to_resume(last, {})
        (tmp_path / "epoch1.pt").unlink()
        with pytest.raises(UserError, match=r"; there is no sound one beside it$"):
            checkpoint.to_resume(last, {})

    @pytest.mark.parametrize("words", [["head.assigner.topk=2"], ["epochs=9"], ["model=tinyyolo-s.yaml", "lr0=1"]])
    def test_what_cannot_change(self, words, tmp_path, capsys):
        code, _, err = call("train", f"resume={tmp_path / 'last.pt'}", *words, capsys=capsys)
        assert code == 2 and "cannot change when resuming" in err

    @pytest.mark.parametrize("path", ["~nosuchuser/last.pt", "a" * 300, "nowhere/last.pt"])
    def test_a_path_that_is_none(self, path, capsys):
        code, _, err = call("train", f"resume={path}", capsys=capsys)
        assert code == 2 and len(err.strip().splitlines()) == 1

    def test_patience_when_the_epochs_are_over(self, tmp_path):
        held = checkpoint.plain(unfinished(content(train_args={"epochs": 9})))
        held["resume"]["phase"] = checkpoint.EVALUATE
        torch.save({**held, "epoch": 3}, tmp_path / "last.pt")
        with pytest.raises(UserError, match=r"patience=9: the epochs of .*last.pt are over"):
            checkpoint.to_resume(tmp_path / "last.pt", {"patience": 9})

    def test_what_may_change(self, tmp_path):
        held = content(train_args={"patience": 7, "lr0": 0.5, "gone": 1})
        saved(checkpoint.plain(unfinished(held)), tmp_path / "last.pt")
        _, args = checkpoint.to_resume(tmp_path / "last.pt", {"patience": "9", "plots": None})
        assert args.pop("tracker") == DEFAULTS["tracker"]  # no key of a training: at its default in all of them
        assert args == {
            "patience": 9,
            "lr0": 0.5,
            "resume": str(tmp_path / "last.pt"),
            "save_dir": str(tmp_path.resolve().parent),
        }
