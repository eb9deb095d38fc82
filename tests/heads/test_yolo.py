"""The anchor YOLO's head: scores, and the losses by hand."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from tinyyolo.assigners import RankingAssigner
from tinyyolo.assigners.assignment import IGNORE, NEGATIVE
from tinyyolo.boxes.similarity import SIMILARITIES, aligned_iou
from tinyyolo.heads.yolo import YoloHead

SIZE, CLASSES = (32, 32), 3
TARGETS = [
    {
        "boxes": torch.tensor([[3.0, 3, 11, 10], [20, 18, 27, 29]]),
        "labels": torch.tensor([2, 0]),
        "ignore": torch.tensor([[0.0, 20, 10, 32]]),
    },
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
]


def head(**more):
    torch.manual_seed(0)
    anchors = [[[6, 6], [10, 10]], [[20, 20]]]
    assigner = RankingAssigner(topk=3, negative_below=None, keep_one=True)
    made = YoloHead((8, 8), (4, 8), CLASSES, anchors, assigner, (8, 8), {"ciou": 1.0}, **{"quality": "iou", **more})
    for branch in (*made.box_branch, *made.class_branch):
        torch.nn.init.normal_(branch[-1].weight, std=0.3)
    return made.eval()


def maps():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 8, s, s, generator=generator) for s in (8, 4)]


def test_scores_of_an_anchor():
    made = head()
    _, logits = made.raw(maps())
    boxes, found = made.candidates(maps(), SIZE)
    assert logits.shape == (2, 8 * 8 * 2 + 4 * 4, CLASSES) and boxes.shape == (2, 144, 4)
    torch.testing.assert_close(found, logits.sigmoid())


@pytest.mark.parametrize("weights", [None, torch.tensor([2.0, 1.0, 0.25])])
@pytest.mark.parametrize("kind", ["iou", "one"])
def test_losses_by_hand(kind, weights):
    made = head(quality=kind, gains={"box": 2.0, "cls": 0.5})
    made.class_weights = weights
    losses = made.losses(maps(), TARGETS, SIZE)
    deltas, logits = made.raw(maps())
    anchors, strides = made.anchors(maps(), SIZE)
    index = made.assign(maps(), TARGETS, SIZE)
    assert (index[1] == NEGATIVE).all() and (index[0] == IGNORE).any() and (index[0] >= 0).sum() >= 6
    predicted = made.decode(anchors, strides, deltas)[0]
    wanted, positive = torch.zeros_like(logits), index[0] >= 0
    norm = distance = 0.0
    importance = torch.ones_like(logits)
    for i in positive.nonzero()[:, 0].tolist():
        label = int(TARGETS[0]["labels"][index[0, i]])
        pair = predicted[i : i + 1], TARGETS[0]["boxes"][index[0, i]][None]
        iou = aligned_iou(*pair)[0].detach().clamp(0, 1)
        quality = iou if kind == "iou" else 1.0
        wanted[0, i, label], norm = quality, norm + quality
        distance = distance + (1 - SIMILARITIES["ciou"].aligned(*pair)[0]) * quality
        importance[0, i] = 1.0 if weights is None else float(weights[label])
    classes = (bce(logits, wanted, reduction="none") * importance)[index != IGNORE].sum()
    norm = max(float(norm), 1.0)
    torch.testing.assert_close(losses["cls"], 0.5 * classes / norm)
    torch.testing.assert_close(losses["box"], 2.0 * distance / norm)


def test_losses_of_nothing_have_a_gradient():
    made = head()
    losses = made.losses(maps(), [TARGETS[1]] * 2, SIZE)
    assert losses["box"] == 0 and losses["cls"].isfinite()
    sum(losses.values()).backward()
    assert made.class_branch[0][-1].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"quality": "both"}, r"quality=both: unknown\. Choices: one, iou, nwd"),
        ({"gains": {"box": 1.0, "obj": 1.0}}, r"gains: unknown obj\. Choices: box, cls"),
        ({"gains": {"box": "abc"}}, r"gains=\{'box': 'abc'\}: expected a number for each of some of box, cls"),
        ({"gains": 3}, r"gains=3: expected a number"),
    ],
)
def test_unknown_names_are_told(wrong, says):
    with pytest.raises(ValueError, match=says):
        head(**wrong)
