"""Similarities against hand-made values, the official figures and their own properties."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tinyyolo.boxes import similarity
from tinyyolo.boxes.similarity import (
    SIMILARITIES,
    aligned_ciou,
    aligned_simd,
    measure,
    pairwise_iof,
    pairwise_iou,
    pairwise_kld,
    pairwise_nwd,
    pairwise_simd,
)

OFFICIAL = np.load(Path(__file__).parent.parent / "parity/assign_boxes.npz")
SYMMETRIC = sorted(set(SIMILARITIES) - {"iof", "kld"})

UNIT = [0.0, 0.0, 8.0, 8.0]
EXPECTED = {  # similarity of UNIT with itself, with it moved by (3, 4), and with half its side in its middle
    "iou": (1.0, 20 / 108, 0.25),
    "iof": (1.0, 20 / 64, 0.25),
    "giou": (1.0, 20 / 108 - 24 / 132, 0.25),
    "diou": (1.0, 20 / 108 - 25 / 265, 0.25),
    "ciou": (1.0, 20 / 108 - 25 / 265, 0.25),
    "gwd": (1.0, 1 / (1 + np.log(26)), 1 / (1 + np.log(9))),
    "nwd": (np.exp(-1e-3 / 12.7), np.exp(-5 / 12.7), np.exp(-np.sqrt(8) / 12.7)),
    "dotd": (np.exp(-1e-3 / 12.7), np.exp(-5 / 12.7), np.exp(-1e-3 / 12.7)),
    # KL = 2 (3² + 4²) / 8², and (1/4 - 1 + ln 4) of both axes, halved
    "kld": (1.0, 1 / (1 + 50 / 64), 1 / (1 + 0.25 - 1 + np.log(4))),
    "wd": (1.0, 1 / 26, 1 / 9),
    # location 5 / 16; shape (4 / 12) of both axes
    "simd": (1.0, np.exp(-5 / 16), np.exp(-np.sqrt(2) / 3)),
}


def random_boxes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner, side = torch.rand(2, count, 2, generator=generator) * torch.tensor([50.0, 20.0]).view(2, 1, 1)
    return torch.cat((corner, corner + side), 1)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_hand_made_values(name):
    others = torch.tensor([UNIT, [3.0, 4, 11, 12], [2.0, 2, 6, 6]])
    assert_close(
        SIMILARITIES[name].pairwise(torch.tensor([UNIT]), others),
        torch.tensor([EXPECTED[name]]).float(),
        atol=1e-6,
        rtol=0,
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *((n, n) for n in ("iou", "giou", "diou", "ciou", "nwd", "dotd")),
        ("iou", "overlaps2d_iou"),
        ("iof", "overlaps2d_iof"),
    ],
)
def test_equal_to_official_code(name, key):
    boxes, others = torch.from_numpy(OFFICIAL["coder_P"][:24]), torch.from_numpy(OFFICIAL["coder_G"][:32])
    expected = torch.from_numpy(OFFICIAL[f"metric_{key}"])
    assert_close(SIMILARITIES[name].pairwise(boxes, others), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_aligned_is_the_diagonal_bit_by_bit(name):
    boxes, others = random_boxes(37), random_boxes(37, 1)
    diagonal = SIMILARITIES[name].pairwise(boxes, others).diagonal()
    assert_close(SIMILARITIES[name].aligned(boxes, others), diagonal, atol=0, rtol=0)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetric(name):
    boxes, others = random_boxes(9), random_boxes(7, 1)
    pairwise = SIMILARITIES[name].pairwise
    assert_close(pairwise(boxes, others), pairwise(others, boxes).T, atol=1e-6, rtol=0)


def test_the_sides_of_the_object_divide_in_kld():
    small, large = torch.tensor([[2.0, 2, 6, 6]]), torch.tensor([UNIT])
    assert_close(pairwise_kld(small, large), torch.tensor([[1 / (1 + 4 - 1 - np.log(4))]]).float())
    assert_close(pairwise_kld(large, small), torch.tensor([[1 / (0.25 + np.log(4))]]).float())


def test_simd_of_two_axes_and_its_floor():
    # dx / W = 3 / 16 * 2, dy / H = 4 / 16 * 3, equal sides
    moved = pairwise_simd(torch.tensor([UNIT]), torch.tensor([[3.0, 4, 11, 12]]), m=2, n=3)
    assert_close(moved, torch.tensor([[np.exp(-np.hypot(0.375, 0.75))]]).float())
    # (8 - 4) / 12 * 2 and (8 - 2) / 10 * 3, one centre
    smaller = pairwise_simd(torch.tensor([UNIT]), torch.tensor([[2.0, 3, 6, 5]]), m=2, n=3)
    assert_close(smaller, torch.tensor([[np.exp(-np.hypot(8 / 12, 18 / 10))]]).float())
    assert float(pairwise_simd(torch.tensor([UNIT]), torch.tensor([[800.0, 0, 808, 8]]))) == pytest.approx(1e-6)
    for wrong in ({"m": 0}, {"n": -1.0}):
        with pytest.raises(ValueError, match=r"[mn]=.*number above 0"):
            aligned_simd(torch.zeros(1, 4), torch.zeros(1, 4), **wrong)


# Of the authors' code: some boxes and objects of `assign_boxes.npz`.
RFLA = {
    "kld": [
        [0.00012906054325867444, 0.0012170204427093267, 0.00025480278418399394],
        [0.0027588317170739174, 0.0004929908900521696, 0.07971739768981934],
        [0.0005503293359652162, 0.04300697520375252, 0.0006509249215014279],
    ],
    "wd": [
        [1.90337425465259e-06, 4.456934220797848e-06, 1.315053054895543e-06],
        [3.5927543649449944e-05, 2.9946713766548783e-06, 0.0003903626056853682],
        [7.15667920303531e-06, 0.00019094403251074255, 2.8726722121064086e-06],
    ],
    "simd": [
        [9.999999974752427e-07, 9.999999974752427e-07, 9.999999974752427e-07],
        [9.999999974752427e-07, 9.999999974752427e-07, 2.4567640139139257e-05],
        [9.999999974752427e-07, 9.999999974752427e-07, 9.999999974752427e-07],
    ],
}


@pytest.mark.parametrize("name", RFLA)
def test_equal_to_the_code_of_rfla_and_simd(name):
    boxes, objects = torch.from_numpy(OFFICIAL["coder_P"][[2, 5, 11]]), torch.from_numpy(OFFICIAL["coder_G"][[0, 1, 2]])
    options = {"m": 6.13, "n": 4.59} if name == "simd" else {}
    assert_close(measure(name, **options).pairwise(objects, boxes).T, torch.tensor(RFLA[name]), atol=1e-6, rtol=1e-6)


def test_iof_divides_by_the_first():
    assert_close(pairwise_iof(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([UNIT])), torch.ones(1, 1))
    assert_close(pairwise_iof(torch.tensor([UNIT]), torch.tensor([[0.0, 0, 2, 2]])), torch.full((1, 1), 1 / 16))


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (0, 3), (3, 0)])
def test_empty(name, rows, columns):
    assert SIMILARITIES[name].pairwise(torch.zeros(rows, 4), torch.zeros(columns, 4)).shape == (rows, columns)
    assert SIMILARITIES[name].aligned(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_degenerate_boxes_stay_finite_and_so_do_their_gradients(name):
    boxes = torch.tensor([[5.0, 5, 5, 5], [5.0, 5, 9, 5], UNIT], requires_grad=True)
    matrix = SIMILARITIES[name].pairwise(boxes, boxes.detach().clone())
    assert bool(matrix.isfinite().all())
    matrix.sum().backward()
    assert bool(boxes.grad.isfinite().all())


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_low_precision_is_computed_in_float32(name, dtype):
    boxes, others = (torch.randint(0, 100, (5, 4)).sort(1).values.to(dtype) * 3 for _ in range(2))
    matrix = SIMILARITIES[name].pairwise(boxes, others)
    assert matrix.dtype == torch.float32
    assert_close(matrix, SIMILARITIES[name].pairwise(boxes.float(), others.float()), atol=0, rtol=0)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_gradient_is_that_of_the_formula(name):
    boxes = (random_boxes(6) + torch.rand(6, 4)).double().sort(1).values.requires_grad_()
    others = (random_boxes(6, 3) + torch.rand(6, 4)).double().sort(1).values
    if name == "ciou":  # its weight counts as a constant, which a numerical gradient cannot see
        aligned_ciou(boxes, others).sum().backward()
        assert bool(boxes.grad.abs().sum() > 0)
    else:
        assert torch.autograd.gradcheck(lambda b: SIMILARITIES[name].aligned(b, others), boxes)


def test_aligned_broadcasts():
    boxes, others = random_boxes(3)[:, None], random_boxes(5, 1)
    assert_close(SIMILARITIES["nwd"].aligned(boxes, others), pairwise_nwd(boxes[:, 0], others), atol=0, rtol=0)


@settings(deadline=None, max_examples=50)
@given(st.floats(0.5, 200), st.floats(-30, 30), st.floats(-30, 30))
def test_nwd_falls_with_its_constant_and_stays_in_range(constant, dx, dy):
    box = torch.tensor([[20.0, 20, 30, 32]])
    moved = box + torch.tensor([dx, dy, dx, dy])
    value, wider = (float(pairwise_nwd(box, moved, c)) for c in (constant, constant * 2))
    assert 0 <= value <= wider <= 1


def test_inputs_stay_as_they_are():
    boxes, others = random_boxes(4), random_boxes(4, 1)
    copies = boxes.clone(), others.clone()
    for entry in SIMILARITIES.values():
        entry.pairwise(boxes, others)
        entry.aligned(boxes, others)
    assert_close((boxes, others), copies, atol=0, rtol=0)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_wrong_shapes_are_named(name):
    entry = SIMILARITIES[name]
    with pytest.raises(ValueError, match=r"\(3, 5\)"):
        entry.pairwise(torch.zeros(3, 5), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"\(4,\)"):
        entry.pairwise(torch.zeros(4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(2, 4\)"):
        entry.aligned(torch.zeros(3, 4), torch.zeros(2, 4))


@pytest.mark.parametrize("name", SIMILARITIES)
def test_names_and_documentation_are_the_measures(name):
    entry = SIMILARITIES[name]
    assert (entry.pairwise.__name__, entry.aligned.__name__) == (f"pairwise_{name}", f"aligned_{name}")
    assert ">>> pairwise_" in entry.pairwise.__doc__ and f"`pairwise_{name}`" in entry.aligned.__doc__
    assert getattr(similarity, f"aligned_{name}") is entry.aligned


@pytest.mark.parametrize("constant", [0, -1, float("nan")])
@pytest.mark.parametrize("name", ["nwd", "dotd"])
def test_constant_must_be_positive(name, constant):
    with pytest.raises(ValueError, match=r"constant=.*number above 0"):
        SIMILARITIES[name].pairwise(torch.zeros(1, 4), torch.zeros(1, 4), constant)


def test_iou_of_boxes_without_area_is_zero():
    point = torch.tensor([[5.0, 5, 5, 5]])
    assert_close(pairwise_iou(point, point), torch.zeros(1, 1))


def test_equal_boxes_differ_by_exactly_nothing():
    box = torch.tensor([UNIT], dtype=torch.float64)
    assert float(pairwise_nwd(box, box, 1.0)) == pytest.approx(np.exp(-1e-3), rel=1e-15)
    assert float(SIMILARITIES["gwd"].pairwise(box, box)) == 1


def test_measure_binds_the_constant_where_there_is_one():
    boxes, others = random_boxes(3), random_boxes(3, 1)
    assert measure("iou", 5.0) is SIMILARITIES["iou"]
    nwd = measure("nwd", 5.0)
    assert_close(nwd.pairwise(boxes, others), pairwise_nwd(boxes, others, 5.0), atol=0, rtol=0)
    assert_close(nwd.aligned(boxes, others), pairwise_nwd(boxes, others, 5.0).diagonal(), atol=0, rtol=0)
    assert_close(
        measure("simd", 5.0, m=2, n=3).pairwise(boxes, others), pairwise_simd(boxes, others, 2, 3), atol=0, rtol=0
    )
    for name in SIMILARITIES:
        assert measure(name, 0.5)
        with pytest.raises(ValueError, match="constant=0: expected a number above 0"):
            measure(name, 0)
    with pytest.raises(ValueError, match="similarity=nws: unknown; did you mean 'nwd'"):
        measure("nws")
