"""RPN and RetinaNet's head: losses by hand, proposals, ties, padding, and the sparse gradient."""

import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from tinyyolo.assigners import RankingAssigner, ThresholdAssigner
from tinyyolo.assigners.samplers import RandomSampler
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.boxes.coders import DeltaCoder
from tinyyolo.boxes.similarity import SIMILARITIES
from tinyyolo.heads.dense import AnchorHead, best, flat, objects_of, rows
from tinyyolo.heads.retina import RetinaHead
from tinyyolo.heads.rpn import RPNHead, neighbourhoods
from tinyyolo.layers.losses import focal_loss, smooth_l1

SIZE, STRIDES, CHANNELS = (64, 96), (8, 16), 12
TARGETS = [
    {"boxes": torch.tensor([[10.0, 10, 40, 38], [60, 20, 70, 33]]), "labels": torch.tensor([1, 0])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
]


def grid(**more):
    return AnchorGrid(strides=STRIDES, scales=(4,), ratios=(0.5, 1, 2), **more)


def rpn(assigner=None, **more):
    torch.manual_seed(0)
    sampler = RandomSampler(16, 0.5)
    head = RPNHead((CHANNELS,) * 2, STRIDES, grid(), assigner or RankingAssigner(), sampler, channels=CHANNELS, **more)
    for p in head.parameters():  # away from the tiny initial values, so that boxes differ
        torch.nn.init.normal_(p, std=0.2)
    return head


def retina(**more):
    torch.manual_seed(0)
    head = RetinaHead(
        (CHANNELS,) * 2, STRIDES, 3, grid(), ThresholdAssigner("iou", 0.5, 0.4), channels=CHANNELS, **more
    )
    for p in head.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return head


def maps_of(images=2, learn=False):
    generator = torch.Generator().manual_seed(1)
    sides = grid().map_sizes(SIZE)
    return [torch.randn(images, CHANNELS, *s, generator=generator).requires_grad_(learn) for s in sides]


def test_flat_follows_the_order_of_the_anchors():
    x = torch.arange(2 * 6 * 2 * 3.0).view(2, 6, 2, 3)  # 3 anchors of 2 values
    found = flat([x], 2)
    assert found.shape == (2, 18, 2)
    for b, y, column, a in [(0, 0, 0, 0), (1, 1, 2, 2), (0, 1, 0, 1)]:
        torch.testing.assert_close(found[b, (y * 3 + column) * 3 + a], x[b, 2 * a : 2 * a + 2, y, column])


@pytest.mark.parametrize("count", [0, 2, 4, 9])
def test_best(count):
    scores = torch.tensor([[0.1, 0.9, 0.4, 0.3], [0.5, 0.2, 0.7, 0.6]])
    values, index = best(scores, count)
    torch.testing.assert_close(values, scores.gather(1, index))
    assert values.shape == (2, min(count, 4))
    if count < 4:
        torch.testing.assert_close(values, scores.topk(count).values)
    else:
        torch.testing.assert_close(values, scores)  # in place


def test_rows_by_hand():
    x = torch.tensor([[[1.0, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [11, 12]]])
    assert rows(x, torch.tensor([[2, 0], [1, 1]])).tolist() == [[[5, 6], [1, 2]], [[9, 10], [9, 10]]]


def test_levels_may_differ_in_anchors_a_cell():
    """2 of 4 px and 8 px at stride 4 on 1x2 cells, one of 8 px at stride 8 on one cell: 5 anchors."""
    anchors = AnchorGrid((4, 8), sizes=[[(4, 4), (8, 8)], [(8, 8)]], center_offset=0.5)
    head = AnchorHead((4, 8), anchors, RankingAssigner(topk=1, negative_below=None, keep_one=True))
    maps = [torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 1)]
    first, second = head.anchors(maps, (4, 8))
    assert first.tolist() == [[0, 0, 4, 4], [-2, -2, 6, 6], [4, 0, 8, 4], [2, -2, 10, 6]]
    assert second.tolist() == [[0, 0, 8, 8]]
    target = {"boxes": torch.tensor([[0.0, 0, 8, 8]]), "labels": torch.tensor([0])}
    (found,) = head.assign(maps, [target], (4, 8))
    assert found.gt_index.tolist() == [-1, -1, -1, -1, 0]


@pytest.mark.parametrize("assigner", [RankingAssigner(topk=1), ThresholdAssigner("iou", 0.5, 0.4)], ids=["rank", "iou"])
@pytest.mark.parametrize("inside_only", [False, True])
def test_anchors_beyond_an_image_in_the_corner_take_no_part(assigner, inside_only):
    """An image of 20 x 40 px (h, w) beside one of 64 x 96: itself filled up to 32 x 64.

    At stride 8 with anchors of 8 px around the corner of their cell: 4 x 8 of 8 x 12 cells are of the image; wholly
    inside it (x1, y1 >= 0, x2 < 40, y2 < 20) are rows 1 to 1 (4 to 12, the next ends at 20) and columns 1 to 4.
    """
    head = AnchorHead((8,), AnchorGrid((8,), sizes=[[(8, 8)]]), assigner, inside_only)
    maps = [torch.zeros(2, 1, 8, 12)]
    target = {"boxes": torch.tensor([[20.0, 4, 28, 12]]), "labels": torch.tensor([0])}  # the anchor of row 1, column 3
    small, large = {**target, "size_hw": torch.tensor([20, 40])}, {**target, "size_hw": torch.tensor([64, 96])}
    found = [one.gt_index.view(8, 12) for one in head.assign(maps, [small, large], (64, 96))]
    rows, columns = (slice(1, 2), slice(1, 5)) if inside_only else (slice(0, 4), slice(0, 8))
    part = torch.zeros(8, 12, dtype=torch.bool)
    part[rows, columns] = True
    if isinstance(assigner, ThresholdAssigner):  # ranking ignores those that are near the object
        assert (found[0][part] != -2).all()
    assert (found[0][~part] == -2).all() and found[0][1, 3] == 0 and (found[0] == 0).sum() == 1
    assert (found[0] == -1).any()
    (alone,) = head.assign([torch.zeros(1, 1, 8, 12)], [target], (64, 96))
    torch.testing.assert_close(found[1], alone.gt_index.view(8, 12))


def test_objects_of_a_batch_by_hand():
    boxes = torch.tensor([[1.0, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]], dtype=torch.float64)
    one, two = ({"boxes": boxes[:1], "labels": torch.tensor([7])}, {"boxes": boxes[1:], "labels": torch.tensor([8, 9])})
    targets = [one, TARGETS[1], two]
    found, labels = objects_of(targets, torch.tensor([2, 0, 2]), torch.tensor([1, 0, 0]))
    assert labels.tolist() == [9, 7, 8] and found.dtype == torch.float32
    assert found.tolist() == boxes[[2, 0, 1]].tolist()


def test_neighbourhoods_are_what_a_convolution_sees():
    x = torch.randn(2, 3, 4, 5)
    image, row, column = torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(5)).unbind(1)
    expected = F.unfold(x, 3, padding=1).transpose(1, 2).reshape(-1, 27)
    torch.testing.assert_close(neighbourhoods(x, image, row, column), expected)


