"""YOLOv3's head: a box, an objectness and class scores for every anchor, trained by sums over the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import mse_loss

from tinyyolo.assigners.assignment import IGNORE
from tinyyolo.assigners.base import Assigner
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.boxes.coders import CellCoder
from tinyyolo.boxes.convert import Core
from tinyyolo.boxes.nms import MinScore
from tinyyolo.config import whole, within
from tinyyolo.heads.dense import BOX, INIT_STD, DenseHead, flat, objects_of
from tinyyolo.layers.blocks import initialise, leaky_conv, logit, normal

REFERENCE, OBJECTS = 608, 8  # px and objects a map, from which the objectness starts
CLASS_PRIOR = 0.01
XY_GAIN = WH_GAIN = 2.0


class YOLOv3Head(DenseHead):
    """A 3x3 convolution and one that predicts, per level (Redmon and Farhadi, 2018, section 2).

    Modules count from the coarsest level on, as in the authors' checkpoints; maps and anchors from the finest.

    Args:
        in_channels, in_strides: of the neck's maps, finest first.
        num_classes: C.
        anchors: per level a list of (w, h) in input pixels, finest first, centred in the cells.
        assigner: gives each anchor its object (`tinyyolo.assigners`).
        min_score: class scores up to this are 0, before the objectness weighs them.
        min_objectness: anchors of less have score 0.

    Raises:
        ValueError: not one list of anchors per level, or a number out of its bounds.
    """

    beyond_counts = True  # as in the official code, which has no flags of valid points here

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        num_classes: int,
        anchors: Sequence[Sequence[Sequence[float]]],
        assigner: Assigner,
        min_score: float = 0.05,
        min_objectness: float = 0.005,
    ):
        if len(anchors) != len(in_channels):
            raise ValueError(f"anchors: they need one entry per level, {len(in_channels)}")
        whole(1, num_classes=num_classes)
        within(0, 1, min_score=min_score, min_objectness=min_objectness)
        super().__init__(in_strides, AnchorGrid(strides=in_strides, sizes=anchors, center_offset=0.5), assigner)
        self.coder, self.num_classes, self.values = CellCoder(), num_classes, BOX + 1 + num_classes
        self.min_score, self.min_objectness = min_score, min_objectness
        coarse_first = list(zip(in_channels, in_strides, self.grid.per_cell, strict=True))[::-1]
        self.convs_bridge = nn.ModuleList(leaky_conv(c, 2 * c, kernel=3) for c, _, _ in coarse_first)
        self.convs_pred = nn.ModuleList(nn.Conv2d(2 * c, a * self.values, 1) for c, _, a in coarse_first)
        for conv, (_, stride, per_cell) in zip(self.convs_pred, coarse_first, strict=True):
            self._start(conv, per_cell, min(0.5, OBJECTS / (REFERENCE / stride) ** 2))

    def _start(self, conv: nn.Module, per_cell: int, objects: float) -> None:
        """Initial weights and biases of one level: scores of the prior probabilities."""
        initialise(conv, normal(INIT_STD))
        bias = conv.get_parameter("bias").detach().view(per_cell, self.values)
        bias[:, BOX], bias[:, BOX + 1 :] = logit(objects), logit(CLASS_PRIOR)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Per level (B, A (5 + C), H, W), finest first: x, y, w, h, objectness and classes of every anchor."""
        levels = zip(self.convs_bridge, self.convs_pred, reversed(maps), strict=True)
        return [pred(bridge(x)) for bridge, pred, x in levels][::-1]

    def losses(
        self,
        maps: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
        size_hw: tuple[int, int],
        sample: bool = True,
    ) -> dict[str, Tensor]:
        """{"cls", "obj", "xy", "wh"}: sums over the batch, without a normaliser, as in the official code.

        Cross entropy of the classes and of the place in the cell, and squares of the log sides, over positives;
        cross entropy of the objectness over positives and negatives. See `DenseHead.losses`.
        """
        outputs = flat(self(maps), self.values).float()
        anchors, strides = self.lattice(maps, size_hw)
        index = self.gt_index(maps, targets, size_hw)
        image, anchor = (index >= 0).nonzero(as_tuple=True)
        gt_boxes, gt_labels = objects_of(targets, image, index[image, anchor])
        own, used = outputs[image, anchor], index != IGNORE
        expected = self.coder.encode(anchors[anchor], gt_boxes, strides[anchor])
        classes = nn.functional.one_hot(gt_labels, self.num_classes).to(own)
        return {
            "cls": bce(own[:, BOX + 1 :], classes, reduction="sum"),
            "obj": bce(outputs[..., BOX][used], (index >= 0)[used].to(own), reduction="sum"),
            "xy": XY_GAIN * bce(own[:, :2], expected[:, :2], reduction="sum"),
            "wh": WH_GAIN * mse_loss(own[:, 2:BOX], expected[:, 2:], reduction="sum"),
        }

    def candidates(
        self,
        maps: Sequence[Tensor],
        size_hw: tuple[int, int],
        core: Core | None = None,
        least: MinScore | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4), which may reach out of the image, and scores (B, N, C): objectness times class.

        `min_score` is of the class alone: products below it stay candidates. See `DenseHead.candidates`.
        """
        outputs = flat(self(maps), self.values).float()
        anchors, strides = self.lattice(maps, size_hw)
        boxes = self.coder.decode(anchors, outputs[..., :BOX], strides)
        objectness, classes = outputs[..., BOX : BOX + 1].sigmoid(), outputs[..., BOX + 1 :].sigmoid()
        kept = (objectness >= self.min_objectness) & (classes > self.min_score)
        if core is not None:
            kept &= torch.cat(self.owned(maps, size_hw, core))[:, None]
        return boxes, objectness * classes * kept
