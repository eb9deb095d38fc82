"""RetinaNet's head: class scores and deltas for every anchor, trained by the focal loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from tinyyolo.assigners.assignment import IGNORE
from tinyyolo.assigners.base import Assigner
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.boxes.coders import DeltaCoder
from tinyyolo.boxes.convert import Core
from tinyyolo.boxes.nms import MinScore
from tinyyolo.boxes.similarity import SIMILARITIES, measure
from tinyyolo.config import suggest, whole, within
from tinyyolo.heads.dense import BOX, INIT_STD, DeltaHead, flat, shared
from tinyyolo.layers.blocks import conv_layer, initialise, logit, normal
from tinyyolo.layers.losses import focal_loss, smooth_l1
from tinyyolo.together import of_batch

DELTAS = "deltas"  # the box loss that compares these


class RetinaHead(DeltaHead):
    """Two branches of 3x3 convolutions, shared by all levels (Lin et al., 2017b).

    Args:
        in_channels, in_strides: of the neck's maps, finest first.
        num_classes: C.
        anchors, assigner, inside_only: see `AnchorHead`.
        coder: deltas <-> boxes; by default mean 0 and std 1.
        channels: of the branches.
        convs: 3x3 convolutions with ReLU in each branch.
        prior: probability of an object that the classifier starts from.
        gamma, alpha: of the focal loss.
        box_loss: "deltas", their smooth L1, or a similarity of the decoded boxes, whose sum of 1 - similarity it is.
        box_beta: where the smooth L1 of the deltas becomes linear; 0 is plain L1.
        pre_nms: best (anchor, class) pairs kept per level.

    Raises:
        ValueError: levels of unequal channels, anchors that do not fit the maps, or a number out of its bounds.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        num_classes: int,
        anchors: AnchorGrid,
        assigner: Assigner,
        coder: DeltaCoder | None = None,
        inside_only: bool = False,
        channels: int = 256,
        convs: int = 4,
        prior: float = 0.01,
        gamma: float = 2.0,
        alpha: float = 0.25,
        box_loss: str = DELTAS,
        box_beta: float = 0.0,
        pre_nms: int = 3000,
    ):
        super().__init__(in_strides, anchors, assigner, inside_only)
        inputs, per_cell = shared(in_channels, anchors)
        whole(1, num_classes=num_classes, channels=channels, pre_nms=pre_nms)
        whole(0, convs=convs)
        within(0, 1, alpha=alpha)
        if not 0 < prior < 1:
            raise ValueError(f"prior={prior}: expected a number between 0 and 1, neither of them")
        within(0, math.inf, gamma=gamma, box_beta=box_beta)
        if box_loss not in (DELTAS, *SIMILARITIES):
            raise ValueError(f"box_loss={box_loss}: unknown; {suggest(box_loss, [DELTAS, *SIMILARITIES])}")
        if box_loss != DELTAS and box_beta:
            raise ValueError(f"box_beta={box_beta}: of box_loss={DELTAS} alone, not of {box_loss}")
        self.coder, self.num_classes, self.pre_nms = coder or DeltaCoder(), num_classes, pre_nms
        self.gamma, self.alpha, self.box_loss, self.box_beta = gamma, alpha, box_loss, box_beta
        widths = [inputs] + [channels] * convs
        steps = list(pairwise(widths))
        self.cls_convs = nn.ModuleList(conv_layer(i, o, kernel=3, relu=True) for i, o in steps)
        self.reg_convs = nn.ModuleList(conv_layer(i, o, kernel=3, relu=True) for i, o in steps)
        self.retina_cls = nn.Conv2d(widths[-1], per_cell * num_classes, 3, padding=1)
        self.retina_reg = nn.Conv2d(widths[-1], per_cell * BOX, 3, padding=1)
        initialise(self, normal(INIT_STD))
        initialise(self.retina_cls, None, bias=logit(prior))

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level class logits (B, A C, H, W) and deltas (B, 4 A, H, W)."""
        logits, deltas = [], []
        for x in maps:
            classes = boxes = x
            for class_conv, box_conv in zip(self.cls_convs, self.reg_convs, strict=True):
                classes, boxes = class_conv(classes), box_conv(boxes)
            logits.append(self.retina_cls(classes))
            deltas.append(self.retina_reg(boxes))
        return logits, deltas

    def losses(
        self,
        maps: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
        size_hw: tuple[int, int],
        sample: bool = True,
    ) -> dict[str, Tensor]:
        """{"cls", "box"}: focal and box loss, divided by the positives of the batch, at least 1 an image.

        See `DenseHead.losses`.
        """
        logits, deltas = self(maps)
        logits, deltas = flat(logits, self.num_classes), flat(deltas, BOX)
        anchors, count = torch.cat(self.anchors(maps, size_hw)), 0
        classes = boxes = logits.new_zeros((), dtype=torch.float32)
        for i, assignment in enumerate(self.assign(maps, targets, size_hw)):
            gt_index = assignment.gt_index.to(logits.device)
            positive = (gt_index >= 0).nonzero().squeeze(1)
            objects = gt_index[positive]
            labels = gt_index.clone()  # negative values stay: background
            labels[positive] = targets[i]["labels"].to(labels)[objects]
            used = gt_index != IGNORE
            classes = classes + focal_loss(logits[i][used], labels[used], self.gamma, self.alpha)
            boxes = boxes + self.box_distance(anchors[positive], deltas[i, positive], targets[i]["boxes"][objects])
            count += max(len(positive), 1)
        count = of_batch(count)
        return {"cls": classes / count, "box": boxes / count}

    def box_distance(self, anchors: Tensor, deltas: Tensor, gt_boxes: Tensor) -> Tensor:
        """Summed box loss of P positive anchors (P, 4), what is predicted for them, and their objects."""
        if self.box_loss == DELTAS:
            return smooth_l1(deltas, self.coder.encode(anchors, gt_boxes), self.box_beta)
        return (1 - measure(self.box_loss).aligned(self.coder.decode(anchors, deltas), gt_boxes)).sum()

    @torch.no_grad()
    def candidates(
        self,
        maps: Sequence[Tensor],
        size_hw: tuple[int, int],
        core: Core | None = None,
        least: MinScore | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4), scores (B, N, C): the best (anchor, class) pairs of every level, each with its one score."""
        logits, deltas = self(maps)
        scores = [flat([x], self.num_classes).float().sigmoid() for x in logits]
        return self.best_candidates(scores, deltas, maps, size_hw, core)