@pytest.mark.parametrize("inside_only", [False, True])
def test_rpn_losses_are_those_of_all_drawn_anchors(inside_only):
    head, maps = rpn(inside_only=inside_only, box_beta=1 / 9), maps_of()
    losses, _ = head.losses_and_proposals(maps, TARGETS, SIZE, sample=False)
    logits = flat(head(maps)[0], 1)[..., 0]
    deltas = flat(head(maps)[1], 4)
    anchors, inside = head.grid.boxes(SIZE), head.grid.inside(SIZE)
    classes = boxes = count = 0
    for i, target in enumerate(TARGETS):
        gt_index = head.assigner.on_grid(head.grid, SIZE, target["boxes"], inside_only=inside_only).gt_index
        if inside_only:
            assert (gt_index[~inside] == -2).all()
        positive, negative = gt_index >= 0, gt_index == -1
        used = positive | negative
        classes += F.binary_cross_entropy_with_logits(logits[i][used], positive[used].float(), reduction="sum")
        expected = DeltaCoder().encode(anchors[positive], target["boxes"][gt_index[positive]])
        boxes += F.smooth_l1_loss(deltas[i][positive], expected, beta=1 / 9, reduction="sum")
        count += max(1, int(positive.sum())) + max(1, int(negative.sum()))
    torch.testing.assert_close(losses["rpn_cls"], classes / count)
    torch.testing.assert_close(losses["rpn_box"], boxes / count)


