"""The school's last command: the file that travels in the package, and its card."""

import json

import pytest
import torch

from benchmarks import pretrain
from tests.engine.test_engine import TINY
from tinyyolo import Model
from tinyyolo.engine import checkpoint


def state(folder, value):
    """A last.pt of a small model whose stem has this value."""
    model = Model("tinyyolo-n.yaml", overrides=TINY)
    model.model.backbone.stem.conv.weight.data.fill_(value)
    file = folder / "weights" / "last.pt"
    file.parent.mkdir(parents=True)
    checkpoint.save(file, checkpoint.of_model(model.model, {"save_dir": "/home/me"}, epoch=3, resume=None))
    return file


def record(folder, *rows):
    lines = [
        {"phase": phase, "epoch": epoch, "pictures": 1000, "cpu_s": 360.0, "seed": 5, "commit": f"c{i}", "AP50": i / 10}
        for i, (phase, epoch) in enumerate(rows)
    ]
    (folder / "record.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def stem(path):
    return checkpoint.load(path)["model"]["backbone.stem.conv.weight"]


def test_the_finished_state_is_taken_with_all_that_led_to_it(tmp_path):
    state(tmp_path / "school", 1.0)
    state(tmp_path / "finish", 2.0)
    # Two epochs; finished once; another one, from which it was finished again. The first finish did not lead there.
    record(tmp_path, ("school", 1), ("school", 2), ("finish", 1), ("finish", 2), ("school", 3), ("finish", 1))
    card = pretrain.ship(tmp_path, tmp_path / "weights" / "a.pt")
    assert card == checkpoint.load(tmp_path / "weights" / "a.pt")["card"]
    assert (card["finished"], card["pictures"], card["cpu_hours"]) == (True, 4000, 0.4)
    assert (card["seed"], card["commit"], card["drawn_val"]) == (5, "c5", {"AP50": 0.5})
    found = stem(tmp_path / "weights" / "a.pt")
    assert found.dtype == torch.float16 and set(found.flatten().tolist()) == {2.0}
    assert "/home/me" not in str({**checkpoint.load(tmp_path / "weights" / "a.pt"), "model": None})


def test_before_it_is_finished_the_school_s_own(tmp_path):
    state(tmp_path / "school", 1.0)
    record(tmp_path, ("school", 1), ("school", 2))
    card = pretrain.ship(tmp_path, tmp_path / "a.pt")
    assert (card["finished"], card["pictures"]) == (False, 2000) and set(
        stem(tmp_path / "a.pt").flatten().tolist()
    ) == {1.0}


def test_what_float16_cannot_hold_is_not_shipped(tmp_path):
    state(tmp_path / "school", 70_000.0)
    record(tmp_path, ("school", 1))
    with pytest.raises(ValueError, match=r"backbone\.stem\.conv\.weight: beyond what float16 holds"):
        pretrain.ship(tmp_path, tmp_path / "a.pt")
    assert not (tmp_path / "a.pt").exists()


def test_what_earlier_weights_have_seen_counts(tmp_path):
    file = state(tmp_path / "old", 1.0)
    with pytest.raises(ValueError, match=r"last\.pt: without a card"):
        pretrain.taken_over(file, tmp_path / "record.jsonl")
    content = checkpoint.load(file)
    checkpoint.save(file, {**content, "card": {"pictures": 9000, "cpu_hours": 1.5, "seed": 0, "commit": "c"}})
    state(tmp_path / "school", 2.0)
    pretrain.taken_over(file, tmp_path / "record.jsonl")
    first = (tmp_path / "record.jsonl").read_text()
    record(tmp_path, ("school", 1), ("school", 2))
    (tmp_path / "record.jsonl").write_text(first + (tmp_path / "record.jsonl").read_text())
    card = pretrain.ship(tmp_path, tmp_path / "a.pt")
    assert (card["pictures"], card["cpu_hours"]) == (11_000, 1.7) and json.loads(first)["start"] == "last.pt"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--val", "30"], "--val"),
        (["--epochs", "3"], "--epochs"),
        (["--finish", "--start", "a.pt", "--batch", "8"], "--start"),
        (["--hours", "1", "--finish"], "--finish"),
        (["--ship", "--seed", "1", "--hours", "2"], "--seed, --hours"),
    ],
)
def test_an_option_that_changes_nothing_is_an_error(tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.setattr("sys.argv", ["pretrain.py", "n", "--out", str(tmp_path), *words])
    with pytest.raises(SystemExit, match="2"):
        pretrain.main()
    assert f"error: {told}: nothing here takes it" in capsys.readouterr().err


def test_a_school_goes_on_as_it_began(tmp_path, monkeypatch, capsys):
    state(tmp_path / "n" / "school", 1.0)
    monkeypatch.setattr("sys.argv", ["pretrain.py", "n", "--out", str(tmp_path), "--device", "0", "--batch", "32"])
    with pytest.raises(SystemExit, match="2"):
        pretrain.main()
    assert "error: --device, --batch: nothing here takes it" in capsys.readouterr().err
