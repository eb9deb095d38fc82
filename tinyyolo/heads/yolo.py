"""The anchor head: class scores and a box per anchor, targets by NWD ranking."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from tinyyolo.assigners.assignment import IGNORE
from tinyyolo.assigners.base import Assigner
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.boxes.similarity import SIMILARITIES
from tinyyolo.compat import Conv, initialize_weights
from tinyyolo.config import above, whole, within

QUALITIES = ("one", "iou", "nwd")  # what a positive anchor's class score learns
LOSSES = ("box", "cls")
MAX_LOG_RATIO = math.log(16)  # a predicted side is within a factor 16 of its anchor's


class YoloHead(nn.Module):
    """Dense anchor head with decoupled branches and no objectness: its classes learn the background themselves.

    A positive anchor's box is decoded as centre = anchor centre + stride * t_xy, size = anchor size * exp(t_wh), in
    float32 whatever the precision: fp16 rounds coordinates at 800 px to half a pixel.

    Args:
        in_channels, in_strides: of the neck's maps, finest first.
        num_classes: C.
        anchors: per level a list of (w, h) in input pixels.
        assigner: gives each anchor its object (`tinyyolo.assigners`).
        hidden: channels of each branch per level.
        box_loss: weights by similarity name, e.g. {"ciou": 0.5, "nwd": 0.5}; the loss is sum of w * (1 - similarity).
        quality: target of a positive anchor's class: "one", or the detached "iou" or "nwd" of its predicted box.
        constant: C of the NWD in the box loss and quality, in pixels (paper, eq. 7).
        gains: weights of the losses {"box", "cls"}.

    Raises:
        ValueError: not one list of anchors per level, or an unknown loss, quality or gain, or a weight that is no
            number.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        num_classes: int,
        anchors: Sequence[Sequence[Sequence[float]]],
        assigner: Assigner,
        hidden: Sequence[int],
        box_loss: Mapping[str, float],
        quality: str = "one",
        constant: float = 12.7,
        gains: Mapping[str, float] | None = None,
    ):
        super().__init__()
        if len(anchors) != len(in_channels) or len(hidden) != len(in_channels):
            raise ValueError(f"anchors and hidden: they need one entry per level, {len(in_channels)}")
        whole(1, num_classes=num_classes, hidden=hidden)
        above(0, constant=constant)
        if quality not in QUALITIES:
            raise ValueError(f"quality={quality}: unknown. Choices: {', '.join(QUALITIES)}")
        self.grid = AnchorGrid(strides=in_strides, sizes=anchors, center_offset=0.5)
        self.assigner, self.num_classes = assigner, num_classes
        self.box_loss, self.quality = numbers("box_loss", box_loss, SIMILARITIES), quality
        self.constant = float(constant)
        self.register_buffer("class_weights", None, persistent=False)  # (C,), see `cls_pw`
        self.gains = {**dict.fromkeys(LOSSES, 1.0), **numbers("gains", gains or {}, LOSSES)}
        per_level = [len(level) for level in anchors]
        self.box_branch = nn.ModuleList(
            nn.Sequential(Conv(c, h, 3), nn.Conv2d(h, a * 4, 1))
            for c, h, a in zip(in_channels, hidden, per_level, strict=True)
        )
        self.class_branch = nn.ModuleList(
            nn.Sequential(Conv(c, h, 3), nn.Conv2d(h, a * num_classes, 1))
            for c, h, a in zip(in_channels, hidden, per_level, strict=True)
        )
        initialize_weights(self)
        self.reset_bias()

    def reset_bias(self, objects_per_image: float = 10.0, reference: int = 640) -> None:
        """Start from the prior: about `objects_per_image` positives among all anchors of a `reference` px image."""
        anchors = sum(self.grid.level_sizes((reference, reference)))
        for box, classes in zip(self.box_branch, self.class_branch, strict=True):
            nn.init.normal_(box[-1].weight, std=0.01)
            nn.init.zeros_(box[-1].bias)
            nn.init.constant_(classes[-1].bias, math.log(objects_per_image / anchors / self.num_classes))

    def raw(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Box deltas (B, N, 4) and class logits (B, N, C)."""
        deltas, logits = [], []
        for x, box, classes in zip(maps, self.box_branch, self.class_branch, strict=True):
            deltas.append(box(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4))
            logits.append(classes(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.num_classes))
        return torch.cat(deltas, 1).float(), torch.cat(logits, 1).float()

    def anchors(self, maps: list[Tensor], size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Anchors (N, 4) as cx, cy, w, h and their strides (N, 1), float32 on the maps' device."""
        sizes = [tuple(x.shape[-2:]) for x in maps]
        boxes = self.grid.boxes(size_hw, map_sizes=sizes).to(maps[0].device)
        levels = self.grid.level_sizes(size_hw, map_sizes=sizes)
        strides = torch.cat([boxes.new_full((n, 1), s) for n, s in zip(levels, self.grid.strides, strict=True)])
        return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1), strides

    @staticmethod
    def decode(anchors: Tensor, strides: Tensor, deltas: Tensor) -> Tensor:
        """Boxes (..., 4) xyxy from anchors (..., 4) cxcywh, strides (..., 1) and deltas (..., 4)."""
        centre = anchors[..., :2] + strides * deltas[..., :2]
        half = anchors[..., 2:] * deltas[..., 2:].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() / 2
        return torch.cat([centre - half, centre + half], dim=-1)

    def candidates(self, maps: list[Tensor], size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4) clipped to the image and class scores (B, N, C)."""
        deltas, logits = self.raw(maps)
        anchors, strides = self.anchors(maps, size_hw)
        height, width = size_hw
        x1, y1, x2, y2 = self.decode(anchors, strides, deltas).unbind(-1)
        boxes = torch.stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], -1)
        return boxes, logits.sigmoid()

    def losses(
        self, maps: list[Tensor], targets: list[dict[str, Tensor]], size_hw: tuple[int, int], sample: bool = True
    ) -> dict[str, Tensor]:
        """{"box", "cls"}: scalars, each divided by the summed quality of the batch's positives."""
        deltas, logits = self.raw(maps)
        anchors, strides = self.anchors(maps, size_hw)
        index = self.assign(maps, targets, size_hw)  # (B, N)
        image, anchor = (index >= 0).nonzero(as_tuple=True)
        offsets = torch.tensor([0, *[len(t["boxes"]) for t in targets]], device=index.device).cumsum(0)
        objects = index[image, anchor] + offsets[image]
        gt_boxes = torch.cat([t["boxes"] for t in targets])[objects].float()
        gt_labels = torch.cat([t["labels"] for t in targets])[objects]
        predicted = self.decode(anchors[anchor], strides[anchor], deltas[image, anchor])
        quality = self.target(predicted.detach(), gt_boxes)
        norm = quality.sum().clamp(min=1)

        box = self.gains["box"] * (self.box_distance(predicted, gt_boxes) * quality).sum() / norm
        target = torch.zeros_like(logits)
        target[image, anchor, gt_labels] = quality
        weight = torch.ones_like(logits)
        if self.class_weights is not None:
            weight[image, anchor] = self.class_weights[gt_labels][:, None]
        classes = (bce(logits, target, reduction="none") * weight)[index != IGNORE].sum() / norm
        return {"box": box, "cls": self.gains["cls"] * classes}

    def assign(self, maps: list[Tensor], targets: list[dict[str, Tensor]], size_hw: tuple[int, int]) -> Tensor:
        """(B, N) int64: the object of each anchor within its image, NEGATIVE or IGNORE."""
        ignore = [t.get("ignore", t["boxes"][:0]) for t in targets]
        assignments = self.assigner.on_grid_batch(
            self.grid, size_hw, [t["boxes"] for t in targets], ignore, map_sizes=[tuple(x.shape[-2:]) for x in maps]
        )
        return torch.stack([a.gt_index for a in assignments]).to(maps[0].device)

    def target(self, predicted: Tensor, gt_boxes: Tensor) -> Tensor:
        """(P,) what the classes of positive anchors learn, in [0, 1]."""
        if self.quality == "one":
            return predicted.new_ones(len(predicted))
        return self.similarity(self.quality, predicted, gt_boxes).clamp(0, 1)

    def box_distance(self, predicted: Tensor, gt_boxes: Tensor) -> Tensor:
        """(P,) weighted sum of 1 - similarity."""
        terms = [w * (1 - self.similarity(name, predicted, gt_boxes)) for name, w in self.box_loss.items() if w]
        return sum(terms, predicted.new_zeros(len(predicted)))

    def similarity(self, name: str, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        """(P,) aligned similarity by name."""
        measure = SIMILARITIES[name]
        return measure.aligned(boxes, gt_boxes, **({"constant": self.constant} if measure.takes_constant else {}))


def numbers(name: str, given: Mapping[str, float], choices: Collection[str]) -> dict[str, float]:
    """`given` as it is, if it is a mapping from some of `choices` to numbers; ValueError under `name` otherwise."""
    if not isinstance(given, Mapping) or not all(isinstance(value, int | float) for value in given.values()):
        raise ValueError(f"{name}={given}: expected a number for each of some of {', '.join(sorted(choices))}")
    if unknown := sorted(set(given) - set(choices)):
        raise ValueError(f"{name}: unknown {', '.join(unknown)}. Choices: {', '.join(sorted(choices))}")
    within(0, math.inf, **{f"{name}.{key}": value for key, value in given.items()})
    return dict(given)