def test_gradient_through_sampled_cells_equals_the_dense_one():
    head, found = rpn(), []
    for dense in (False, True):
        maps = maps_of(learn=True)
        head.zero_grad()
        torch.manual_seed(5)
        if dense:
            outputs = head(maps)
            dense_rows = (flat(outputs[0], 1)[..., 0], flat(outputs[1], 4))
            head._at_cells = lambda _, *at, both=dense_rows: [part[at] for part in both]
        losses, (boxes, scores) = head.losses_and_proposals(maps, TARGETS, SIZE)
        assert not boxes.requires_grad and not scores.requires_grad
        sum(losses.values()).backward()
        found.append([*losses.values(), *(p.grad.clone() for p in head.parameters()), *(x.grad for x in maps)])
    for sparse, full in zip(*found, strict=True):
        torch.testing.assert_close(sparse, full, rtol=1e-5, atol=1e-6)


def test_sampling_draws_no_more_than_asked():
    head, maps = rpn(), maps_of()
    image, anchor, gt_index, count = head._draw(maps, TARGETS, SIZE, sample=True)
    assert torch.bincount(image).tolist() == [16, 16] and len(anchor) == 32
    assert (gt_index[image == 1] == -1).all() and int((gt_index >= 0).sum()) <= 8
    assert count == 16 + 16 + 1  # an image without positives counts one


def test_proposals_are_apart_ranked_inside_and_padded():
    head, maps = rpn(pre_nms=40, proposals=25, nms_iou=0.5), maps_of()
    boxes, scores = head.proposals(head(maps), SIZE)
    assert boxes.shape == (2, 25, 4) and scores.shape == (2, 25)
    for b, s in zip(boxes, scores, strict=True):
        real = b[s >= 0]
        assert len(real) > 0 and (s[:-1] >= s[1:]).all()
        assert (real[:, 2:] > real[:, :2]).all()
        assert real.min() >= 0 and real[:, 0::2].max() <= SIZE[1] and real[:, 1::2].max() <= SIZE[0]
        assert (b[s < 0] == 0).all()
    again, _ = head.proposals([[x[1:] for x in part] for part in head(maps)], SIZE)
    torch.testing.assert_close(again[0], boxes[1])  # batched equals single


@pytest.mark.parametrize(("levels", "kept"), [((0, 1), 2), ((0, 0), 1), ((1, 1), 1)])
def test_equal_boxes_suppress_each_other_within_a_level_only(levels, kept):
    head, box = rpn(), torch.tensor([20.0, 20.0, 50.0, 44.0])
    sides = grid().map_sizes(SIZE)
    logits = [torch.full((1, 3, *side), -9.0) for side in sides]
    deltas = [torch.full((1, 12, *side), -1e4) for side in sides]  # all others are clipped to nothing
    for anchor, level in enumerate(levels):
        row, column = 1, 1 + anchor
        base = head.grid.base_boxes[level][0] + torch.tensor([column, row]).repeat(2) * STRIDES[level]
        logits[level][0, 0, row, column] = 3.0
        deltas[level][0, :4, row, column] = DeltaCoder().encode(base, box)
    boxes, scores = head.proposals((logits, deltas), SIZE)
    assert int((scores > 0.5).sum()) == kept
    torch.testing.assert_close(scores[scores > 0.5], torch.full((kept,), 0.9525741))  # 1 / (1 + e^-3)
    torch.testing.assert_close(boxes[scores > 0.5], box.expand(kept, 4))


