"""Box forms by numbers worked out by hand; numpy and torch agree bit by bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.testing import assert_close

from tinyyolo.boxes.convert import FORMS, areas, centres, clip, convert, sides, to_fractions, to_pixels

# One box in each form: 4 wide and 6 high, its middle at (4, 6).
BOX = {"xyxy": [2.0, 3, 6, 9], "xywh": [2.0, 3, 4, 6], "cxcywh": [4.0, 6, 4, 6]}
PAIRS = [(source, target) for source in FORMS for target in FORMS]
HW = (6, 10)
FUNCTIONS = {
    **{f"{source} to {target}": (lambda b, s=source, t=target: convert(b, s, t)) for source, target in PAIRS},
    "sides": sides,
    "centres": centres,
    "areas": areas,
    "to_pixels": lambda b: to_pixels(b, HW),
    "to_fractions": lambda b: to_fractions(b, HW),
    "clip": lambda b: clip(b, HW),
}


@st.composite
def boxes(draw, dtype, ordered=False):
    """(…, 4) arrays; with `ordered`, xyxy of x1 <= x2 and y1 <= y2."""
    lead = draw(st.sampled_from([(), (0,), (1,), (5,), (2, 3), (2, 0, 3)]))
    numbers = st.floats(-1e4, 1e4, width=32 if dtype == np.float32 else 64)
    array = draw(hnp.arrays(dtype, (*lead, 4), elements=numbers))
    if ordered:
        array = np.concatenate(
            [np.minimum(array[..., :2], array[..., 2:]), np.maximum(array[..., :2], array[..., 2:])], axis=-1
        )
    return array


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_every_pair_of_forms_by_hand(source, target, make):
    assert convert(make([BOX[source]]), source, target).tolist() == [BOX[target]]
    assert convert(make(BOX[source]), source, target).tolist() == BOX[target]


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_parts_of_a_box_by_hand(make):
    box = make(BOX["xyxy"])
    assert sides(box).tolist() == [4, 6] and centres(box).tolist() == [4, 6] and float(areas(box)) == 24
    assert clip(make([[-2.0, -1, 12, 8], [1, 2, 3, 4], [11, 7, 12, 8]]), HW).tolist() == [
        [0, 0, 10, 6],
        [1, 2, 3, 4],
        [10, 6, 10, 6],
    ]


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_fractions_of_an_image_by_hand(make):
    fractions, pixels = make([[0.5, 0.25, 0.25, 0.5]]), make([[60.0, 0, 100, 50]])
    assert to_pixels(fractions, (100, 160)).tolist() == pixels.tolist()  # height 100, width 160
    assert to_fractions(pixels, (100, 160)).tolist() == fractions.tolist()
    both = make([[0.5, 0.25, 0.25, 0.5], [0.5, 0.25, 0.25, 0.5]])
    found = to_pixels(both, make([[100, 160], [200, 80]]))  # an image each
    assert found.tolist() == [[60, 0, 100, 50], [30, 0, 50, 100]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_numpy_equals_torch_bit_by_bit(name, dtype, data):
    array = data.draw(boxes(dtype))
    ours, theirs = FUNCTIONS[name](array), FUNCTIONS[name](torch.from_numpy(array.copy()))
    assert isinstance(theirs, torch.Tensor) and ours.dtype == theirs.numpy().dtype == dtype
    assert ours.shape == theirs.shape
    np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize(("source", "target"), PAIRS)
@settings(deadline=None, max_examples=25)
@given(array=boxes(np.float64, ordered=True))
def test_round_trips(source, target, array):
    start = convert(array, "xyxy", source)
    np.testing.assert_allclose(convert(convert(start, source, target), target, source), start, rtol=0, atol=1e-8)


@settings(deadline=None, max_examples=25)
@given(array=boxes(np.float64, ordered=True))
def test_fractions_and_back(array):
    np.testing.assert_allclose(to_pixels(to_fractions(array, HW), HW), array, rtol=0, atol=1e-8)
    inside = clip(array, HW)
    assert (inside >= 0).all() and (inside[..., 2:] <= [10, 6]).all() and (sides(inside) >= 0).all()
    np.testing.assert_array_equal(clip(inside, HW), inside)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_stay_as_they_are(name):
    array, tensor = np.array([BOX["xyxy"]]), torch.tensor([BOX["xyxy"]])
    FUNCTIONS[name](array), FUNCTIONS[name](tensor)
    assert array.tolist() == tensor.tolist() == [BOX["xyxy"]]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # the size of the image is fixed on purpose
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_flow_and_a_trace_follows(name):
    tensor = torch.tensor([[1.0, 2, 5, 4], [0.5, 1, 9, 5]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(FUNCTIONS[name], tensor)
    traced = torch.jit.trace(FUNCTIONS[name], tensor.detach())
    for other in (tensor.detach() + 1, torch.zeros(0, 4, dtype=torch.float64)):
        assert_close(traced(other), FUNCTIONS[name](other), atol=0, rtol=0)


@pytest.mark.parametrize("forms", [("xyxy", "xyhw"), ("ltrb", "xyxy")])
def test_unknown_forms_are_named(forms):
    with pytest.raises(ValueError, match=f"{forms[0]} to {forms[1]}: expected two of xyxy, xywh, cxcywh"):
        convert(np.zeros((1, 4)), *forms)
