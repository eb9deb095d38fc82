"""Grid R-CNN's head: the class of a region from its features, its box from nine points found on heatmaps."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyyolo.assigners.base import Assigner
from tinyyolo.assigners.samplers import RandomSampler
from tinyyolo.boxes.convert import centres, clip, convert, sides
from tinyyolo.boxes.graph import for_onnx, ordered, ranks
from tinyyolo.boxes.nms import ClassWise, above, grouped_nms
from tinyyolo.config import whole, within
from tinyyolo.heads.dense import BOX
from tinyyolo.heads.regions import RoISample, image_rois, in_parts, sample_rois, seats, spread
from tinyyolo.heads.roi import BoxHead, RoIPool, StagedHead
from tinyyolo.layers.blocks import he_normal, initialise, logit
from tinyyolo.together import of_batch

SIDE = 3  # points a side
POINTS = SIDE * SIDE  # column by column: point i is in column i // 3, row i % 3
SUB = 4  # cells of a point's heatmap per cell of its features, by two deconvolutions of stride 2
MESSAGE_KERNEL = 5
DECONV_INIT_STD, POINT_PRIOR = 0.001, 0.01


class GridBranch(nn.Module):
    """Features of a region -> a heatmap for each of its nine grid points (Lu et al., 2019, sections 3.1 and 3.2).

    The heatmap of a point is a part of the map of twice the region, see `windows`.

    Args:
        in_channels: D of the pooled features.
        channels: of each point.
        convs: 3x3 convolutions before the points part; the first has stride 2.
        norm_groups: of the group norm behind each.
    """

    def __init__(self, in_channels: int, channels: int, convs: int, norm_groups: int):
        super().__init__()
        width = POINTS * channels
        self.channels = channels
        inputs = [in_channels] + [width] * (convs - 1)
        self.convs = nn.Sequential(*(_conv(c, width, 1 if i else 2, norm_groups) for i, c in enumerate(inputs)))
        self.forder_trans, self.sorder_trans = _messages(channels), _messages(channels)
        self.deconv1 = nn.ConvTranspose2d(width, width, SUB, stride=2, padding=1, groups=POINTS)
        self.norm1 = nn.GroupNorm(POINTS, width)
        self.deconv2 = nn.ConvTranspose2d(width, POINTS, SUB, stride=2, padding=1, groups=POINTS)
        initialise(self, he_normal)
        for layer, chance in ((self.deconv1, 0.5), (self.deconv2, POINT_PRIOR)):
            nn.init.normal_(layer.weight, std=DECONV_INIT_STD)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, logit(chance))

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(R, D, size, size) -> (R, 9 * channels, size/2, size/2), without and with the neighbours' messages."""
        x = self.convs(pooled)
        own = x.split(self.channels, dim=1)
        first = _told(own, own, self.forder_trans)
        return x, torch.cat(_told(own, first, self.sorder_trans), dim=1)

    def heatmaps(self, x: Tensor) -> Tensor:
        """(R, 9 * channels, H, W) -> logits (R, 9, 4 H, 4 W), float32."""
        logits: Tensor = self.deconv2(F.relu(self.norm1(self.deconv1(x)), inplace=True))
        return logits.float()


def neighbours(point: int) -> list[int]:
    """The points left, above, below and right of a grid point, as far as there are."""
    column, row = divmod(point, SIDE)
    places = [(column - 1, row), (column, row - 1), (column, row + 1), (column + 1, row)]
    return [c * SIDE + r for c, r in places if c in range(SIDE) and r in range(SIDE)]


