"""Region proposal network: which anchors hold an object, and the boxes they propose."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyyolo.assigners.base import Assigner
from tinyyolo.assigners.samplers import RandomSampler
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.boxes.coders import DeltaCoder
from tinyyolo.boxes.graph import capped, for_onnx
from tinyyolo.boxes.nms import ClassWise, grouped_nms
from tinyyolo.config import whole, within
from tinyyolo.heads.dense import BOX, INIT_STD, AnchorHead, best, flat, objects_of, rows, shared
from tinyyolo.heads.regions import seats
from tinyyolo.layers.blocks import initialise, normal
from tinyyolo.layers.losses import smooth_l1
from tinyyolo.together import of_batch

PADDING_SCORE = -1.0  # below every sigmoid: marks rows that hold no proposal


class RPNHead(AnchorHead):
    """Shared 3x3 convolution, then objectness and deltas for every anchor (Ren et al., 2015).

    Args:
        in_channels, in_strides: of the neck's maps, finest first.
        anchors, assigner, inside_only: see `AnchorHead`.
        sampler: picks the anchors that the losses see.
        coder: deltas <-> boxes; by default mean 0 and std 1.
        channels: of the shared convolution.
        pre_nms: best anchors kept per level before NMS.
        nms_iou: NMS threshold within a level.
        proposals: how many are kept over all levels.
        box_beta: where the smooth L1 of the deltas becomes linear; 0 is plain L1.
        train_pre_nms, train_proposals: `pre_nms` and `proposals` of training; null for the same.

    Raises:
        ValueError: levels of unequal channels, anchors that do not fit the maps, or a number out of its bounds.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        anchors: AnchorGrid,
        assigner: Assigner,
        sampler: RandomSampler,
        coder: DeltaCoder | None = None,
        inside_only: bool = False,
        channels: int = 256,
        pre_nms: int = 3000,
        nms_iou: float = 0.7,
        proposals: int = 3000,
        box_beta: float = 0.0,
        train_pre_nms: int | None = None,
        train_proposals: int | None = None,
    ):
        super().__init__(in_strides, anchors, assigner, inside_only)
        inputs, self.per_cell = shared(in_channels, anchors)
        train_pre_nms = pre_nms if train_pre_nms is None else train_pre_nms
        train_proposals = proposals if train_proposals is None else train_proposals
        whole(1, channels=channels, pre_nms=pre_nms, proposals=proposals)
        whole(1, train_pre_nms=train_pre_nms, train_proposals=train_proposals)
        within(0, 1, nms_iou=nms_iou)
        within(0, math.inf, box_beta=box_beta)
        self.coder = coder or DeltaCoder()
        self.sampler, self.everything = sampler, RandomSampler(None, 1.0)
        self.nms_iou, self.box_beta = nms_iou, box_beta
        self.counts, self.train_counts = (pre_nms, proposals), (train_pre_nms, train_proposals)
        self.rpn_conv = nn.Conv2d(inputs, channels, 3, padding=1)
        self.rpn_cls = nn.Conv2d(channels, self.per_cell, 1)
        self.rpn_reg = nn.Conv2d(channels, self.per_cell * BOX, 1)
        initialise(self, normal(INIT_STD))

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level objectness logits (B, A, H, W) and deltas (B, 4 A, H, W)."""
        shared = [F.relu(self.rpn_conv(x), inplace=True) for x in maps]
        return [self.rpn_cls(x) for x in shared], [self.rpn_reg(x) for x in shared]

    def losses_and_proposals(
        self,
        maps: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
        size_hw: tuple[int, int],
        sample: bool = True,
    ) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        """What a training step needs, by one pass over the maps.

        A few hundred anchors of a hundred thousand are sampled, so the gradient flows through their cells alone; the
        pass over whole maps is for the proposals, which have no gradient.

        Args:
            maps: the neck's outputs.
            targets: see `Detector.losses`.
            size_hw: height and width of the network input.
            sample: False uses every positive and negative.

        Returns:
            {"rpn_cls", "rpn_box"}: cross-entropy and box loss, both divided by the number of sampled anchors
            of the batch, where an image counts at least one positive and one negative; and what `proposals` returns.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not sample):
            outputs = self(maps)
        image, anchor, gt_index, count = self._draw(maps, targets, size_hw, sample)
        if sample:
            logits, deltas = self._at_cells(maps, image, anchor)
        else:
            logits, deltas = flat(outputs[0], 1)[image, anchor, 0], flat(outputs[1], BOX)[image, anchor]
        positive = (gt_index >= 0).nonzero().squeeze(1)
        gt_boxes, _ = objects_of(targets, image[positive], gt_index[positive])
        anchors = torch.cat(self.anchors(maps, size_hw))[anchor[positive]]
        label = (gt_index >= 0).float()
        losses = {
            "rpn_cls": F.binary_cross_entropy_with_logits(logits.float(), label, reduction="sum") / count,
            "rpn_box": smooth_l1(deltas[positive], self.coder.encode(anchors, gt_boxes), self.box_beta) / count,
        }
        return losses, self.proposals(outputs, size_hw, self.train_counts)

    def _draw(
        self, maps: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], size_hw: tuple[int, int], sample: bool
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        """Image, anchor and object in its image (negative: background) of the S sampled anchors, and the normaliser."""
        sampler, parts, count = self.sampler if sample else self.everything, [], 0
        for i, assignment in enumerate(self.assign(maps, targets, size_hw)):
            positive, negative = sampler(assignment)
            anchor = torch.cat([positive, negative])
            parts.append((torch.full_like(anchor, i), anchor, assignment.gt_index[anchor]))
            count += max(len(positive), 1) + max(len(negative), 1)
        image, anchor, gt_index = (torch.cat(column).to(maps[0].device) for column in zip(*parts, strict=True))
        return image, anchor, gt_index, of_batch(count)

    def _at_cells(self, maps: Sequence[Tensor], image: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (S,) and deltas (S, 4) of anchors (S,) of images (S,), computed at their cells alone."""
        per_cell, first, places, found = self.per_cell, 0, [], []
        for x in maps:
            height, width = x.shape[-2:]
            place = ((anchor >= first) & (anchor < first + height * width * per_cell)).nonzero().squeeze(1)
            cell, box = (anchor[place] - first) // per_cell, (anchor[place] - first) % per_cell
            shared = neighbourhoods(x, image[place], cell // width, cell % width)
            shared = F.relu(F.linear(shared, self.rpn_conv.weight.flatten(1), self.rpn_conv.bias))
            logits = F.linear(shared, self.rpn_cls.weight.flatten(1), self.rpn_cls.bias)
            deltas = F.linear(shared, self.rpn_reg.weight.flatten(1), self.rpn_reg.bias).unflatten(1, (per_cell, BOX))
            row = torch.arange(len(place), device=place.device)
            found.append((logits[row, box], deltas[row, box]))
            places.append(place)
            first += height * width * per_cell
        back = torch.cat(places).argsort()
        logits, deltas = (torch.cat(column)[back] for column in zip(*found, strict=True))
        return logits, deltas

    @torch.no_grad()
    def proposals(
        self,
        outputs: tuple[list[Tensor], list[Tensor]],
        size_hw: tuple[int, int],
        counts: tuple[int, int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The best boxes of each image after NMS within each level, by falling score.

        Args:
            outputs: of `forward`.
            size_hw: boxes are clipped to this image.
            counts: how many of each level enter NMS and how many remain; by default those of a test.

        Returns:
            boxes (B, K, 4) float32 xyxy and scores (B, K), K fixed by the sizes of the maps; rows without a proposal
            have zero boxes and a negative score.
        """
        (pre_nms, count), boxes, scores = counts or self.counts, [], []
        for anchors, logits, deltas in zip(self.anchors(outputs[0], size_hw), *outputs, strict=True):
            top, index = best(flat([logits], 1).squeeze(2).float().sigmoid(), pre_nms)
            boxes.append(self.coder.decode(anchors[index], rows(flat([deltas], BOX), index), size_hw))
            scores.append(top)
        level = torch.cat([torch.full_like(s, i, dtype=torch.int64) for i, s in enumerate(scores)], dim=1)
        return self._suppress(torch.cat(boxes, dim=1), torch.cat(scores, dim=1), level, count)

    def _suppress(self, boxes: Tensor, scores: Tensor, level: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4), scores and level (B, N) -> the survivors (B, K, 4), (B, K), padded."""
        real = (boxes[..., 2:] > boxes[..., :2]).all(dim=2)
        if for_onnx():  # TorchScript has no operator for it, and keeps the loop
            return self._best(boxes, torch.where(real, scores, PADDING_SCORE), level, count)
        images, total = scores.shape[0], min(count, int(scores.shape[1]))
        image = torch.arange(images, device=level.device)[:, None].expand(level.shape)
        real_boxes, real_scores, image = boxes[real], scores[real], image[real]
        keep = grouped_nms(real_boxes, real_scores, image * len(self.grid.strides) + level[real], self.nms_iou)
        keep, image, place = seats(keep, image[keep], total)
        padded_boxes = boxes.new_zeros(images, total, BOX)
        padded_scores = scores.new_full((images, total), PADDING_SCORE)
        padded_boxes[image, place] = real_boxes[keep]
        padded_scores[image, place] = real_scores[keep]
        return padded_boxes, padded_scores

    def _best(self, boxes: Tensor, scores: Tensor, level: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """`_suppress` in a graph: one suppression of every level of every image, then the best of each image."""
        levels = torch.arange(len(self.grid.strides))[:, None]
        by_level = torch.where(level[:, None] == levels, scores[:, None], PADDING_SCORE)
        image, _, row = ClassWise.apply(boxes, by_level, torch.tensor([self.nms_iou]), torch.tensor([count])).unbind(1)
        kept = torch.full_like(scores, PADDING_SCORE)
        kept[image, row] = scores[image, row]
        top, index = kept.topk(capped(scores.shape[1], count), dim=1)
        return torch.where(top[..., None] >= 0, rows(boxes, index), 0.0), top


def neighbourhoods(x: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """The 3x3 cells around each of S places, zeros beyond the border: what a padded 3x3 convolution sees there.

    x (B, D, H, W), image, row and column (S,) int64 -> (S, D * 9) in the order of a flattened convolution weight.

    Examples:
        >>> corner = torch.tensor([0])
        >>> neighbourhoods(torch.arange(1.0, 5.0).view(1, 1, 2, 2), corner, corner, corner)
        tensor([[0., 0., 0., 0., 1., 2., 0., 3., 4.]])
    """
    height, width = x.shape[-2:]
    step = torch.arange(-1, 2, device=row.device)
    row, column = row[:, None] + step, column[:, None] + step
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
    row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
    cells = x[image[:, None, None], :, row[:, :, None], column[:, None, :]] * inside[..., None]
    return cells.permute(0, 3, 1, 2).flatten(1)
