"""The anchor YOLO's head: both kinds of scores, and their losses by hand."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from tinyyolo.assigners import RankingAssigner
from tinyyolo.assigners.assignment import IGNORE, NEGATIVE
from tinyyolo.boxes.similarity import aligned_iou
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


def head(scores, **more):
    torch.manual_seed(0)
    anchors = [[[6, 6], [10, 10]], [[20, 20]]]
    assigner = RankingAssigner(topk=3, negative_below=None, keep_one=True)
    made = YoloHead((8, 8), (4, 8), CLASSES, anchors, assigner, (8, 8), {"ciou": 1.0}, "iou", scores=scores, **more)
    for branch in (*made.box_branch, *made.class_branch):
        torch.nn.init.normal_(branch[-1].weight, std=0.3)
    return made.eval()


def maps():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 8, s, s, generator=generator) for s in (8, 4)]


@pytest.mark.parametrize(("scores", "outputs"), [("joint", CLASSES), ("product", CLASSES + 1)])
def test_scores_of_an_anchor(scores, outputs):
    made = head(scores)
    _, logits = made.raw(maps())
    boxes, found = made.candidates(maps(), SIZE)
    assert logits.shape == (2, 8 * 8 * 2 + 4 * 4, outputs) and boxes.shape == (2, 144, 4)
    probability = logits.sigmoid()
    expected = probability if scores == "joint" else probability[..., :1] * probability[..., 1:]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("weights", [None, torch.tensor([2.0, 1.0, 0.25])])
@pytest.mark.parametrize("scores", ["joint", "product"])
def test_losses_by_hand(scores, weights):
    made = head(scores, gains={"box": 2.0, "obj": 3.0, "cls": 0.5})
    made.class_weights = weights
    losses = made.losses(maps(), TARGETS, SIZE)
    deltas, logits = made.raw(maps())
    anchors, strides = made.anchors(maps(), SIZE)
    index = made.assign(maps(), TARGETS, SIZE)
    assert (index[1] == NEGATIVE).all() and (index[0] == IGNORE).any() and (index[0] >= 0).sum() >= 6
    predicted = made.decode(anchors, strides, deltas)[0]
    wanted, positive, norm = torch.zeros_like(logits), index[0] >= 0, 0.0
    objects, classes, importance = torch.zeros(logits.shape[:2]), 0.0, torch.ones_like(logits)
    for i in positive.nonzero()[:, 0].tolist():
        label = int(TARGETS[0]["labels"][index[0, i]])
        quality = aligned_iou(predicted[i : i + 1], TARGETS[0]["boxes"][index[0, i]][None])[0].detach().clamp(0, 1)
        factor = 1.0 if weights is None else float(weights[label])
        norm, objects[0, i] = norm + quality, quality
        if scores == "joint":
            wanted[0, i, label], importance[0, i] = quality, factor
        else:
            row = logits[0, i, 1:]
            classes = classes + factor * quality * bce(row, torch.eye(CLASSES)[label], reduction="sum")
    norm, used = norm.clamp(min=1), index != IGNORE
    if scores == "joint":
        classes = (bce(logits, wanted, reduction="none") * importance)[used].sum()
        torch.testing.assert_close(losses["obj"], torch.tensor(0.0))
    else:
        objectness = bce(logits[..., 0], objects, reduction="none")[used].sum()
        torch.testing.assert_close(losses["obj"], 3.0 * objectness / norm)
    torch.testing.assert_close(losses["cls"], 0.5 * classes / norm)
    assert losses["box"] > 0


@pytest.mark.parametrize("scores", ["joint", "product"])
def test_losses_of_nothing_have_a_gradient(scores):
    made = head(scores)
    losses = made.losses(maps(), [TARGETS[1]] * 2, SIZE)
    assert losses["box"] == 0 and losses["cls"].isfinite()
    sum(losses.values()).backward()
    assert made.class_branch[0][-1].weight.grad.abs().sum() > 0


def test_unknown_scores_are_named():
    with pytest.raises(ValueError, match=r"scores=both: unknown\. Choices: product, joint"):
        head("both")
