"""Drawn videos: the truth is where the picture changes, ids keep their looks, gaps and crossings are there."""

import numpy as np

from tinyyolo.boxes.convert import areas, centres
from tinyyolo.datasets.drawn import moving
from tinyyolo.datasets.drawn.moving import Movie, draw_video

MOVIE = Movie(size=96, frames=8, objects=6, side=8.0)


def test_a_seed_decides_all():
    one, same, other = (list(draw_video(seed, MOVIE)) for seed in (3, 3, 4))
    for frame, again in zip(one, same, strict=True):
        assert frame.image.tobytes() == again.image.tobytes() and frame.boxes.tobytes() == again.boxes.tobytes()
    assert len(one) == 8 and one[0].image.tobytes() != other[0].image.tobytes()


def test_boxes_are_where_the_movers_are(monkeypatch):
    """The same video without movers differs inside the boxes alone."""
    monkeypatch.setattr(moving, "NOISE", 0.0)
    with_them = list(draw_video(5, MOVIE))
    monkeypatch.setattr(moving, "cast_of", lambda *_: [])
    assert sum(len(frame.ids) for frame in with_them) > 20
    for frame, bare in zip(with_them, draw_video(5, MOVIE), strict=True):
        changed = (frame.image != bare.image).any(2)
        inside = np.zeros_like(changed)
        for x1, y1, x2, y2 in frame.boxes:
            inside[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = True
        rows, columns = np.nonzero(changed & ~inside)
        border = (np.minimum(rows, 95 - rows) < 9) | (np.minimum(columns, 95 - columns) < 9)
        assert border.all(), "but for those cut at the border, which are no truth"
        assert (changed & inside).any() or not len(frame.ids)


def test_objects_move_by_their_speed_and_have_their_size():
    """At rest the camera adds nothing: steps are .1 to .9 sides, which are 8 px, spread by e^.15."""
    still = Movie(size=200, frames=12, objects=20, side=8.0, pan=0.0, shake=0.0)
    places, sizes = {}, []
    for t, frame in enumerate(draw_video(0, still)):
        whole = ((frame.boxes > 1) & (frame.boxes < 199)).all(1)
        for number, box in zip(frame.ids[whole].tolist(), frame.boxes[whole], strict=True):
            places.setdefault(number, {})[t] = centres(box)
            sizes.append(np.sqrt(areas(box)))
    steps = [np.hypot(*(way[t + 1] - way[t])) for way in places.values() for t in way if t + 1 in way]
    assert len(steps) > 100
    assert 0.1 * 8 * np.exp(-0.45) - 0.2 < min(steps) and max(steps) < 0.9 * 8 * np.exp(0.45) + 0.2
    assert abs(np.mean(sizes) - 8) < 1 and np.std(sizes) > 0.5


def test_pairs_meet_and_some_are_gone_for_a_while():
    movie = Movie(size=256, frames=40, objects=20, side=8.0)
    nearest, gaps = [], 0
    rng = np.random.default_rng(0)
    movers = moving.cast_of(rng, movie, moving.camera_way(rng, movie))
    for first, second in zip(movers[0:10:2], movers[1:10:2], strict=True):
        nearest.append(np.hypot(*(first.way - second.way).T).min())
    for mover in movers:
        gaps += bool((~mover.there).any())
        assert (~mover.there).sum() <= moving.GAP[1]
    assert max(nearest) < 3 * moving.MISS * 8 and 2 <= gaps <= 16
