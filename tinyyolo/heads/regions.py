"""Regions of interest of a batch: which of them a box head learns from, and their way into rows and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tinyyolo.assigners.assignment import Assignment
from tinyyolo.assigners.base import Assigner
from tinyyolo.assigners.samplers import RandomSampler
from tinyyolo.boxes.graph import capped, for_onnx, traced
from tinyyolo.heads.dense import rows

CHUNK = 256  # regions in work at once


class RoISample(NamedTuple):
    """Regions of a batch to learn from, image by image."""

    rois: Tensor  # (R, 5) image index, then xyxy
    labels: Tensor  # (R,) int64, C for background
    gt_boxes: Tensor  # (R, 4) the object of a positive region; meaningless for background
    from_gt: Tensor  # (R,) bool, regions that are ground truth themselves


def sample_rois(
    proposals: Sequence[Tensor],
    targets: Sequence[dict[str, Tensor]],
    assigner: Assigner,
    sampler: RandomSampler,
    num_classes: int,
    add_gt: bool = True,
) -> RoISample:
    """Assign proposals, add the ground truth as proposals of its own if wanted, and sample.

    Args:
        proposals: per image (K, 4) xyxy.
        targets: see `Detector.losses`.
        assigner: `assigner(proposals, gt_boxes, ignore_boxes) -> Assignment`.
        sampler: picks positives and negatives of each image.
        num_classes: C.
        add_gt: whether the objects are regions, too.
    """
    parts = []
    for i, (boxes, target) in enumerate(zip(proposals, targets, strict=True)):
        gt_boxes, gt_labels = target["boxes"].to(boxes), target["labels"].to(boxes.device)
        assigned = assigner(boxes, gt_boxes, target.get("ignore")).gt_index.to(boxes.device)
        added = len(gt_boxes) if add_gt else 0
        gt_index = torch.cat([torch.arange(added, device=boxes.device), assigned])
        positive, negative = sampler(Assignment(gt_index))
        chosen = torch.cat([positive, negative])
        rois = F.pad(torch.cat([gt_boxes[:added], boxes])[chosen], (1, 0), value=i)
        labels = torch.cat([gt_labels[gt_index[positive]], torch.full_like(negative, num_classes)])
        objects = torch.cat([gt_boxes[gt_index[positive]], rois[len(positive) :, 1:]])
        parts.append((rois, labels, objects, chosen < added))
    return RoISample(*(torch.cat(column) for column in zip(*parts, strict=True)))


def image_rois(proposals: Tensor, valid: Tensor) -> Tensor:
    """Proposals (B, K, 4) where valid (B, K) -> rois (R, 5), image index then xyxy."""
    image = torch.arange(proposals.shape[0], device=proposals.device).view(-1, 1, 1).expand(-1, proposals.shape[1], 1)
    rois = torch.cat([image.to(proposals.dtype), proposals], dim=2)
    return rois.flatten(0, 1) if for_onnx() else rois[valid]  # a graph takes all, and `spread` empties the others


def spread(x: Tensor, valid: Tensor) -> Tensor:
    """Rows (R, ...) back to their places in (B, K, ...), zeros elsewhere; the inverse of indexing by valid (B, K)."""
    if for_onnx():
        rows = x.reshape(valid.shape[0], valid.shape[1], *x.shape[1:])
        return rows * valid.view(valid.shape[0], valid.shape[1], *[1] * (x.ndim - 1))
    out = x.new_zeros(*valid.shape, *x.shape[1:])
    out[valid] = x
    return out


def seats(keep: Tensor, image: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """What `keep` (K,), by falling score, of images (K,) goes where: at most `most` of an image, the first.

    Returns:
        (S,) those of `keep`, image by image, and the image and the place within it of each.

    Examples:
        >>> seats(torch.tensor([7, 3, 5]), torch.tensor([1, 0, 1]), most=1)
        (tensor([3, 7]), tensor([0, 1]), tensor([0, 0]))
    """
    order = image.argsort(stable=True)
    keep, image = keep[order], image[order]
    place = torch.arange(keep.shape[0], device=keep.device) - torch.searchsorted(image, image)
    fits = place < most
    return keep[fits], image[fits], place[fits]


def in_parts(make: Callable[[Tensor], Tensor], rois: Tensor) -> Tensor:
    """`make(rois)` of rois (R, 5), a part at a time where nothing is learnt: thousands at once need some gigabytes."""
    if torch.is_grad_enabled() or traced():
        return make(rois)
    return torch.cat([make(part) for part in rois.split(CHUNK)])


def best_pairs(boxes: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Boxes (B, K, C, 4) and scores (B, K, C) -> one row a (region, class) pair, the `count` best if there are more.

    Returns:
        boxes (B, N, 4) and scores (B, N, C), each row with one score; N = min(K * C, count).
    """
    boxes, scores = boxes.flatten(1, 2), (scores[..., None] * torch.eye(scores.shape[2]).to(scores)).flatten(1, 2)
    if not for_onnx() and boxes.shape[1] <= count:
        return boxes, scores
    index = scores.amax(dim=2).topk(capped(boxes.shape[1], count), dim=1).indices
    return rows(boxes, index), rows(scores, index)
