"""The school's pictures: the same bytes, boxes to the pixel, all classes and looks, sizes of tiny things."""

import hashlib

import numpy as np
import pytest

from tinyyolo.datasets.drawn import school, toy
from tinyyolo.datasets.drawn.looks import LOOKS, in_colour, optics
from tinyyolo.datasets.drawn.more import MORE
from tinyyolo.datasets.drawn.objects import fit_side, paint

SIDE = 128
# The same on every CPU that was tried, whatever its BLAS. A change here means that a run in the school does not go on
# with what it began with, and that docs and weights no longer say what was drawn.
DIGESTS = {
    0: "19f883674451a707",
    1: "128eb286b9cb1991",
    2: "1b729b5b7cf9601f",
    3: "1e937c67645798d6",
    4: "f1c0b26626b6834b",
    5: "046fc5377903de78",
    6: "3dc3f626fa1c53ae",
    7: "466d48436e018d81",
    8: "5270147b2109ab21",
    9: "2a4d2267188f74a3",
}


def drawn(seed, size=SIDE):
    return toy.draw_scene(np.random.default_rng([21, seed]), size, "school")


@pytest.mark.parametrize("seed", DIGESTS)
def test_the_pictures_are_those_that_the_weights_were_learnt_from(seed):
    image, boxes, labels = drawn(seed)
    rows = "".join(f"{label} {' '.join(map(str, box))}\n" for label, box in zip(labels, boxes.tolist(), strict=True))
    assert hashlib.sha256(image.tobytes() + rows.encode()).hexdigest()[:16] == DIGESTS[seed]


@pytest.fixture
def bare(monkeypatch):
    """Without what comes after the objects: wakes, shadows, sensor, margins."""
    monkeypatch.setattr(school, "wakes", lambda scene, placed, image: image)
    monkeypatch.setattr(school, "cast_all", lambda scene, placed: np.zeros_like(scene.shade))
    monkeypatch.setattr(school, "seen", lambda rng, image, sprites, *rest: in_colour(rng, image, sprites))
    monkeypatch.setattr(school, "BARS", 0.0)


def test_boxes_are_where_objects_change_the_picture(bare, monkeypatch):
    settle, count = school.settle, 0
    for seed in range(6):
        image, boxes, _ = drawn(seed, 256)
        with monkeypatch.context() as empty:
            empty.setattr(school, "settle", lambda *args: settle(*args)[:0])
            ground, none, _ = drawn(seed, 256)
        assert len(none) == 0
        changed = np.abs(image - ground).max(2) > 0.01
        rest = changed.copy()
        for x0, y0, x1, y1 in np.column_stack([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])]).astype(int):
            inside = changed[y0:y1, x0:x1]
            # Two rows or columns: the first may be covered by a corner of its pixels that is not to be seen.
            assert inside[:2].any() and inside[-2:].any() and inside[:, :2].any() and inside[:, -2:].any()
            rest[y0:y1, x0:x1] = False
        assert not rest.any()
        count += len(boxes)
    assert count > 60


@pytest.mark.parametrize("name", list(MORE))
@pytest.mark.parametrize("side", [4.0, 20.0])
def test_objects_have_the_wanted_side_and_a_tight_box(name, side):
    """Rows and columns that are painted are those of the box, of the first to the last pixel that it touches."""
    rng = np.random.default_rng(5)
    for angle in rng.uniform(0, 2 * np.pi, 6):
        sprite = paint(fit_side(MORE[name](rng, np.array((0.6, 0.8))), angle, side), rng.uniform(79, 81, 2), 160)
        np.testing.assert_allclose(np.sqrt(np.prod(sprite.box[2:] - sprite.box[:2])), side, atol=0.35)
        rows, columns = np.nonzero(sprite.alpha.max(1))[0], np.nonzero(sprite.alpha.max(0))[0]
        covered = [columns[0] + sprite.x, rows[0] + sprite.y, columns[-1] + 1 + sprite.x, rows[-1] + 1 + sprite.y]
        np.testing.assert_array_equal(covered, [*np.floor(sprite.box[:2]), *np.ceil(sprite.box[2:])])


def test_every_class_appears_and_sides_are_tiny():
    found = [drawn(seed) for seed in range(50)]
    boxes, labels = np.vstack([boxes for _, boxes, _ in found]), np.concatenate([labels for *_, labels in found])
    assert (np.bincount(labels, minlength=len(school.NAMES)) > 0).all()
    side = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    assert 8 < side.mean() < 16 and np.mean(side < 16) > 0.6 and side.max() <= school.BOUNDS[1] + 1
    assert boxes.min() >= 0 and boxes.max() <= SIDE and (boxes[:, 2:] > boxes[:, :2]).all()
    assert any(len(boxes) == 0 for _, boxes, _ in found)


def test_nothing_lies_under_a_margin():
    rng, picture = np.random.default_rng(3), np.full((100, 100, 3), 77, np.uint8)
    boxes = np.array([[x, y, x + 6, y + 6] for x in range(0, 94, 6) for y in range(0, 94, 6)], dtype=float)
    for _ in range(8):
        out, left, labels = school.barred(rng, picture, boxes, np.arange(len(boxes)))
        assert (picture == 77).all() and 0 < len(left) == len(labels) < len(boxes)
        np.testing.assert_array_equal(left, boxes[labels])
        shown = (out == 77).all(2)
        assert 0.45 < shown.mean() < 0.95
        assert all(shown[int(y0) : int(y1), int(x0) : int(x1)].all() for x0, y0, x1, y1 in left)


@pytest.mark.parametrize("shape", [(40, 40), (40, 40, 3)])
def test_optics_see_one_band_or_three(shape):
    """Of one band the three that come out are alike."""
    rng = np.random.default_rng(0)
    flat = np.full(shape, 120, np.float32)
    for _ in range(20):
        out = optics(rng, flat)
        assert out.shape == (40, 40, 3) and out.dtype == np.uint8
        if len(shape) == 2:
            assert np.ptp(out.astype(int), axis=2).max() == 0
    assert abs(sum(share for share, _ in LOOKS.values()) - 1) < 1e-9
