"""Reading ahead, bands on the disk, and what of them is held when they are united."""

import threading

import pytest
import torch

from tinyyolo.config import UserError
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.engine.predict import scenes
from tinyyolo.scenes.bands import Bands, rows_of
from tinyyolo.scenes.sweep import AHEAD, Found, ahead, batches
from tinyyolo.scenes.windows import windows


def test_reading_is_ahead_in_one_thread_and_in_order():
    seen, names = [], set()

    def work(i):
        seen.append(i)
        names.add(threading.current_thread().name)
        return -i

    reader = ahead(work, range(20))
    assert next(reader) == 0
    assert len(seen) <= 1 + AHEAD
    assert list(reader) == [-i for i in range(1, 20)] and seen == list(range(20))
    assert len(names) == 1 and threading.current_thread().name not in names


def test_what_goes_wrong_in_the_thread_comes_here_and_ends_it():
    def work(i):
        if i == 2:
            raise UserError("a.tif: damaged")
        return i

    reader = ahead(work, range(99))
    assert [next(reader), next(reader)] == [0, 1]
    with pytest.raises(UserError, match=r"a\.tif: damaged"):
        next(reader)
    stopped = ahead(abs, range(99))
    next(stopped)
    stopped.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tinyyolo-ahead")]


def test_rows_are_cut_into_the_same_batches_whichever_are_asked_for():
    every = windows((1500, 3000), 640, 64, 32)
    rows = rows_of(every)
    together = [[window.origin for window in group] for group in batches(every, 3)]
    apart = [[window.origin for window in group] for row in rows for group in batches(row, 3)]
    assert together == apart and [len(row) for row in rows] == [6, 6, 6]
    assert [len(group) for group in together[:4]] == [1, 3, 1, 1]  # cores of the first, the inner and the last differ


def candidates(count, seed):
    rng = torch.Generator().manual_seed(seed)
    place = (torch.rand(count // 6, 2, generator=rng) * 120).repeat_interleave(6, 0)  # six on each object
    boxes = torch.cat([place, place + 6 + torch.rand(count, 2, generator=rng)], 1)
    return Found(
        boxes, torch.rand(count, generator=rng) ** 3, (torch.arange(count) // 6 + torch.arange(count) % 6 // 5) % 3
    )


@pytest.mark.parametrize("score", (0.3, (0.2, 0.3, 0.4)))
def test_those_that_nobody_hears_change_nothing(tmp_path, monkeypatch, score):
    bands, rules = Bands(tmp_path), Postprocess(votes=4)
    object.__setattr__(rules, "score", score)  # by class: of conf=auto
    monkeypatch.setattr(Postprocess, "of_candidates", lambda rules, *found, **_: found[:3])
    for i in range(4):
        bands.put(i, candidates(0 if i == 2 else 300, i), empty=i)
    every, empty = scenes.united(rules, bands, 4, None)
    monkeypatch.setattr(scenes, "MOST_HELD", 0)
    fewer, again = scenes.united(rules, bands, 4, None)
    monkeypatch.undo()
    rules = Postprocess(score=0.3, votes=4)
    a, b = (rules.of_candidates(*found) for found in (every, fewer))
    assert empty == again == 6 and 0 < len(fewer.scores) < len(every.scores) == 900
    assert len(a[1]) > 50 and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_band_of_another_key_or_place_is_damaged(tmp_path, capsys):
    bands = Bands(tmp_path, "one")
    bands.put(0, candidates(6, 0), empty=2)
    found, empty = bands.get(0)
    assert empty == 2 and all(torch.equal(x, y) for x, y in zip(found, candidates(6, 0), strict=True))
    (tmp_path / "0.band").rename(tmp_path / "1.band")
    assert bands.get(0) is None and bands.get(1) is None
    bands.put(0, candidates(6, 0))
    assert Bands(tmp_path, "two").get(0) is None
    assert capsys.readouterr().err.count("damaged: computed anew") == 2
    with pytest.raises(UserError, match="gone or damaged since it was written"):
        list(bands.all(2))
