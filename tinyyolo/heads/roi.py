"""Box head on regions of interest: pool features under each proposal, classify it, refine its box."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyyolo.assigners.base import Assigner
from tinyyolo.assigners.samplers import RandomSampler
from tinyyolo.boxes.coders import DeltaCoder
from tinyyolo.boxes.convert import areas
from tinyyolo.boxes.graph import for_onnx
from tinyyolo.config import above, whole, within
from tinyyolo.heads.dense import BOX
from tinyyolo.heads.regions import RoISample, best_pairs, image_rois, sample_rois, spread
from tinyyolo.layers.blocks import initialise, normal
from tinyyolo.layers.losses import smooth_l1
from tinyyolo.layers.roi_align import roi_align
from tinyyolo.together import of_batch

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

    def __init__(self, strides: Sequence[int], levels: int, size: int, finest_scale: float):
        super().__init__()
        whole(1, levels=levels, pool_size=size)
        above(0, finest_scale=finest_scale)
        self.strides, self.size, self.finest_scale = tuple(strides)[:levels], size, finest_scale

    def forward(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Maps (B, D, H, W) and rois (R, 5), image index then xyxy -> (R, D, size, size)."""
        level = self.levels(rois)
        if for_onnx():
            own = [(level == i).nonzero().squeeze(1) for i in range(len(self.strides))]
            parts = zip(maps, own, self.strides, strict=False)
            found = torch.cat([roi_align(x, rois[chosen], self.size, 1 / s) for x, chosen, s in parts])
            return found[torch.cat(own).argsort()]
        pooled = maps[0].new_empty(rois.shape[0], maps[0].shape[1], self.size, self.size)
        for i, stride in enumerate(self.strides):
            index = (level == i).nonzero().squeeze(1)
            pooled = pooled.index_copy_(0, index, roi_align(maps[i], rois[index], self.size, 1 / stride))
        return pooled

    def levels(self, rois: Tensor) -> Tensor:
        """(R,) index of the map of each region (R, 5)."""
        octave = (areas(rois[:, 1:]).sqrt() / self.finest_scale + LEVEL_EPS).log2()
        return octave.clamp(0, len(self.strides) - 1).long()  # rounds down


