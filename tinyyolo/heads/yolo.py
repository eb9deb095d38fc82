"""The anchor head: class scores and a box per anchor, targets by NWD ranking."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import linear, pad

from tinyyolo.assigners.assignment import IGNORE
from tinyyolo.assigners.base import Assigner
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.boxes.coders import StrideCoder
from tinyyolo.boxes.convert import Core
from tinyyolo.boxes.nms import MinScore
from tinyyolo.boxes.nms import above as passing
from tinyyolo.boxes.similarity import SIMILARITIES, measure
from tinyyolo.compat import Conv, initialize_weights
from tinyyolo.config import above, whole, within
from tinyyolo.heads.dense import BOX, INIT_STD, DenseHead, around, flat, map_sizes, objects_of, patches
from tinyyolo.layers.blocks import initialise, normal
from tinyyolo.together import of_batch

QUALITIES = ("one", "iou", "nwd")  # what a positive anchor's class score learns
MOST_KNOWN = 16  # cores: corners, edges and the middle of a scene, and of the next one
PATCHES = 256  # looked at at once, filled up: for each other number oneDNN would make, and keep, other code
LOSSES = ("box", "cls")


class Part(NamedTuple):
    """Of a map: which rows are read for those of a core and where these are then; columns; cells read beyond them."""

    rows: tuple[slice, slice]
    columns: tuple[slice, slice]
    reach: int


class CoreCells(NamedTuple):
    """Of the cells that begin in a core: anchors (N, 4) and their strides (N, 1), what either branch reads by level."""

    anchors: Tensor
    strides: Tensor
    class_parts: list[Part]
    box_parts: list[Part]


class YoloHead(DenseHead):
    """Dense anchor head with decoupled branches and no objectness: its classes learn the background themselves.

    Boxes are those of `StrideCoder`, in float32 whatever the precision: fp16 rounds coordinates at 800 px to half a
    pixel.

    Args:
        in_channels, in_strides: of the neck's maps, finest first.
        num_classes: C.
        anchors: per level a list of (w, h) in input pixels, whose centres are those of the cells.
        assigner: gives each anchor its object (`tinyyolo.assigners`).
        hidden: channels of each branch per level.
        box_loss: weights by similarity name, e.g. {"ciou": 0.5, "nwd": 0.5}; the loss is sum of w * (1 - similarity).
        quality: target of a positive anchor's class: "one", or the detached "iou" or "nwd" of its predicted box.
        constant: C of the NWD in the box loss and quality, in pixels (paper, eq. 7).
        gains: weights of the losses {"box", "cls"}.

    Attributes:
        class_weights: (C,) how much the anchors of a class's objects count in the class loss (`cls_pw`); None: all 1.

    Raises:
        ValueError: not one list of anchors per level, or an unknown loss, quality or gain, or a weight that is no
            number, or a constant or a number of channels that is not above 0.
    """

    class_weights: Tensor | None

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
        if len(anchors) != len(in_channels) or len(hidden) != len(in_channels):
            raise ValueError(f"anchors and hidden: they need one entry per level, {len(in_channels)}")
        if quality not in QUALITIES:
            raise ValueError(f"quality={quality}: unknown. Choices: {', '.join(QUALITIES)}")
        whole(1, num_classes=num_classes, hidden=hidden)
        above(0, constant=constant)
        super().__init__(in_strides, AnchorGrid(strides=in_strides, sizes=anchors, center_offset=0.5), assigner)
        self.coder, self.num_classes = StrideCoder(), num_classes
        self.box_loss, self.quality = numbers("box_loss", box_loss, SIMILARITIES), quality
        self.constant = float(constant)
        self.register_buffer("class_weights", None, persistent=False)
        self._known: dict[Any, CoreCells] = {}
        self.gains = {**dict.fromkeys(LOSSES, 1.0), **numbers("gains", gains or {}, LOSSES)}
        self.box_branch = self._branches(in_channels, hidden, BOX)
        self.class_branch = self._branches(in_channels, hidden, num_classes)
        initialize_weights(self)
        self.reset_bias()

    def _branches(self, in_channels: Sequence[int], hidden: Sequence[int], values: int) -> nn.ModuleList:
        return nn.ModuleList(
            nn.Sequential(Conv(c, h, 3), nn.Conv2d(h, a * values, 1))
            for c, h, a in zip(in_channels, hidden, self.grid.per_cell, strict=True)
        )

    def reset_bias(self, objects_per_image: float = 10.0, reference: int = 640) -> None:
        """Start from the prior: about `objects_per_image` positives among all anchors of a `reference` px image."""
        anchors = sum(self.grid.level_sizes((reference, reference)))
        prior = math.log(objects_per_image / anchors / self.num_classes)
        for box, classes in zip(self.box_branch, self.class_branch, strict=True):
            initialise(box.get_submodule("1"), normal(INIT_STD))
            initialise(classes.get_submodule("1"), None, bias=prior)

    def class_tensors(self) -> dict[str, int]:
        """Names of the tensors (A C, ...) that have rows for each class -> A, the anchors a cell of their level."""
        found = zip(range(len(self.class_branch)), self.grid.per_cell, strict=True)
        return {f"class_branch.{i}.1.{leaf}": a for i, a in found for leaf in ("weight", "bias")}

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level class logits (B, A C, H, W) and deltas (B, 4 A, H, W)."""
        logits = [branch(x) for branch, x in zip(self.class_branch, maps, strict=True)]
        return logits, [branch(x) for branch, x in zip(self.box_branch, maps, strict=True)]

    def candidates(
        self,
        maps: Sequence[Tensor],
        size_hw: tuple[int, int],
        core: Core | None = None,
        least: MinScore | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4) clipped to the image and class scores (B, N, C); see `DenseHead.candidates`."""
        if core is None:
            return self.boxes(maps, size_hw), self.scores(maps)
        anchors, strides, class_parts, box_parts = self._core(maps, size_hw, core)
        said = [of_part(*level) for level in zip(self.class_branch, maps, class_parts, strict=True)]
        scores = flat(said, self.num_classes).float().sigmoid()
        wanted = torch.ones_like(scores[..., 0], dtype=torch.bool) if least is None else passing(scores, least).any(-1)
        image, row = wanted.nonzero(as_tuple=True)
        boxes = scores.new_zeros(*wanted.shape, BOX)
        boxes[image, row] = self.coder.decode(anchors[row], self._deltas(maps, box_parts, image, row), strides[row])
        return boxes, scores

    def scores(self, maps: Sequence[Tensor]) -> Tensor:
        """Class scores (B, N, C) float32."""
        logits = [branch(x) for branch, x in zip(self.class_branch, maps, strict=True)]
        return flat(logits, self.num_classes).float().sigmoid()

    def boxes(self, maps: Sequence[Tensor], size_hw: tuple[int, int]) -> Tensor:
        """Boxes (B, N, 4) clipped to the image, float32."""
        anchors, strides = self.lattice(maps, size_hw)
        deltas = [branch(x) for branch, x in zip(self.box_branch, maps, strict=True)]
        return self.coder.decode(anchors, flat(deltas, BOX), strides, size_hw)

    def boxes_at(self, maps: Sequence[Tensor], size_hw: tuple[int, int], image: Tensor, row: Tensor) -> Tensor:
        """`boxes` (P, 4) of anchors `row` (P,) of images `image` (P,), as a graph that does nothing for other cells.

        Where few of all are asked for, as after a threshold, a sixth of the network's time is saved. The layers are
        fused.
        """
        anchors, strides = self.lattice(maps, size_hw)
        none = torch.zeros_like(torch.arange(strides.shape[0], device=row.device))
        wanted = none.expand(maps[0].shape[0], -1).index_put((image, row), none.new_ones(()))
        begin, levels = 0, []
        for branch, x, each in zip(self.box_branch, maps, self.grid.per_cell, strict=True):
            images, (height, width) = x.shape[0], map_sizes([x])[0]
            end = begin + height * width * each
            of_cell, cell = (wanted[:, begin:end].reshape(images, -1, each).amax(2) > 0).nonzero().unbind(1)
            near = around(x.permute(0, 2, 3, 1), of_cell, cell // width, cell % width, reach_of(branch))
            said = at_centre(branch, near)
            empty = said.new_zeros(()).expand(images, height * width, each * BOX)
            levels.append(empty.index_put((of_cell, cell), said).reshape(images, -1, BOX))
            begin = end
        return self.coder.decode(anchors[row], torch.cat(levels, dim=1)[image, row], strides[row], size_hw)

    def _core(self, maps: Sequence[Tensor], size_hw: tuple[int, int], core: Core) -> CoreCells:
        """What there is to know of the cells that begin in a core. Windows have few cores: the last ones are kept."""
        key = (tuple(map_sizes(maps)), size_hw, core, maps[0].device)
        if key not in self._known:
            with torch.inference_mode(False), torch.no_grad():  # others may ask for gradients
                owned = torch.cat(self.owned(maps, size_hw, core))
                anchors, strides = (column[owned] for column in self.lattice(maps, size_hw))
            parts = [
                [part_of(core, int(s), x, branch) for branch, x, s in zip(some, maps, self.grid.strides, strict=True)]
                for some in (self.class_branch, self.box_branch)
            ]
            known = CoreCells(anchors, strides, *parts)
            self._known = dict([*self._known.items(), (key, known)][-MOST_KNOWN:])
        return self._known[key]

    def _deltas(self, maps: Sequence[Tensor], parts: Sequence[Part], image: Tensor, row: Tensor) -> Tensor:
        """(P, 4) deltas of anchors: `image` (P,), and `row` (P,) among those whose cells begin in the core, in order.

        A sixth of the network's time would go into the boxes of all cells; where few are asked for, the branch is shown
        the patches that it looks at for them.
        """
        out = maps[0].new_empty(len(row), BOX)
        begin = 0
        for branch, x, part, each in zip(self.box_branch, maps, parts, self.grid.per_cell, strict=True):
            (read_y, own_y), (read_x, own_x), reach = part
            width, cells = own_x.stop - own_x.start, (own_y.stop - own_y.start) * (own_x.stop - own_x.start)
            at = ((row >= begin) & (row < begin + cells * each)).nonzero().squeeze(1)
            place = row[at] - begin
            cell, which = torch.unique_consecutive(image[at] * cells + place // each, return_inverse=True)
            some = pad(cell, (0, -len(cell) % PATCHES))
            if len(some) * (2 * reach + 1) ** 2 < cells * len(x):
                y, across = (
                    some % cells // width + read_y.start + own_y.start,
                    some % width + read_x.start + own_x.start,
                )
                parted = torch.stack([some // cells, y, across]).split(PATCHES, dim=1)
                shown = (patches(x, which_image, down, right, reach) for which_image, down, right in parted)
                found = torch.cat([branch(patch)[..., reach, reach] for patch in shown])
            else:
                found = of_part(branch, x, part).permute(0, 2, 3, 1).reshape(-1, each * BOX)[cell]
            out[at] = found.view(-1, each, BOX)[which, place % each].to(out)
            begin += cells * each
        return out

    def losses(
        self,
        maps: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
        size_hw: tuple[int, int],
        sample: bool = True,
    ) -> dict[str, Tensor]:
        """{"box", "cls"}: each divided by the summed quality of the batch's positives, at least 1.

        See `DenseHead.losses`.
        """
        logits, deltas = self(maps)
        logits = flat(logits, self.num_classes).float()
        anchors, strides = self.lattice(maps, size_hw)
        index = self.gt_index(maps, targets, size_hw)
        image, anchor = (index >= 0).nonzero(as_tuple=True)
        gt_boxes, gt_labels = objects_of(targets, image, index[image, anchor])
        predicted = self.coder.decode(anchors[anchor], flat(deltas, BOX)[image, anchor], strides[anchor])
        quality = self.target(predicted.detach(), gt_boxes)
        norm = of_batch(quality.sum(), 1)

        box = self.gains["box"] * (self.box_distance(predicted, gt_boxes) * quality).sum() / norm
        target = torch.zeros_like(logits)
        target[image, anchor, gt_labels] = quality
        entries = bce(logits, target, reduction="none")
        if self.class_weights is not None:
            weight = torch.ones_like(logits)
            weight[image, anchor] = self.class_weights[gt_labels][:, None]
            entries = entries * weight
        return {"box": box, "cls": self.gains["cls"] * (entries[index != IGNORE].sum() / norm)}

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
        return measure(name, self.constant).aligned(boxes, gt_boxes)


def reach_of(module: nn.Module) -> int:
    """How many cells a row of convolutions looks beyond its own to each side.

    Examples:
        >>> reach_of(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 5, dilation=2)))
        5
    """
    every = (m for m in module.modules() if isinstance(m, nn.Conv2d))
    return sum(m.dilation[0] * (m.kernel_size[0] - 1) // 2 for m in every)


def at_centre(branch: Any, near: Tensor) -> Tensor:
    """What fused layers, of which the first alone looks beyond its cell, say of the centres of (P, K, K, C): (P, D).

    Examples:
        >>> branch = nn.Sequential(Conv(2, 3, 3), nn.Conv2d(3, 5, 1)).eval()
        >>> branch[0].conv.bias = nn.Parameter(torch.ones(3))  # as after `fuse`
        >>> branch[0].forward = branch[0].forward_fuse
        >>> near = torch.rand(4, 3, 3, 2)
        >>> expected = branch(near.permute(0, 3, 1, 2))[..., 1, 1]
        >>> torch.allclose(at_centre(branch, near), expected, atol=1e-6)
        True
    """
    said = near.flatten(1)
    for layer in branch:
        conv = getattr(layer, "conv", layer)
        said = linear(said, conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias)
        said = layer.act(said) if conv is not layer else said
    return said


def part_of(core: Core, stride: int, x: Tensor, branch: nn.Module) -> Part:
    """The part of a map (B, C, H, W) for a core, px of the input, and a branch."""
    reach = reach_of(branch)
    rows = spans_of(core[1], core[3], stride, x.shape[-2], reach)
    return Part(rows, spans_of(core[0], core[2], stride, x.shape[-1], reach), reach)


def of_part(branch: nn.Module, x: Tensor, part: Part) -> Tensor:
    """What a branch says of a part of a map; it is shown as many cells around as it looks far."""
    (rows, own_rows), (columns, own_columns), _ = part
    said: Tensor = branch(x[..., rows, columns])
    return said[..., own_rows, own_columns]


def spans_of(low: int, high: int, stride: int, length: int, reach: int) -> tuple[slice, slice]:
    """Which of `length` cells are read for those that begin in [low, high) px, at least one, and where these are then.

    Examples:
        >>> spans_of(48, 592, 32, 20, 1), spans_of(33, 40, 32, 20, 1)
        ((slice(1, 20, None), slice(1, 18, None)), (slice(1, 4, None), slice(1, 1, None)))
    """
    first, behind = (min(-(-edge // stride), length) for edge in (low, high))
    begin = max(min(first, length - 1) - reach, 0)
    return slice(begin, max(behind, first + 1) + reach), slice(first - begin, behind - begin)


def numbers(name: str, given: Mapping[str, float], choices: Collection[str]) -> dict[str, float]:
    """`given` as it is, if it is a mapping from some of `choices` to numbers; ValueError under `name` otherwise."""
    if not isinstance(given, Mapping) or not all(isinstance(value, int | float) for value in given.values()):
        raise ValueError(f"{name}={given}: expected a number for each of some of {', '.join(sorted(choices))}")
    if unknown := sorted(set(given) - set(choices)):
        raise ValueError(f"{name}: unknown {', '.join(unknown)}. Choices: {', '.join(sorted(choices))}")
    within(0, math.inf, **{f"{name}.{key}": value for key, value in given.items()})
    return dict(given)
