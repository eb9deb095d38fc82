"""YOLOv3's head: losses and scores by hand, the priors it starts from, cores."""

import math

import pytest
import torch

from tinyyolo.assigners import CellAssigner
from tinyyolo.heads.yolov3 import YOLOv3Head

SIZE, CHANNELS, CLASSES = (16, 32), 4, 2
ANCHORS = [[(8, 8)], [(16, 16), (12, 24)]]


def head_of(**more):
    return YOLOv3Head((CHANNELS,) * 2, (8, 16), CLASSES, ANCHORS, CellAssigner(), **more)


def fixed(head, **values):
    """The head with these outputs of every anchor, in the order of `values`: x, y, w, h, objectness, classes."""
    for conv in head.convs_pred:
        torch.nn.init.zeros_(conv.weight)
        conv.bias.data = torch.tensor([*values.values()] * (len(conv.bias) // len(values)))
    return head.eval()


def maps_of():
    return [torch.zeros(1, CHANNELS, 2, 4), torch.zeros(1, CHANNELS, 1, 2)]


def test_modules_count_from_the_coarsest_level_and_maps_from_the_finest():
    head = head_of()
    assert [len(conv.bias) for conv in head.convs_pred] == [2 * 7, 7]
    assert [tuple(x.shape) for x in head(maps_of())] == [(1, 7, 2, 4), (1, 14, 1, 2)]


def test_it_starts_from_eight_objects_a_map_of_608_px():
    coarse, fine = (conv.bias.view(-1, 7) for conv in head_of().convs_pred)
    for bias, cells in ((coarse, 38**2), (fine, 76**2)):
        torch.testing.assert_close(bias[:, 4].sigmoid(), torch.full((len(bias),), 8 / cells))
        torch.testing.assert_close(bias[:, 5:].sigmoid(), torch.full((len(bias), 2), 0.01))
        assert not bias[:, :4].any()


def test_losses_by_hand():
    """An 8x8 object at (10, 2), whose centre lies in cell (1, 0) of the fine level: its anchor learns it, IoU 36 / 92.

    (The coarse anchors are 64 / 256 and 64 / 288.) All outputs but h are 0, so every cross entropy is ln 2 whatever it
    learns: of 2 classes; of the objectness of 12 anchors; of x and y, which count twice, as does the square of h.
    """
    head = fixed(head_of(), x=0.0, y=0.0, w=0.0, h=0.5, objectness=0.0, a=0.0, b=0.0)
    target = {"boxes": torch.tensor([[10.0, 2, 18, 10]]), "labels": torch.tensor([1])}
    found = {name: value.item() for name, value in head.losses(maps_of(), [target], SIZE).items()}
    ln2 = math.log(2)
    expected = {"cls": 2 * ln2, "obj": 12 * ln2, "xy": 2 * 2 * ln2, "wh": 2 * 0.5**2}
    assert found == pytest.approx(expected, rel=1e-6)


def test_nothing_to_learn_but_the_background():
    head = head_of()
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = head.losses(maps_of(), [target], SIZE)
    assert losses["cls"] == losses["xy"] == losses["wh"] == 0 and losses["obj"] > 0
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


@pytest.mark.parametrize(
    ("objectness", "classes", "expected"),
    [
        (0.5, (0.06, 0.05), (0.03, 0.0)),  # a class score must be more than .05, the product need not
        (0.005, (0.9, 0.1), (0.0045, 0.0005)),  # the bound of the objectness itself counts
        (0.00499, (0.9, 0.9), (0.0, 0.0)),
    ],
)
def test_scores_by_hand(objectness, classes, expected):
    odds = [math.log(p / (1 - p)) for p in (objectness, *classes)]
    odds[0] += 1e-5  # rounding of the logit
    odds[2] -= 1e-5
    head = fixed(head_of(), x=0.0, y=0.0, w=0.0, h=math.log(2), objectness=odds[0], a=odds[1], b=odds[2])
    boxes, scores = head.candidates(maps_of(), SIZE)
    torch.testing.assert_close(scores[0], torch.tensor(expected).expand(12, -1), atol=1e-6, rtol=1e-4)
    # 8x16 at the cell's middle (4, 4), 16x32 at (8, 8): not clipped
    assert boxes[0, [0, 8]].round().tolist() == [[0, -4, 8, 12], [0, -8, 16, 24]]


def test_a_core_owns_the_cells_that_begin_in_it():
    head = fixed(head_of(), x=0.0, y=0.0, w=0.0, h=0.0, objectness=2.0, a=2.0, b=2.0)
    boxes, scores = head.candidates(maps_of(), SIZE, (8, 0, 24, 8))
    everything, _ = head.candidates(maps_of(), SIZE)
    torch.testing.assert_close(boxes, everything)
    assert (scores[0] > 0).all(1).nonzero()[:, 0].tolist() == [1, 2, 10, 11]  # columns 8 and 16 of row 0; 16


def test_one_list_of_anchors_a_level():
    with pytest.raises(ValueError, match="anchors: they need one entry per level, 2"):
        YOLOv3Head((4, 4), (8, 16), 2, ANCHORS[:1], CellAssigner())