class BoxHead(nn.Module):
    """Pooled features -> class logits and deltas, by two shared linear layers or from the features' means.

    Args:
        in_features: D * size * size of the pooled features; D, where there are no shared layers.
        num_classes: C; the logits have C + 1 columns, background last.
        channels: of the shared layers; None for none: the means over a region's cells are classified.
        class_agnostic: one box a region instead of one a class.
        coder: deltas <-> boxes; None for a head that gives logits alone.
        box_beta: where the smooth L1 of the deltas becomes linear; 0 is plain L1.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        channels: int | None,
        class_agnostic: bool,
        coder: DeltaCoder | None,
        box_beta: float,
    ):
        super().__init__()
        whole(1, num_classes=num_classes, channels=1 if channels is None else channels)
        within(0, math.inf, box_beta=box_beta)
        self.num_classes, self.coder, self.box_beta = num_classes, coder or DeltaCoder(), box_beta
        outputs = in_features if channels is None else channels
        self.fc_cls = nn.Linear(outputs, num_classes + 1)
        self.fc_reg = nn.Linear(outputs, BOX if class_agnostic else BOX * num_classes) if coder else None
        shared = [] if channels is None else [nn.Linear(in_features, channels), nn.Linear(channels, channels)]
        self.shared_fcs = nn.ModuleList(shared)
        initialise(self.shared_fcs, nn.init.xavier_uniform_)
        initialise(self.fc_cls, normal(CLASS_INIT_STD))
        if self.fc_reg is not None:
            initialise(self.fc_reg, normal(BOX_INIT_STD))

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(R, D, size, size) -> logits (R, C + 1) and deltas (R, C, 1 or 0, 4), float32."""
        x = pooled.flatten(1) if len(self.shared_fcs) else pooled.mean((2, 3))
        for layer in self.shared_fcs:
            x = F.relu(layer(x), inplace=True)
        logits = self.fc_cls(x).float()
        if self.fc_reg is None:
            return logits, logits.new_zeros(x.shape[0], 0, BOX)
        return logits, self.fc_reg(x).float().view(-1, self.fc_reg.out_features // BOX, BOX)

    def boxes(self, rois: Tensor, deltas: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """Rois (R, 5) and deltas (R, C or 1, 4) -> boxes (R, C or 1, 4) inside the image."""
        return self.coder.decode(rois[:, None, 1:], deltas, size_hw)

    def losses(self, logits: Tensor, deltas: Tensor, sample: RoISample) -> dict[str, Tensor]:
        """{"cls", "box"}: cross-entropy and box loss, if any, both divided by the number of sampled regions."""
        count = of_batch(len(sample.labels), 1)
        found = {"cls": F.cross_entropy(logits, sample.labels, reduction="sum") / count}
        if self.fc_reg is None:
            return found
        positive = (sample.labels < self.num_classes).nonzero().squeeze(1)
        column = sample.labels[positive] if deltas.shape[1] > 1 else torch.zeros_like(positive)
        expected = self.coder.encode(sample.rois[positive, 1:], sample.gt_boxes[positive])
        return found | {"box": smooth_l1(deltas[positive, column], expected, self.box_beta) / count}


class StagedHead(nn.Module):
    """Box heads on RoIAlign features, each on the boxes of the one before; `RoIHead` has one, `CascadeHead` several.

    Args:
        heads: one a stage; all but the last have one box a region. A single one has no number in the names of tensors.
        assigners, loss_weights: one a stage.
        sampler: picks the regions of every stage.
        pool: a region's features.
        max_candidates: at most this many (region, class) pairs of an image leave `candidates`, the best ones.
        add_gt: whether the objects are regions to learn from, too.
    """

    def __init__(
        self,
        heads: Sequence[BoxHead],
        assigners: Sequence[Assigner],
        loss_weights: Sequence[float],
        sampler: RandomSampler,
        pool: RoIPool,
        max_candidates: int,
        add_gt: bool = True,
    ):
        super().__init__()
        whole(1, max_candidates=max_candidates)
        self.pool, self.bbox_head = pool, heads[0] if len(heads) == 1 else nn.ModuleList(heads)
        self.assigners, self.loss_weights = tuple(assigners), tuple(loss_weights)
        self.sampler, self.everything = sampler, RandomSampler(None, 1.0)
        self.num_classes, self.max_candidates, self.add_gt = heads[0].num_classes, max_candidates, add_gt

    @property
    def stages(self) -> tuple[BoxHead, ...]:
        """The box heads in their order."""
        heads = self.bbox_head if isinstance(self.bbox_head, nn.ModuleList) else [self.bbox_head]
        return tuple(head for head in heads if isinstance(head, BoxHead))

    def features(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """What a box head sees of the regions (R, 5)."""
        pooled: Tensor = self.pool(maps, rois)
        return pooled

    def losses(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
        size_hw: tuple[int, int],
        sample: bool = True,
    ) -> dict[str, Tensor]:
        """{"roi_cls", "roi_box"} of the sampled regions, of several stages {"roi0_cls", "roi0_box", "roi1_cls", ...}.

        Args:
            maps: the neck's outputs.
            proposals: per image (K, 4), without gradient.
            targets, size_hw, sample: see `Detector.losses`.
        """
        sampler, losses, stages = self.sampler if sample else self.everything, {}, self.stages
        for i, (head, assigner, weight) in enumerate(zip(stages, self.assigners, self.loss_weights, strict=True)):
            regions = sample_rois(proposals, targets, assigner, sampler, self.num_classes, self.add_gt)
            logits, deltas = head(self.features(maps, regions.rois))
            stage = f"roi{i}" if len(stages) > 1 else "roi"
            for name, value in head.losses(logits, deltas, regions).items():
                losses[f"{stage}_{name}"] = weight * value
            if i + 1 < len(stages):
                proposals = refined(head, regions, deltas, size_hw, images=len(targets))
        return losses

    def candidates(
        self, maps: Sequence[Tensor], proposals: Tensor, valid: Tensor, size_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4) of the last stage and scores (B, N, C), the softmax of the stages' mean logits, before NMS.

        With boxes of their own for each class, a row is one (region, class) pair and has that one score.

        Args:
            maps: the neck's outputs.
            proposals: (B, K, 4).
            valid: (B, K) bool, False for padding.
            size_hw: boxes are clipped to this image.
        """
        rois, stages = image_rois(proposals, valid), self.stages
        total = rois.new_zeros(())
        for head in stages:
            logits, deltas = head(self.features(maps, rois))
            total = total + logits
            boxes = head.boxes(rois, deltas, size_hw)
            rois = torch.cat([rois[:, :1], boxes[:, 0]], dim=1)
        scores = spread((total / len(stages)).softmax(dim=1)[:, : self.num_classes], valid)
        boxes = spread(boxes, valid)
        if boxes.shape[2] == 1:
            return boxes.squeeze(2), scores
        return best_pairs(boxes, scores, self.max_candidates)


@torch.no_grad()
def refined(head: BoxHead, regions: RoISample, deltas: Tensor, size_hw: tuple[int, int], images: int) -> list[Tensor]:
    """Per image the boxes (K, 4) of this stage for the next one, without those that were ground truth."""
    boxes = head.boxes(regions.rois, deltas, size_hw)[:, 0]
    return [boxes[(regions.rois[:, 0] == i) & ~regions.from_gt] for i in range(images)]


class RoIHead(StagedHead):
    """One box head on RoIAlign features (Faster R-CNN).

    Args:
        in_channels, in_strides: of the neck's maps, finest first.
        num_classes: C.
        assigner, sampler: see `sample_rois`.
        coder: deltas <-> boxes.
        channels: of the two shared linear layers.
        class_agnostic: one box a region instead of one a class.
        box_beta: where the smooth L1 of the deltas becomes linear; 0 is plain L1.
        levels, finest_scale: see `RoIPool`.
        pool_size: cells a side of what is seen of a region.
        max_candidates: at most this many (region, class) pairs of an image leave `candidates`, the best ones.

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
        coder: DeltaCoder,
        channels: int = 1024,
        class_agnostic: bool = False,
        box_beta: float = 0.0,
        levels: int = 4,
        pool_size: int = 7,
        finest_scale: float = 56.0,
        max_candidates: int = 30000,
    ):
        pool = RoIPool(in_strides, levels, pool_size, finest_scale)
        head = BoxHead(in_channels[0] * pool_size**2, num_classes, channels, class_agnostic, coder, box_beta)
        super().__init__([head], [assigner], [1.0], sampler, pool, max_candidates)
