"""Malformed inputs of every reader and command end in one line or a counted fault: no traceback, no stray file."""

import os

import numpy as np
import pytest

from tests.fuzz import judge
from tests.fuzz.inputs import Attempt, attempts, write_sound
from tinyyolo.cli import MISTAKE
from tinyyolo.config import load_model_yaml
from tinyyolo.datasets.formats import decode
from tinyyolo.detectors.build import build_model
from tinyyolo.engine import checkpoint

SEED = 19
SAMPLE, ALL = 300, 3000
SOUND = Attempt("sound", ("evaluate", "gt=gt.json", "dt=dt.json"), {}, "nothing")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The sound folder, deep enough that `../../x` stays in what is looked at."""
    root = tmp_path_factory.mktemp("fuzz") / "a" / "b" / "world"
    root.mkdir(parents=True)
    write_sound(root)
    model = build_model(load_model_yaml("tinyyolo-n.yaml"))
    checkpoint.save(root / "tiny.pt", checkpoint.of_model(model, {}))
    return root


def faults(world, *given):
    os.chdir(world)
    return [(attempt, what) for attempt in attempts(*given) if (what := judge.fault_of(attempt, world))]


def test_a_sample_of_malformed_inputs(world):
    found = faults(world, SEED, SAMPLE, world)
    assert not found, judge.smallest(found)


@pytest.mark.slow
def test_all_malformed_inputs(world):
    found = faults(world, SEED + 1, ALL, world)
    assert not found, judge.smallest(found)


def test_the_sound_set_is_sound(world):
    os.chdir(world)
    for words in (SOUND.words, ("data", "stats", "set.yaml", "figure=false"), ("compare", "gt.json", "gt.json")):
        assert judge.call(words) == 0, words


def test_a_broken_reader_is_caught(world, monkeypatch):
    """A reader that lets one kind of value through is seen, and its smallest input is told."""
    monkeypatch.setattr(decode, "whole", lambda value, name="": int(value))
    found = faults(world, SEED, 80, world, {"of_truth", "of_found"})
    assert found and all("traceback" in what for _, what in found)
    text = judge.smallest(found)
    assert text.startswith(f"{len(found)} inputs end badly") and "COCO JSON" in text and "Error" in text


def stray(words):
    with open("../stray.txt", "w") as file:
        file.write("x")
    return 0


def overwritten(words):
    with open("images/t0.png", "ab") as file:
        file.write(b"x")
    return 0


ENDS = {
    "traceback: ": lambda words: [][0],
    "exit code 3": lambda words: 3,
    "0 lines on stderr": lambda words: MISTAKE,
    "stray.txt": stray,
    "t0.png": overwritten,
}


@pytest.mark.parametrize("what", ENDS)
def test_each_bad_end_is_seen(what, world):
    os.chdir(world)
    picture = (world / "images" / "t0.png").read_bytes()
    found = judge.fault_of(SOUND, world, ENDS[what])
    (world / "images" / "t0.png").write_bytes(picture)
    (world.parent / "stray.txt").unlink(missing_ok=True)
    assert what.split()[-1] in found, found
    assert judge.fault_of(SOUND, world, lambda words: 0) == ""


def test_a_slow_end_and_a_large_one_are_seen(world, monkeypatch):
    os.chdir(world)
    monkeypatch.setattr(judge, "MOST_SECONDS", 0)
    monkeypatch.setattr(judge, "MOST_KIB", 64 << 10)
    found = judge.fault_of(SOUND, world, lambda words: np.ones(1 << 30, np.uint8)[0] - 1)
    seconds, memory = found.split("; ")
    assert seconds.endswith(" s") and memory.endswith(" MB") and 200 < int(memory.split()[0]) < 1400
