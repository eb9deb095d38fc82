"""Box heads: levels, pooling, sampling, losses by hand, and the cascade's refinement."""

import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import roi_align

from tinyyolo.assigners import ThresholdAssigner
from tinyyolo.assigners.samplers import RandomSampler
from tinyyolo.boxes.coders import DeltaCoder
from tinyyolo.heads import roi
from tinyyolo.heads.cascade import CascadeHead
from tinyyolo.heads.regions import RoISample, best_pairs, image_rois, sample_rois, spread
from tinyyolo.heads.roi import RoIHead, RoIPool, refined

SIZE, STRIDES, D, C = (64, 64), (4, 8, 16, 32), 5, 3
STDS = [(0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1)]
TARGETS = [
    {"boxes": torch.tensor([[8.0, 8, 20, 22], [30, 30, 60, 50]]), "labels": torch.tensor([2, 0])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
]
PROPOSALS = [
    torch.tensor([[9.0, 8, 21, 22], [0, 0, 12, 12], [31, 30, 60, 52], [40, 2, 60, 20]]),
    torch.tensor([[3.0, 3, 30, 30]]),
]


def overlap(bound):
    return ThresholdAssigner("iou", bound, bound, bound, low_quality=False)


def maps_of(images=2, learn=False):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(images, D, 64 // s, 64 // s, generator=generator).requires_grad_(learn) for s in STRIDES]


def roi_head(**more):
    torch.manual_seed(0)
    given = (overlap(0.5), RandomSampler(4, 0.25), DeltaCoder(stds=STDS[0]))
    return larger(RoIHead((D,) * 5, (*STRIDES, 64), C, *given, channels=16, **more))


def cascade(**more):
    torch.manual_seed(0)
    stages = {"assigner": [overlap(0.5), overlap(0.6)], "coder": [DeltaCoder(stds=s) for s in STDS]}
    stages = {"sampler": RandomSampler(4, 0.25), "loss_weights": (1, 0.5), "channels": 16, **stages, **more}
    return larger(CascadeHead((D,) * 5, (*STRIDES, 64), C, **stages))


def larger(head):
    for p in head.parameters():  # away from the tiny initial values, so that boxes move
        torch.nn.init.normal_(p, std=0.3)
    return head


@pytest.mark.parametrize(
    ("side", "level"), [(0, 0), (8, 0), (111.9, 0), (112, 1), (223.9, 1), (224, 2), (447.9, 2), (448, 3), (5000, 3)]
)
def test_level_of_a_region(side, level):
    rois = torch.tensor([[0.0, 10, 10, 10 + side, 10 + side]])
    assert RoIPool(STRIDES, levels=4, size=7, finest_scale=56.0).levels(rois).tolist() == [level]


@pytest.mark.parametrize("learn", [True, False])
def test_pooling_is_torchvisions_with_an_adaptive_grid(learn):
    maps, scale = maps_of(learn=learn), 2.0  # larger scale: small regions use all maps
    rois = torch.tensor(
        [[0, 1.0, 2, 5, 9], [1, 0, 0, 64, 64], [0, 20, 20, 31, 28], [1, 7.5, 3.25, 7.5, 9], [1, 4, 4, 12, 30]]
    )
    pool = RoIPool(STRIDES, levels=4, size=3, finest_scale=scale)
    assert pool.levels(rois).unique().numel() >= 3
    found = pool(maps, rois)
    for row, level in enumerate(pool.levels(rois).tolist()):
        expected = roi_align(maps[level], rois[row : row + 1], 3, 1 / STRIDES[level], 0, True)
        torch.testing.assert_close(found[row : row + 1], expected)
    assert pool(maps, rois[:0]).shape == (0, D, 3, 3)


def test_sampling_adds_the_ground_truth():
    sample = sample_rois(PROPOSALS, TARGETS, overlap(0.5), RandomSampler(None, 1.0), C)
    # positives first: two objects themselves, then proposals 0 and 2; then the rest
    assert sample.rois[:, 0].tolist() == [0] * 6 + [1]
    torch.testing.assert_close(sample.rois[:2, 1:], TARGETS[0]["boxes"])
    torch.testing.assert_close(sample.rois[2:6, 1:], PROPOSALS[0][[0, 2, 1, 3]])
    assert sample.labels.tolist() == [2, 0, 2, 0, C, C, C]
    assert sample.from_gt.tolist() == [True, True] + [False] * 5
    torch.testing.assert_close(sample.gt_boxes[:4], TARGETS[0]["boxes"][[0, 1, 0, 1]])


def test_sampling_keeps_to_the_numbers():
    sample = sample_rois(PROPOSALS, TARGETS, overlap(0.5), RandomSampler(4, 0.25), C)
    assert torch.bincount(sample.rois[:, 0].long()).tolist() == [3, 1]  # 1 positive, 2 negatives; 1 negative
    assert (sample.labels < C).tolist() == [True, False, False, False]


def test_ignore_regions_are_no_background():
    target = {**TARGETS[1], "ignore": torch.tensor([[0.0, 0, 64, 64]])}
    sample = sample_rois(PROPOSALS[1:], [target], overlap(0.5), RandomSampler(None, 1.0), C)
    assert len(sample.labels) == 0


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_losses_by_hand(class_agnostic):
    head, maps = roi_head(class_agnostic=class_agnostic, box_beta=1.0), maps_of()
    losses = head.losses(maps, PROPOSALS, TARGETS, SIZE, sample=False)
    sample = sample_rois(PROPOSALS, TARGETS, head.assigners[0], head.everything, C)
    logits, deltas = head.bbox_head(head.pool(maps, sample.rois))
    assert logits.shape == (7, C + 1) and deltas.shape == (7, 1 if class_agnostic else C, 4)
    torch.testing.assert_close(losses["roi_cls"], F.cross_entropy(logits, sample.labels))
    columns = [0] * 4 if class_agnostic else sample.labels[:4]
    expected = DeltaCoder(stds=STDS[0]).encode(sample.rois[:4, 1:], sample.gt_boxes[:4])
    boxes = F.smooth_l1_loss(deltas[range(4), columns], expected, reduction="sum") / 7
    torch.testing.assert_close(losses["roi_box"], boxes)


def test_nothing_to_learn_from_is_normal():
    head, maps = roi_head(), maps_of(images=1, learn=True)
    losses = head.losses(maps, [torch.zeros(0, 4)], TARGETS[1:], SIZE)
    assert losses["roi_cls"] == 0 and losses["roi_box"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters())
    valid = torch.zeros(1, 6, dtype=torch.bool)
    boxes, scores = head.candidates(maps, torch.zeros(1, 6, 4), valid, SIZE)
    assert boxes.shape == (1, 18, 4) and (scores == 0).all()


@pytest.mark.parametrize("make", [roi_head, cascade], ids=["roi", "cascade"])
def test_candidates_batched_equal_single_and_padding_is_empty(make):
    head, maps = make(), maps_of()
    proposals, valid = torch.zeros(2, 6, 4), torch.zeros(2, 6, dtype=torch.bool)
    for i, boxes in enumerate(PROPOSALS):
        proposals[i, : len(boxes)], valid[i, : len(boxes)] = boxes, True
    boxes, scores = head.candidates(maps, proposals, valid, SIZE)
    per = boxes.shape[1] // 6
    assert (scores[~valid.repeat_interleave(per, 1)] == 0).all()
    assert boxes.min() >= 0 and boxes[..., 0::2].max() <= SIZE[1]
    for i in range(2):
        alone = head.candidates([x[i : i + 1] for x in maps], proposals[i : i + 1], valid[i : i + 1], SIZE)
        torch.testing.assert_close(alone[0][0], boxes[i])
        torch.testing.assert_close(alone[1][0], scores[i])


def test_class_boxes_become_pairs():
    head, maps = roi_head(), maps_of(images=1)
    valid = torch.ones(1, 4, dtype=torch.bool)
    boxes, scores = head.candidates(maps, PROPOSALS[0][None], valid, SIZE)
    rois = image_rois(PROPOSALS[0][None], valid)
    logits, deltas = head.bbox_head(head.pool(maps, rois))
    expected = head.bbox_head.boxes(rois, deltas, SIZE)
    torch.testing.assert_close(boxes.view(4, C, 4), expected)
    torch.testing.assert_close(scores.view(4, C, C).diagonal(dim1=1, dim2=2), logits.softmax(1)[:, :C])
    assert int((scores > 0).sum()) == 4 * C


def test_best_pairs_keeps_the_best():
    boxes, scores = torch.rand(2, 5, 3, 4), torch.rand(2, 5, 3)
    some, values = best_pairs(boxes, scores, 4)
    assert some.shape == (2, 4, 4) and values.shape == (2, 4, 3)
    torch.testing.assert_close(values.amax(2), scores.flatten(1).topk(4).values)
    assert best_pairs(boxes, scores, 15)[0].shape == (2, 15, 4)


def test_spread_undoes_selection():
    valid = torch.tensor([[True, False, True], [False, True, False]])
    x = torch.rand(3, 2)
    out = spread(x, valid)
    torch.testing.assert_close(out[valid], x)
    assert (out[~valid] == 0).all()


def test_refinement_drops_ground_truth_rows_and_keeps_images_apart():
    head = cascade().bbox_head[0]
    sample = sample_rois(PROPOSALS, TARGETS, overlap(0.5), RandomSampler(None, 1.0), C)
    deltas = torch.randn(7, 1, 4)
    found = refined(head, sample, deltas, SIZE, images=2)
    expected = head.boxes(sample.rois, deltas, SIZE).squeeze(1)
    torch.testing.assert_close(found[0], expected[2:6])
    torch.testing.assert_close(found[1], expected[6:])
    assert not any(boxes.requires_grad for boxes in found)


def test_refinement_by_hand():
    """std .1 and .2: dx = 1 moves an 8 px box by .8 px, dw = ln 2 / .2 doubles it; the object itself is left out."""
    head = cascade().bbox_head[0]
    rois = torch.tensor([[0.0, 8, 8, 16, 16], [0, 8, 8, 16, 16], [1, 56, 40, 64, 48]])
    from_gt = torch.tensor([True, False, False])
    sample = RoISample(rois, torch.tensor([2, 2, C]), rois[:, 1:], from_gt)
    deltas = torch.tensor([[[0.0, 0, 0, 0]], [[1, 0, 0, 0]], [[0, -1, math.log(2) / 0.2, 0]]])
    first, second = refined(head, sample, deltas, SIZE, images=2)
    torch.testing.assert_close(first, torch.tensor([[8.8, 8, 16.8, 16]]))
    torch.testing.assert_close(second, torch.tensor([[52.0, 39.2, 64, 47.2]]))  # cut at 64


def test_box_head_starts_small():
    torch.manual_seed(0)
    head = RoIHead((D,) * 5, (*STRIDES, 64), C, overlap(0.5), RandomSampler(4, 0.25), DeltaCoder()).bbox_head
    assert 0.009 < head.fc_cls.weight.std() < 0.011 and 0.0009 < head.fc_reg.weight.std() < 0.0011
    bound = (6 / (D * 49 + 1024)) ** 0.5  # Glorot's
    assert 0.99 * bound < head.shared_fcs[0].weight.abs().max() <= bound
    assert not any(layer.bias.any() for layer in (head.fc_cls, head.fc_reg, *head.shared_fcs))


def test_cascade_learns_on_refined_boxes_with_stage_weights():
    head, maps = cascade(), maps_of()
    losses = head.losses(maps, PROPOSALS, TARGETS, SIZE, sample=False)
    assert list(losses) == ["roi0_cls", "roi0_box", "roi1_cls", "roi1_box"]
    first = sample_rois(PROPOSALS, TARGETS, head.assigners[0], head.everything, C)
    logits, deltas = head.bbox_head[0](head.pool(maps, first.rois))
    torch.testing.assert_close(losses["roi0_cls"], F.cross_entropy(logits, first.labels))
    boxes = refined(head.bbox_head[0], first, deltas, SIZE, images=2)
    second = sample_rois(boxes, TARGETS, head.assigners[1], head.everything, C)
    logits, _ = head.bbox_head[1](head.pool(maps, second.rois))
    torch.testing.assert_close(losses["roi1_cls"], 0.5 * F.cross_entropy(logits, second.labels))


def test_cascade_scores_are_the_softmax_of_mean_logits():
    head, maps = cascade(), maps_of(images=1)
    valid = torch.ones(1, 4, dtype=torch.bool)
    boxes, scores = head.candidates(maps, PROPOSALS[0][None], valid, SIZE)
    rois, logits = image_rois(PROPOSALS[0][None], valid), []
    for stage in head.bbox_head:
        values, deltas = stage(head.pool(maps, rois))
        logits.append(values)
        rois = F.pad(stage.boxes(rois, deltas, SIZE).squeeze(1), (1, 0))
    torch.testing.assert_close(scores[0], ((logits[0] + logits[1]) / 2).softmax(1)[:, :C])
    torch.testing.assert_close(boxes[0], rois[:, 1:])


def test_cascade_refuses_unequal_stages():
    with pytest.raises(ValueError, match="1, 2 and 2"):
        cascade(assigner=[overlap(0.5)])


def test_sample_of_no_images_fields():
    sample = RoISample(
        torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), torch.zeros(0, dtype=torch.bool)
    )
    assert refined(cascade().bbox_head[0], sample, torch.zeros(0, 1, 4), SIZE, images=1)[0].shape == (0, 4)


def test_two_classes_have_boxes_of_their_own():
    """One region that is an object of class 1 itself: its loss is |delta| of class 1 alone, divided by one region."""
    torch.manual_seed(0)
    head = larger(RoIHead((D,) * 5, (*STRIDES, 64), 2, overlap(0.5), RandomSampler(4, 1.0), DeltaCoder(), channels=16))
    maps, target = maps_of(images=1), {"boxes": torch.tensor([[8.0, 8, 20, 22]]), "labels": torch.tensor([1])}
    losses = head.losses(maps, [torch.zeros(0, 4)], [target], SIZE)
    logits, deltas = head.bbox_head(head.pool(maps, F.pad(target["boxes"], (1, 0))))
    assert deltas.shape == (1, 2, 4)
    torch.testing.assert_close(losses["roi_box"], deltas[0, 1].abs().sum())
    torch.testing.assert_close(losses["roi_cls"], F.cross_entropy(logits, torch.tensor([1])))


def test_training_samples_unless_told_otherwise(monkeypatch):
    """4 regions of an image at most, a quarter of them positive: 3 and 1 here, 7 without sampling."""
    head, seen = roi_head(), []
    pool = head.pool.forward
    monkeypatch.setattr(head.pool, "forward", lambda maps, rois: seen.append(len(rois)) or pool(maps, rois))
    head.losses(maps_of(), PROPOSALS, TARGETS, SIZE)
    head.losses(maps_of(), PROPOSALS, TARGETS, SIZE, sample=False)
    assert seen == [4, 7]


def test_only_a_stage_that_is_followed_by_another_refines(monkeypatch):
    calls, compute = [], roi.refined
    monkeypatch.setattr(roi, "refined", lambda head, *args, **more: calls.append(head) or compute(head, *args, **more))
    roi_head().losses(maps_of(), PROPOSALS, TARGETS, SIZE)
    head = cascade()
    head.losses(maps_of(), PROPOSALS, TARGETS, SIZE)
    assert calls == [head.bbox_head[0]]


def test_half_precision_of_a_box_head_is_scored_in_float32():
    head = roi_head().bbox_head.bfloat16()
    logits, deltas = head(torch.ones(2, D, 7, 7).bfloat16())
    assert logits.dtype == deltas.dtype == torch.float32


def test_settings():
    given, samples = ((D,) * 5, (*STRIDES, 64), C), RandomSampler(4, 0.25)
    head = RoIHead(*given, overlap(0.5), samples, DeltaCoder())
    stages = {"assigner": [overlap(0.5)] * 2, "sampler": samples, "coder": [DeltaCoder()] * 2, "loss_weights": [1, 0]}
    other = CascadeHead(*given, **stages)
    assert [stage.box_beta for stage in (*head.stages, *other.stages)] == [0, 1, 1]
    for made in (head, other):
        assert [layer.weight.shape[0] for layer in made.stages[0].shared_fcs] == [1024, 1024]
        assert (made.pool.strides, made.pool.size, made.pool.finest_scale) == (STRIDES, 7, 56)
    assert head.max_candidates == 30000 and other.loss_weights == (1, 0)
    assert head.stages[0].fc_reg.weight.shape[0] == 4 * C and other.stages[1].fc_reg.weight.shape[0] == 4
    least = {"channels": 1, "levels": 1, "pool_size": 1, "finest_scale": 0.5, "max_candidates": 1}
    least = RoIHead((D,), (4,), 1, overlap(0.5), samples, DeltaCoder(), **least)
    assert least.pool.strides == (4,) and least.bbox_head.shared_fcs[0].weight.shape == (1, D)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_classes": 0},
        {"channels": 0},
        {"levels": 0},
        {"pool_size": 0},
        {"finest_scale": 0},
        {"box_beta": -0.5},
        {"max_candidates": 0},
    ],
)
def test_numbers_out_of_their_bounds(wrong):
    ((name, value),) = wrong.items()
    given = {"num_classes": C, "assigner": overlap(0.5), "sampler": RandomSampler(4, 0.25), "coder": DeltaCoder()}
    with pytest.raises(ValueError, match=f"{name}={value}: expected a"):
        RoIHead((D,) * 5, (*STRIDES, 64), **{**given, **wrong})


def test_weights_of_stages_are_no_less_than_nothing():
    with pytest.raises(ValueError, match=r"loss_weights=\(1, -1\): expected numbers of at least 0"):
        cascade(loss_weights=(1, -1))
