"""Which device a process takes, what several cannot do, and what a user's mistake looks like."""

import os

import pytest
import torch

from tests.test_cli import call
from tinyyolo import Model, ranks
from tinyyolo.config import UserError
from tinyyolo.engine.arguments import resolve
from tinyyolo.engine.many import devices, launch
from tinyyolo.engine.stopping import command
from tinyyolo.engine.validator import TinyMetrics


@pytest.fixture
def two(monkeypatch):
    """The second of two processes on one node."""
    for name, value in {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "RANK": 1, "LOCAL_RANK": 1}.items():
        monkeypatch.setenv(name, str(value))


def with_gpus(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)


def test_one_process_takes_what_is_asked_for():
    assert devices.own_device("0,1") == "0,1" and devices.own_device(None) is None
    assert ranks.first() and ranks.rank() == ranks.local_rank() == 0 and ranks.first_to_tell()


@pytest.mark.parametrize(
    ("asked", "gpus", "own"),
    [("cpu", 4, "cpu"), (None, 0, "cpu"), (None, 4, "1"), ([2, 3], 4, "3"), ("0,3", 4, "3")],
)
def test_each_process_has_a_device(asked, gpus, own, two, monkeypatch):
    with_gpus(monkeypatch, gpus)
    assert devices.own_device(asked) == own
    assert devices.on_gpu(own) == (own != "cpu")


def test_fewer_gpus_than_processes(two, monkeypatch):
    with_gpus(monkeypatch, 1)
    with pytest.raises(UserError, match=r"device=0: 2 processes on this node, 1 GPUs; Choices: --nproc-per-node=1"):
        devices.own_device(0)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"batch": 5}, "batch=5: the images of a step, which 2 processes share; Choices: 4 or 6"),
        ({"batch": 1}, "Choices: 2$"),
        ({"batch": -1}, "batch=-1: several processes share a batch: give its images, such as batch=16"),
        ({"time": 2}, "time=2: the clocks of 2 processes differ; use epochs="),
    ],
)
def test_what_several_processes_cannot_share(args, words, two):
    with pytest.raises(UserError, match=words):
        devices.check_shared({"batch": 4, "time": None, **args})
    devices.check_shared({"batch": 4, "time": None})


def test_how_one_goes_on(two):
    assert command("runs/train/weights/last.pt").startswith("torchrun --nproc-per-node=2 -m tinyyolo train resume=")


def test_gpus_that_are_not_there_are_one_line_and_nothing_is_lost(tiny_set, tmp_path, capsys):
    kept = tmp_path / "runs" / "mine" / "notes.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    words = ["train", f"data={tiny_set}", "device=0,1", "name=mine", "exist_ok=true"]
    code, _, said = call(*words, capsys=capsys)
    assert code == 2 and said.count("\n") == 1 and "device=0,1: not on this machine" in said and "Choices: cpu" in said
    assert kept.read_text() == "mine" and os.listdir(kept.parent) == ["notes.txt"]


class TestLaunch:
    def test_how_many_processes(self, two, monkeypatch):
        assert devices.gpus_of("0,1") == 0  # this is one of them
        monkeypatch.setenv("WORLD_SIZE", "1")
        assert [devices.gpus_of(device) for device in ("0,1", [0, 1, 2], "0", "cpu", None)] == [2, 3, 0, 0, 0]

    @pytest.mark.parametrize(
        ("mode", "way"),
        [
            ("val", "torchrun --nproc-per-node=2"),
            ("predict", "start 2 with device=0 shard=1/2"),
            ("track", "give one"),
        ],
    )
    def test_other_commands_say_how_several_are_used(self, mode, way, monkeypatch):
        monkeypatch.setattr("tinyyolo.engine.arguments.check_device", lambda device: None)  # there are two
        with pytest.raises(UserError, match=rf"^device=0,1: a process of {mode} computes on one GPU; {way}"):
            resolve(mode, {}, {"device": "0,1"})
        assert resolve(mode, {}, {"device": "0"})["device"] == 0

    @pytest.mark.parametrize(
        ("said", "shown", "line"),
        [
            (
                b"1/2\r2/2\nWARNING x\ntinyyolo: data=no: no such\nE1126 failed\n",
                b"1/2\r2/2\nWARNING x\n",
                "data=no: no such",
            ),
            (b"Traceback\n  tinyyolo: in it\nValueError", b"Traceback\n  tinyyolo: in it\nValueError", ""),
            (b"tiny", b"tiny", ""),
        ],
    )
    @pytest.mark.parametrize("pieces", [1, 1000])
    def test_what_comes_through(self, said, shown, line, pieces, monkeypatch):
        ends = [os.pipe(), os.pipe()]
        os.write(ends[0][1], said)
        os.close(ends[0][1])
        monkeypatch.setattr(launch, "CHUNK", pieces)
        with open(ends[0][0], "rb", buffering=0) as stream:
            assert launch.passed_on(stream, ends[1][1]) == line
        os.close(ends[1][1])
        with open(ends[1][0], "rb") as stream:
            assert stream.read() == shown

    def test_what_other_processes_cannot_know(self, monkeypatch, tiny_set):
        model = Model("tinyyolo-n.yaml")
        model.add_callback("on_train_start", print)
        with pytest.raises(UserError, match=r"know nothing of callbacks in this one; .*torchrun --nproc-per-node=2"):
            model._train_apart(2, None, {"device": "0,1", "data": tiny_set}, "runs")


def test_figures_that_a_run_has_left(tmp_path):
    (tmp_path / "metrics.json").write_text('{"AP": 0.5, "per_class": {}, "thresholds": {"ship": 0.25}}')
    found = TinyMetrics.of_run(tmp_path)
    assert (found.AP, found.thresholds, found.save_dir) == (0.5, {"ship": 0.25}, tmp_path)
