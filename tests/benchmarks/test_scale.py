"""The simulation of shards and failures, with numbers worked out by hand."""

import numpy as np
import pytest

from benchmarks import scale
from benchmarks.scale import Failures, Outcome, simulate


class Fixed:
    """A generator that gives what it is told: who is slow, and when workers fail."""

    def __init__(self, slow, until):
        self.slow, self.until = slow, iter(until)

    def random(self, count):
        return np.array(self.slow, float)

    def exponential(self, mean):
        return next(self.until)


NEVER = [float("inf")] * 9


@pytest.mark.parametrize(
    ("work", "slow", "until", "resume", "outcome"),
    (
        ([10, 10, 10, 10], [1, 1], NEVER, True, Outcome(20, 0, 0)),
        ([10, 10, 10], [0, 1], NEVER, True, Outcome(30, 0, 0)),  # the slow one has the first, the other both others
        ([10], [1], [4, *NEVER], True, Outcome(17, 2, 1)),  # 4 s, 2 of them lost; 5 s for a successor; 8 s are left
        ([10], [1], [4, *NEVER], False, Outcome(19, 4, 1)),
        ([10], [0], [4, *NEVER], True, Outcome(39, 4, 1)),  # slow by 3: 4 s are lost, all of them; 5 s; 30 s
    ),
)
def test_simulation(work, slow, until, resume, outcome):
    ways = Failures(slow=0.5, factor=3, hours=1, replace=5, resume=resume)
    assert simulate(work, len(slow), ways, Fixed(slow, until), 2.0) == outcome


def test_a_scene_of_10000_px(capsys):
    """Windows of 640 px begin every 544 px: 0, 544, ..., 9792 are 19."""
    scale.main(["plan", "--scenes", "10", "--rate", "361"])
    said = capsys.readouterr().out
    assert "361 windows in 19 rows, 300 MB of pixels" in said and "1.0 s at 361 windows a second" in said


def test_shards_have_the_work_of_all_scenes():
    work = scale.shard_work(100_000, 7, 6.0, 0.5, np.random.default_rng(0))
    assert len(work) == 7 and work.sum() == pytest.approx(600_000, rel=0.01)


def test_all_parts_are_there(capsys):
    scale.main(["simulate", "--scenes", "10000", "--workers", "5"])
    assert "10,000 scenes of 6 s, 5 workers: 3.3 h if nothing went wrong" in capsys.readouterr().out
