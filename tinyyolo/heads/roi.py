"""Box head on regions of interest: pool features under each proposal, classify it, refine its box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import ops

from tinyyolo.assigners.assignment import Assignment
from tinyyolo.assigners.base import Assigner
from tinyyolo.assigners.samplers import RandomSampler
from tinyyolo.boxes.coders import DeltaCoder
from tinyyolo.config import above, whole, within
from tinyyolo.layers.blocks import xavier_uniform
from tinyyolo.layers.gather import is_channels_last
from tinyyolo.layers.losses import smooth_l1
from tinyyolo.layers.roi_align import roi_align

LEVEL_EPS = 1e-6
CLASS_INIT_STD, BOX_INIT_STD = 0.01, 0.001


class RoIPool(nn.Module):
    """RoIAlign on the pyramid level that suits each region (Lin et al., 2017a, eq. 1).

    Args:
        strides: of the maps, finest first; the regions use the first `levels` of them.
        levels: number of maps used.
        size: cells a side.
        finest_scale: regions below twice this side in pixels take the finest map, the next octave the next map, ...
    """

    def __init__(self, strides: Sequence[int], levels: int = 4, size: int = 7, finest_scale: float = 56.0):
        super().__init__()
        whole(1, levels=levels, pool_size=size)
        above(0, finest_scale=finest_scale)
        self.strides, self.size, self.finest_scale = tuple(strides)[:levels], size, finest_scale

    def forward(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Maps (B, D, H, W) and rois (R, 5), image index then xyxy -> (R, D, size, size).

        The sampling grid adapts to each region (about one point a cell of the map), corners are exact (aligned).
        """
        level = self.levels(rois)
        pooled = maps[0].new_empty(rois.shape[0], maps[0].shape[1], self.size, self.size)
        for i, stride in enumerate(self.strides):
            index = (level == i).nonzero().squeeze(1)
            pooled = pooled.index_copy_(0, index, align(maps[i], rois[index], self.size, 1 / stride))
        return pooled

    def levels(self, rois: Tensor) -> Tensor:
        """(R,) index of the map of each region (R, 5)."""
        scale = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
        return (scale / self.finest_scale + LEVEL_EPS).log2().floor().clamp(0, len(self.strides) - 1).long()