def test_all_boxes_without_area_leave_only_padding():
    head, maps = rpn(), maps_of()
    outputs = head(maps)
    away = [x.clone() for x in outputs[1]]
    for x in away:
        x[:, 0::4] = 1e4  # far beyond the right border: clipped to no width
    _, scores = head.proposals((outputs[0], away), SIZE)
    assert (scores < 0).all()


def test_retina_losses_by_hand():
    head, maps = retina(), maps_of()
    losses = head.losses(maps, TARGETS, SIZE)
    logits, deltas = (flat(part, k) for part, k in zip(head(maps), (3, 4), strict=True))
    classes = boxes = count = 0
    for i, target in enumerate(TARGETS):
        gt_index = head.assigner.on_grid(head.grid, SIZE, target["boxes"]).gt_index
        positive = gt_index >= 0
        one_hot = torch.zeros(len(gt_index), 3)
        one_hot[positive, target["labels"][gt_index[positive]]] = 1
        classes += sigmoid_focal_loss(logits[i], one_hot, reduction="none")[gt_index > -2].sum()
        expected = DeltaCoder().encode(head.grid.boxes(SIZE)[positive], target["boxes"][gt_index[positive]])
        boxes += (deltas[i][positive] - expected).abs().sum()
        count += max(1, int(positive.sum()))
    torch.testing.assert_close(losses["cls"], classes / count)
    torch.testing.assert_close(losses["box"], boxes / count)


def test_retina_learns_decoded_boxes_by_a_similarity():
    found = {}
    for name in ("diou", "iou"):
        head = retina(box_loss=name)
        for parameter in head.retina_reg.parameters():
            torch.nn.init.zeros_(parameter)  # what is predicted is then the anchor itself
        maps, distance, count = maps_of(), 0, 1  # an image without positives counts as 1
        gt_index = head.assigner.on_grid(head.grid, SIZE, TARGETS[0]["boxes"]).gt_index
        for anchor, index in zip(head.grid.boxes(SIZE), gt_index.tolist(), strict=True):
            if index >= 0:
                distance += 1 - SIMILARITIES[name].aligned(anchor, TARGETS[0]["boxes"][index])
                count += 1
        found[name] = head.losses(maps, TARGETS, SIZE)["box"]
        torch.testing.assert_close(found[name], distance / count)
    assert found["diou"] > found["iou"]
    with pytest.raises(ValueError, match="box_loss=diuo: unknown; did you mean 'diou'"):
        retina(box_loss="diuo")
    with pytest.raises(ValueError, match=r"box_beta=0\.1: of box_loss=deltas alone, not of diou"):
        retina(box_loss="diou", box_beta=0.1)


def test_retina_candidates_are_pairs_with_one_score():
    head, maps = retina(pre_nms=50), maps_of()
    boxes, scores = head.candidates(maps, SIZE)
    assert boxes.shape == (2, 100, 4) and scores.shape == (2, 100, 3)
    assert ((scores > 0).sum(2) == 1).all()
    probability = flat(head(maps)[0][:1], 3).sigmoid().flatten(1)
    torch.testing.assert_close(scores[:, :50].amax(2), probability.topk(50).values)


def test_retina_starts_from_its_prior():
    head = RetinaHead((4,), (8,), 2, AnchorGrid((8,), (4,), (1,)), RankingAssigner(), channels=4, prior=0.02)
    _, scores = head.candidates([torch.zeros(1, 4, 3, 3)], (24, 24))
    torch.testing.assert_close(scores.amax(2), torch.full((1, 18), 0.02))
    assert head.retina_reg.bias.abs().max() == 0 and math.isclose(
        head.retina_cls.weight.detach().std(), 0.01, rel_tol=0.5
    )