def _conv(inputs: int, outputs: int, stride: int, norm_groups: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
    return nn.Sequential(OrderedDict(conv=conv, gn=nn.GroupNorm(norm_groups, outputs), activate=nn.ReLU(inplace=True)))


def _messages(channels: int) -> nn.ModuleList:
    """For each point what it makes of each neighbour's features: a 5x5 convolution channel by channel, then a 1x1."""
    reach = MESSAGE_KERNEL // 2

    def edge() -> nn.Sequential:
        depthwise = nn.Conv2d(channels, channels, MESSAGE_KERNEL, padding=reach, groups=channels)
        return nn.Sequential(depthwise, nn.Conv2d(channels, channels, 1))

    return nn.ModuleList(nn.ModuleList(edge() for _ in neighbours(point)) for point in range(POINTS))


def _told(own: Sequence[Tensor], said: Sequence[Tensor], messages: nn.ModuleList) -> list[Tensor]:
    """Each point's own features plus what its neighbours said."""
    out = []
    for point, edges in enumerate(messages.children()):
        x = own[point]
        for neighbour, edge in zip(neighbours(point), edges.children(), strict=True):
            x = x + edge(said[neighbour])
        out.append(x)
    return out


def windows(size: int, device: torch.device | None = None) -> Tensor:
    """(9, 2) first column and row of each point's heatmap, `size` cells a side, in a map of twice as many.

    The map covers twice the region, so that a point may lie outside of it (Grid R-CNN Plus, Lu et al., 2019b).

    Examples:
        >>> windows(28)[:4].tolist(), windows(28)[-1].tolist()
        ([[0, 0], [0, 14], [0, 28], [14, 0]], [28, 28])
    """
    return _places(device) * (size // 2)


def _places(device: torch.device | None) -> Tensor:
    """(9, 2) column and row of each point."""
    index = torch.arange(POINTS, device=device)
    return torch.stack([index // SIDE, index % SIDE], dim=1)


def point_targets(rois: Tensor, gt_boxes: Tensor, size: int, radius: int) -> Tensor:
    """Heatmaps (R, 9, size, size) that are 1 within `radius` cells of where an object's grid point lies.

    Args:
        rois, gt_boxes: (R, 4) xyxy px, one object a region. A region of 1.5 px or less gets no point at all.
        size: cells a side.
        radius: cells.

    Examples:
        >>> box = torch.tensor([[0.0, 0, 8, 8]])  # its left upper corner, in the map of -4 to 12: cell 2 of 8
        >>> point_targets(box, box, size=4, radius=1)[0, 0].tolist()
        [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]]
    """
    wh = sides(rois)
    low, high = rois[:, :2] - wh / 2, rois[:, 2:] + wh / 2
    wh = high - low
    share = 1 - _places(rois.device) / (SIDE - 1)  # of the object's left and upper side
    points = share * gt_boxes[:, None, :2] + (1 - share) * gt_boxes[:, None, 2:]
    cell = ((points - low[:, None]) / wh[:, None] * (2 * size)).trunc() - windows(size, rois.device)
    axis = torch.arange(size, device=rois.device)
    far = (axis - cell[..., :1]).square()[..., None, :] + (axis - cell[..., 1:]).square()[..., :, None]
    return ((far <= radius**2) & (wh > SIDE).all(1)[:, None, None, None]).float()


def jittered(boxes: Tensor, offsets: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Boxes (R, 4) xyxy px whose centre moves by, and whose sides grow by, these parts (R, 4) of the sides.

    They are cut at the last pixel of the image, as in the official code.

    Examples:
        >>> jittered(torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[0.1, 0, 0, -0.1]]), (64, 9))
        tensor([[ 1.,  1.,  8., 19.]])
    """
    middle, wh = centres(boxes) + sides(boxes) * offsets[:, :2], sides(boxes) * (1 + offsets[:, 2:])
    moved = convert(torch.cat([middle, wh], dim=1), "cxcywh", "xyxy")
    return clip(moved, (size_hw[0] - 1, size_hw[1] - 1))


def boxes_of_points(rois: Tensor, logits: Tensor) -> Tensor:
    """Boxes (R, 4) of regions (R, 4) xyxy px from heatmaps (R, 9, size, size) (Lu et al., 2019, eq. 2 and 3).

    A point lies where its heatmap is highest; each side is the mean of its three points, weighted by their scores.
    """
    size = logits.shape[-1]
    score, cell = logits.sigmoid().flatten(2).max(2)
    x, y = (torch.stack([cell % size, cell // size], dim=2) + windows(size, rois.device)).unbind(2)
    low, wh = rois[:, :2] - sides(rois) / 2, sides(rois)
    x = (x + 0.5) / size * wh[:, :1] + low[:, :1]
    y = (y + 0.5) / size * wh[:, 1:] + low[:, 1:]
    x, y, score = (value.unflatten(1, (SIDE, SIDE)) for value in (x, y, score))  # column, row
    x, y = (x * score).sum(2) / score.sum(2), (y * score).sum(1) / score.sum(1)
    return torch.stack([x[:, 0], y[:, 0], x[:, -1], y[:, -1]], dim=1)


class GridHead(StagedHead):
    """Grid R-CNN (Lu et al., 2019): a box head that gives classes alone, and a grid branch that gives the boxes.

    In a test the regions are scored and suppressed class by class; then what is left gets its box by the grid branch.
    The boxes are not cut at the image and not suppressed again, so the model's `test.iou` is 1.

    Args:
        in_channels, in_strides: of the neck's maps, finest first.
        num_classes: C.
        assigner, sampler: see `sample_rois`.
        channels: of the two shared linear layers.
        levels, finest_scale: see `RoIPool`.
        pool_size: cells a side of what is seen of a region.
        grid_channels: of each grid point in that branch.
        grid_convs: its 3x3 convolutions before the points part; the first has stride 2.
        grid_norm_groups: of the group norm behind each.
        grid_pool_size: cells a side of what the grid branch sees, an even number.
        grid_weight: of its loss.
        grid_regions: of a batch it learns on so many at most.
        radius: cells around a point that count as the point.
        jitter: in training the regions' centres and sides change by up to this part of the sides.
        least_score: (region, class) pairs that do not score more are left out, whatever a run's `conf` says.
        nms_iou: pairs that overlap a better one of their class by more than this are left out.
        max_candidates: at most this many pairs of an image get a box.

    Raises:
        ValueError: a number out of its bounds.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        num_classes: int,
        assigner: Assigner,
        sampler: RandomSampler,
        channels: int = 1024,
        levels: int = 4,
        pool_size: int = 7,
        finest_scale: float = 56.0,
        grid_channels: int = 64,
        grid_convs: int = 8,
        grid_norm_groups: int = 36,
        grid_pool_size: int = 14,
        grid_weight: float = 15.0,
        grid_regions: int = 192,
        radius: int = 1,
        jitter: float = 0.15,
        least_score: float = 0.05,
        nms_iou: float = 0.5,
        max_candidates: int = 3000,
    ):
        whole(1, grid_channels=grid_channels, grid_convs=grid_convs, grid_norm_groups=grid_norm_groups)
        whole(1, grid_regions=grid_regions)
        whole(0, radius=radius)
        within(0, math.inf, grid_weight=grid_weight)
        within(0, 1, jitter=jitter, least_score=least_score, nms_iou=nms_iou)
        whole(1, grid_pool_size=grid_pool_size)
        if grid_pool_size % 2:
            raise ValueError(f"grid_pool_size={grid_pool_size}: expected an even number")
        pool = RoIPool(in_strides, levels, pool_size, finest_scale)
        head = BoxHead(in_channels[0] * pool_size**2, num_classes, channels, False, None, 0.0)
        super().__init__([head], [assigner], [1.0], sampler, pool, max_candidates)
        self.grid_pool = RoIPool(in_strides, levels, grid_pool_size, finest_scale)
        self.grid_head = GridBranch(in_channels[0], grid_channels, grid_convs, grid_norm_groups)
        self.size = grid_pool_size // 2 * SUB  # cells a side of a heatmap
        self.grid_weight, self.grid_regions, self.radius, self.jitter = grid_weight, grid_regions, radius, jitter
        self.least_score, self.nms_iou = least_score, nms_iou

    def losses(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
        size_hw: tuple[int, int],
        sample: bool = True,
    ) -> dict[str, Tensor]:
        """{"roi_cls", "roi_grid"}, see `StagedHead.losses`; without `sample` no region is moved."""
        sampler = self.sampler if sample else self.everything
        regions = sample_rois(proposals, targets, self.assigners[0], sampler, self.num_classes)
        (head,) = self.stages
        logits, deltas = head(self.features(maps, regions.rois))
        losses = head.losses(logits, deltas, regions)
        return {"roi_cls": losses["cls"], "roi_grid": self._grid_loss(maps, regions, size_hw, sample)}

    def _grid_loss(self, maps: Sequence[Tensor], regions: RoISample, size_hw: tuple[int, int], sample: bool) -> Tensor:
        chosen = (regions.labels < self.num_classes).nonzero().squeeze(1)
        rois, gt_boxes = regions.rois[chosen], regions.gt_boxes[chosen]
        if sample:
            offsets = torch.empty_like(gt_boxes).uniform_(-self.jitter, self.jitter)
            rois = torch.cat([rois[:, :1], jittered(rois[:, 1:], offsets, size_hw)], dim=1)
            order = torch.randperm(rois.shape[0], device=rois.device)[: self.grid_regions]
            rois, gt_boxes = rois[order], gt_boxes[order]
        expected = point_targets(rois[:, 1:], gt_boxes, self.size, self.radius)
        count = of_batch(expected.numel(), 1)
        loss = maps[0].new_zeros((), dtype=torch.float32)
        for x in self.grid_head(self.grid_pool(maps, rois)):
            logits = self.grid_head.heatmaps(x)
            loss = loss + F.binary_cross_entropy_with_logits(logits, expected, reduction="sum") / count
        return self.grid_weight * loss

    def candidates(
        self, maps: Sequence[Tensor], proposals: Tensor, valid: Tensor, size_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4) and scores (B, N, C), a row a (region, class) pair that was not suppressed, or zeros.

        Args:
            maps, proposals, valid, size_hw: see `StagedHead.candidates`.
        """
        rois, (head,), images = image_rois(proposals, valid), self.stages, proposals.shape[0]
        logits, _ = head(self.features(maps, rois))
        all_scores = logits.softmax(dim=1)[:, : self.num_classes]
        if for_onnx():
            return self._in_graph(maps, rois, proposals, spread(all_scores, valid))
        region, label = above(all_scores, self.least_score).nonzero(as_tuple=True)
        score, image = all_scores[region, label], rois[region, 0].long()
        # Stable: strips at the border see the same features and score the same.
        keep = grouped_nms(rois[region, 1:], score, image * self.num_classes + label, self.nms_iou, stable=True)
        total = min(self.max_candidates, int(proposals.shape[1]) * self.num_classes)
        keep, image, place = seats(keep, image[keep], total)
        region, label, score = region[keep], label[keep], score[keep]
        wanted = torch.zeros_like(rois[:, 0], dtype=torch.bool)
        wanted[region] = True
        found = rois[:, 1:].clone()
        found[wanted] = in_parts(lambda part: self._refined(maps, part), rois[wanted])
        boxes, scores = rois.new_zeros(images, total, BOX), all_scores.new_zeros(images, total, self.num_classes)
        boxes[image, place] = found[region]
        scores[image, place, label] = score
        return boxes, scores

    def _in_graph(
        self, maps: Sequence[Tensor], rois: Tensor, proposals: Tensor, scores: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`candidates` of scores (B, K, C), in a graph: a row is a region with the scores of its pairs left."""
        able = torch.where(scores > self.least_score, scores, 0.0).transpose(1, 2)
        limits = torch.tensor([self.nms_iou]), torch.tensor([self.max_candidates])
        image, label, row = ClassWise.apply(proposals, able, *limits).unbind(1)
        best = ordered(image, scores[image, row, label])
        best = best[ranks(image[best], scores.shape[0]) < self.max_candidates]
        image, label, row = image[best], label[best], row[best]
        kept = torch.zeros_like(scores)
        kept[image, row, label] = scores[image, row, label]
        wanted = (kept.flatten(0, 1) > 0).any(1).nonzero().squeeze(1)
        found = rois[:, 1:].clone()
        found[wanted] = self._refined(maps, rois[wanted])
        return found.view(proposals.shape), kept

    def _refined(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        _, x = self.grid_head(self.grid_pool(maps, rois))
        return boxes_of_points(rois[:, 1:], self.grid_head.heatmaps(x))