def align(x: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
    """RoIAlign of one map: the fast one, but torchvision's to the last bit for a map that is not channels-last."""
    if (torch.is_grad_enabled() and x.requires_grad) or is_channels_last(x):
        return roi_align(x, rois, size, scale)
    # Half precision would round the corners of a region to half a pixel.
    return ops.roi_align(x.float(), rois.float(), size, scale, sampling_ratio=0, aligned=True).to(x.dtype)


class BoxHead(nn.Module):
    """Pooled features -> class logits and deltas, by two shared linear layers.

    Args:
        in_features: D * size * size of the pooled features.
        num_classes: C; the logits have C + 1 columns, background last.
        channels: of the shared layers.
        class_agnostic: one box a region instead of one a class.
        coder: deltas <-> boxes.
        box_beta: where the smooth L1 of the deltas becomes linear; 0 is plain L1.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        channels: int,
        class_agnostic: bool,
        coder: DeltaCoder,
        box_beta: float,
    ):
        super().__init__()
        whole(1, num_classes=num_classes, channels=channels)
        within(0, math.inf, box_beta=box_beta)
        self.num_classes, self.coder, self.box_beta = num_classes, coder, box_beta
        self.fc_cls = nn.Linear(channels, num_classes + 1)
        self.fc_reg = nn.Linear(channels, 4 if class_agnostic else 4 * num_classes)
        self.shared_fcs = nn.ModuleList([nn.Linear(in_features, channels), nn.Linear(channels, channels)])
        xavier_uniform(self.shared_fcs)
        for layer, std in ((self.fc_cls, CLASS_INIT_STD), (self.fc_reg, BOX_INIT_STD)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(R, D, size, size) -> logits (R, C + 1) and deltas (R, C or 1, 4), float32."""
        x = pooled.flatten(1)
        for layer in self.shared_fcs:
            x = F.relu(layer(x), inplace=True)
        return self.fc_cls(x).float(), self.fc_reg(x).float().unflatten(1, (-1, 4))

    def boxes(self, rois: Tensor, deltas: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """rois (R, 5) and deltas (R, C or 1, 4) -> boxes (R, C or 1, 4) inside the image."""
        return self.coder.decode(rois[:, None, 1:], deltas, size_hw)

    def losses(self, logits: Tensor, deltas: Tensor, sample: RoISample) -> dict[str, Tensor]:
        """{"loss_cls", "loss_bbox"}: cross-entropy and box loss, both divided by the number of sampled regions."""
        count = max(len(sample.labels), 1)
        positive = (sample.labels < self.num_classes).nonzero().squeeze(1)
        column = sample.labels[positive] if deltas.shape[1] > 1 else torch.zeros_like(positive)
        expected = self.coder.encode(sample.rois[positive, 1:], sample.gt_boxes[positive])
        return {
            "loss_cls": F.cross_entropy(logits, sample.labels, reduction="sum") / count,
            "loss_bbox": smooth_l1(deltas[positive, column], expected, self.box_beta) / count,
        }


@dataclass(frozen=True)
class RoISample:
    """Regions of a batch to learn from, image by image.

    Attributes:
        rois: (R, 5) image index, then xyxy.
        labels: (R,) int64, C for background.
        gt_boxes: (R, 4) the object of a positive region; meaningless for background.
        from_gt: (R,) bool, regions that are ground truth themselves.
    """

    rois: Tensor
    labels: Tensor
    gt_boxes: Tensor
    from_gt: Tensor


def sample_rois(
    proposals: Sequence[Tensor],
    targets: Sequence[dict[str, Tensor]],
    assigner: object,
    sampler: RandomSampler,
    num_classes: int,
) -> RoISample:
    """Assign proposals, add the ground truth as proposals of its own, and sample.

    Args:
        proposals: per image (K, 4) xyxy.
        targets: see `Detector.losses`.
        assigner: `assigner(proposals, gt_boxes, ignore_boxes) -> Assignment`.
        sampler: picks positives and negatives of each image.
        num_classes: C.
    """
    parts = []
    for i, (boxes, target) in enumerate(zip(proposals, targets, strict=True)):
        gt_boxes, gt_labels = target["boxes"].to(boxes), target["labels"].to(boxes.device)
        assigned = assigner(boxes, gt_boxes, target.get("ignore")).gt_index.to(boxes.device)
        gt_index = torch.cat([torch.arange(len(gt_boxes), device=boxes.device), assigned])
        positive, negative = sampler(Assignment(gt_index))
        chosen = torch.cat([positive, negative])
        rois = F.pad(torch.cat([gt_boxes, boxes])[chosen], (1, 0), value=i)
        labels = torch.cat([gt_labels[gt_index[positive]], torch.full_like(negative, num_classes)])
        objects = torch.cat([gt_boxes[gt_index[positive]], rois[len(positive) :, 1:]])
        parts.append((rois, labels, objects, chosen < len(gt_boxes)))
    return RoISample(*(torch.cat(column) for column in zip(*parts, strict=True)))


def image_rois(proposals: Tensor, valid: Tensor) -> Tensor:
    """Proposals (B, K, 4) where valid (B, K) -> rois (R, 5), image index then xyxy."""
    image = torch.arange(proposals.shape[0], device=proposals.device).view(-1, 1, 1).expand(-1, proposals.shape[1], 1)
    return torch.cat([image.to(proposals.dtype), proposals], dim=2)[valid]


def spread(x: Tensor, valid: Tensor) -> Tensor:
    """Rows (R, ...) back to their places in (B, K, ...), zeros elsewhere; the inverse of indexing by valid (B, K)."""
    out = x.new_zeros(*valid.shape, *x.shape[1:])
    out[valid] = x
    return out


class RoIHead(nn.Module):
    """One box head on RoIAlign features (Faster R-CNN).

    Args:
        in_channels, in_strides: of the neck's maps, finest first.
        num_classes: C.
        assigner, sampler: see `sample_rois`.
        coder: deltas <-> boxes.
        channels: of the two shared linear layers.
        class_agnostic: one box a region instead of one a class.
        box_beta: where the smooth L1 of the deltas becomes linear; 0 is plain L1.
        levels, pool_size, finest_scale: see `RoIPool`.
        max_candidates: at most this many (region, class) pairs of an image leave `candidates`, the best ones.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        num_classes: int,
        assigner: Assigner,
        sampler: RandomSampler,
        coder: DeltaCoder,
        channels: int = 1024,
        class_agnostic: bool = False,
        box_beta: float = 0.0,
        levels: int = 4,
        pool_size: int = 7,
        finest_scale: float = 56.0,
        max_candidates: int = 30000,
    ):
        super().__init__()
        self.assigner, self.sampler, self.everything = assigner, sampler, RandomSampler(None, 1.0)
        whole(1, max_candidates=max_candidates)
        self.num_classes, self.max_candidates = num_classes, max_candidates
        self.one_box = class_agnostic or num_classes == 1
        self.pool = RoIPool(in_strides, levels, pool_size, finest_scale)
        features = in_channels[0] * pool_size**2
        self.bbox_head = BoxHead(features, num_classes, channels, class_agnostic, coder, box_beta)

    def losses(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
        size_hw: tuple[int, int],
        sample: bool = True,
    ) -> dict[str, Tensor]:
        """{"loss_cls", "loss_bbox"} of the sampled regions.

        Args:
            maps: the neck's outputs.
            proposals: per image (K, 4), without gradient.
            targets, size_hw, sample: see `Detector.losses`.
        """
        sampler = self.sampler if sample else self.everything
        regions = sample_rois(proposals, targets, self.assigner, sampler, self.num_classes)
        return self.bbox_head.losses(*self.bbox_head(self.pool(maps, regions.rois)), regions)

    def candidates(
        self, maps: Sequence[Tensor], proposals: Tensor, valid: Tensor, size_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4) and scores (B, N, C) before NMS.

        With boxes of their own for each class, a row is one (region, class) pair and has that one score.

        Args:
            maps: the neck's outputs.
            proposals: (B, K, 4).
            valid: (B, K) bool, False for padding.
            size_hw: boxes are clipped to this image.
        """
        rois = image_rois(proposals, valid)
        logits, deltas = self.bbox_head(self.pool(maps, rois))
        scores = spread(logits.softmax(dim=1)[:, : self.num_classes], valid)
        boxes = spread(self.bbox_head.boxes(rois, deltas, size_hw), valid)
        if self.one_box:
            return boxes.squeeze(2), scores
        return best_pairs(boxes, scores, self.max_candidates)


def best_pairs(boxes: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Boxes (B, K, C, 4) and scores (B, K, C) -> one row a (region, class) pair, the `count` best if there are more.

    Returns:
        boxes (B, N, 4) and scores (B, N, C), each row with one score; N = min(K * C, count).
    """
    classes = scores.shape[2]
    boxes, scores = boxes.flatten(1, 2), torch.diag_embed(scores).flatten(1, 2)
    if boxes.shape[1] <= count:
        return boxes, scores
    index = scores.amax(dim=2).topk(count, dim=1).indices[..., None]
    return boxes.gather(1, index.expand(-1, -1, 4)), scores.gather(1, index.expand(-1, -1, classes))