def test_rpn_starts_small():
    torch.manual_seed(0)
    head = RPNHead((CHANNELS,) * 2, STRIDES, grid(), RankingAssigner(), RandomSampler(16, 0.5), channels=128)
    for conv in (head.rpn_conv, head.rpn_cls, head.rpn_reg):
        assert 0.008 < conv.weight.std() < 0.012 and (conv.bias == 0).all()


def test_normaliser_of_the_rpn_by_hand():
    """Image 0 has positives and negatives; image 1 only ignored anchors and still counts as one of each."""
    head, maps = rpn(), maps_of()
    everything = {**TARGETS[1], "ignore": torch.tensor([[-100.0, -100, 300, 300]])}
    *_, gt_index, count = head._draw(maps, [TARGETS[0], everything], SIZE, sample=False)
    anchors = len(head.grid.boxes(SIZE))
    ignored = int((head.assigner.on_grid(head.grid, SIZE, TARGETS[0]["boxes"]).gt_index == -2).sum())
    assert len(gt_index) == anchors - ignored and count == anchors - ignored + 2


def test_focal_loss_is_torchvisions():
    logits, labels = torch.randn(20, 4) * 3, torch.randint(-1, 4, (20,))
    one_hot = torch.zeros(20, 4)
    one_hot[labels >= 0, labels[labels >= 0]] = 1
    expected = sigmoid_focal_loss(logits, one_hot, alpha=0.3, gamma=1.5, reduction="sum")
    torch.testing.assert_close(focal_loss(logits, labels, gamma=1.5, alpha=0.3), expected)
    assert focal_loss(logits[:0], labels[:0]) == 0


def test_losses_of_nothing_still_have_a_gradient():
    x = torch.zeros(0, 4, requires_grad=True)
    smooth_l1(x, torch.zeros(0, 4)).backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    ("channels", "strides", "anchors", "says"),
    [
        ((4, 4), (4, 8), grid(), "anchors.strides"),
        ((4, 8), STRIDES, grid(), "equal channels"),
        ((4, 4), STRIDES, AnchorGrid(STRIDES, sizes=[[(4, 4)], [(8, 8), (9, 9)]]), "as many anchors a cell"),
    ],
)
def test_heads_refuse_what_does_not_fit(channels, strides, anchors, says):
    with pytest.raises(ValueError, match=says):
        RPNHead(channels, strides, anchors, RankingAssigner(), RandomSampler(8, 0.5))


def test_cells_alone_give_what_the_whole_pass_gives():
    """Level 0 has the anchors 0 to 287 (8 x 12 cells of 3), level 1 those from 288 to 359; in no order."""
    head, maps = rpn(), maps_of()
    image, anchor = torch.tensor([1, 0, 1, 0, 0, 1]), torch.tensor([288, 287, 0, 359, 100, 17])
    logits, deltas = head._at_cells(maps, image, anchor)
    dense_logits, dense_deltas = (flat(part, k) for part, k in zip(head(maps), (1, 4), strict=True))
    torch.testing.assert_close(logits, dense_logits[image, anchor, 0])
    torch.testing.assert_close(deltas, dense_deltas[image, anchor])


@pytest.mark.parametrize("sample", [True, False])
def test_the_whole_pass_is_recorded_only_where_all_its_anchors_learn(sample, monkeypatch):
    head, maps, seen = rpn(), maps_of(), []
    monkeypatch.setattr(head, "proposals", lambda outputs, *_: seen.append(outputs[0][0].requires_grad))
    losses, _ = head.losses_and_proposals(maps, TARGETS, SIZE, sample=sample)
    assert losses["rpn_cls"].requires_grad and losses["rpn_box"].requires_grad
    with torch.no_grad():
        losses, _ = head.losses_and_proposals(maps, TARGETS, SIZE, sample=sample)
    assert not losses["rpn_cls"].requires_grad and not losses["rpn_box"].requires_grad
    assert seen == [not sample, False]


def test_images_do_not_suppress_each_other():
    """One box in image 0 from level 1, in image 2 from level 0: both stay, in their images."""
    head, box = rpn(), torch.tensor([20.0, 20.0, 50.0, 44.0])
    boxes, scores = head._suppress(
        torch.stack([box, box * 0, box])[:, None],
        torch.tensor([[0.9], [0.8], [0.7]]),
        torch.tensor([[1], [0], [0]]),
        count=1,
    )
    assert boxes[:, 0].tolist() == [box.tolist(), [0.0] * 4, box.tolist()]
    torch.testing.assert_close(scores, torch.tensor([[0.9], [-1.0], [0.7]]))  # -1 says that there is none


def test_half_precision_of_the_rpn_is_scored_in_float32():
    """In bfloat16 a score near 1 has steps of 1 / 256; the loss of the same logits is as exact."""
    head, maps = rpn(), maps_of()
    outputs = [[x.bfloat16() for x in part] for part in head(maps)]
    boxes, scores = head.proposals(outputs, SIZE)
    assert boxes.dtype == scores.dtype == torch.float32
    head.forward = lambda _: outputs
    losses, _ = head.losses_and_proposals(maps, TARGETS, SIZE, sample=False)
    assert losses["rpn_cls"].dtype == losses["rpn_box"].dtype == torch.float32


def test_rpn_settings():
    given = (CHANNELS,), (8,), AnchorGrid((8,), (4,), (1,)), RankingAssigner(), RandomSampler(16, 0.5)
    head = RPNHead(*given)
    assert head.rpn_conv.weight.shape == (256, CHANNELS, 3, 3) and head.box_beta == 0
    assert (head.counts, head.train_counts, head.nms_iou) == ((3000, 3000), (3000, 3000), 0.7)
    least = RPNHead(*given, channels=1, pre_nms=1, proposals=1, nms_iou=1.0)
    assert least.rpn_cls.weight.shape == (1, 1, 1, 1)
    for wrong in ({"channels": 0}, {"pre_nms": 0}, {"proposals": 0}, {"nms_iou": 1.5}, {"box_beta": -0.1}):
        ((name, value),) = wrong.items()
        with pytest.raises(ValueError, match=f"{name}={value}: expected a"):
            RPNHead(*given, **wrong)


def test_retina_settings():
    given = (CHANNELS,), (8,), 3, AnchorGrid((8,), (4,), (1,)), RankingAssigner()
    head = RetinaHead(*given)
    assert [len(branch) for branch in (head.cls_convs, head.reg_convs)] == [4, 4]
    assert head.cls_convs[0].conv.weight.shape == (256, CHANNELS, 3, 3)
    assert (head.gamma, head.alpha, head.box_beta, head.pre_nms) == (2, 0.25, 0, 3000)
    torch.testing.assert_close(head.retina_cls.bias.detach(), torch.full((3,), -math.log(99)))  # p = .01
    least = RetinaHead((CHANNELS,), (8,), 1, *given[3:], channels=1, convs=0, pre_nms=1, alpha=1.0, gamma=0.0)
    assert least.retina_cls.weight.shape == (1, CHANNELS, 3, 3)
    wrong = {"num_classes": 0, "channels": 0, "pre_nms": 0, "convs": -1, "alpha": 1.1, "gamma": -1.0, "box_beta": -1.0}
    for name, value in {**wrong, "prior": 0}.items():
        more = {"num_classes": 3, name: value}
        with pytest.raises(ValueError, match=f"{name}={value}: expected a"):
            RetinaHead(*given[:2], anchors=given[3], assigner=given[4], **more)
    with pytest.raises(ValueError, match="prior=1: expected a number between 0 and 1, neither of them"):
        RetinaHead(*given, prior=1)
