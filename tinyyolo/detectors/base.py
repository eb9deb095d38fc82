"""What ultralytics' engine asks of a model, in one place; every detector is a subclass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import LOGGER

from tinyyolo.boxes.convert import Core, to_pixels
from tinyyolo.boxes.nms import MinScore
from tinyyolo.config import UserError, shown, suggest
from tinyyolo.detectors.postprocess import Postprocess, output_of
from tinyyolo.sizes import ENGINE_STRIDE

IMAGENET_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)  # RGB in [0, 1]
IMAGENET_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)
PADS = ("center", "corner")


class Detector(BaseModel):
    """backbone -> neck -> heads, behind the engine's contract.

    In training `forward(batch dict)` gives the loss; in eval mode `forward(images)` gives `(y, maps)`, y (B, 4 + C, N)
    float32: cx, cy, w, h in pixels of the network input, then class scores, before NMS. Subclasses have the heads as
    attributes and give `losses` and `candidates`.

    Attributes:
        channels_last: whether to train on channels-last maps on a CPU; evaluation always does.
        half_maps: whether layers and their maps are float16 where images are looked at (`look`); weights, decoding and
            boxes are float32 all the same.
        pad_colour: RGB in [0, 1] of what fills up an image in the corner; None for one in the centre.

    Args:
        backbone: image -> list of maps, finest first, with `.channels` and `.strides`.
        neck: list of maps -> list of maps, with `.channels` and `.strides`.
        num_classes: C.
        test: the section `test:` of the model YAML, see `Postprocess.of`.
        normalize: {"mean": 3 floats, "std": 3 floats} applied to RGB in [0, 1]; None for none. With "bgr" true the
            backbone then gets blue first, as weights that come from Caffe expect.
        spec: the resolved model YAML that rebuilds this model.
        pad: where an image lies in an input of another shape: center, on grey, or corner, filled up to the right and
            below by `pad_colour`, which is zero once it is normalised, as in the official code.

    Raises:
        UserError: a bad key or value in `test`, or no such `pad`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        num_classes: int,
        test: Mapping[str, Any] | None = None,
        normalize: Mapping[str, Any] | None = None,
        spec: Mapping[str, Any] | None = None,
        pad: str = PADS[0],
    ):
        super().__init__()
        self.backbone, self.neck = backbone, neck
        self.channels_last = bool(getattr(backbone, "channels_last", False))
        self.nc = num_classes
        self.names = {i: str(i) for i in range(num_classes)}
        self.test = dict(test or {})
        self.thresholds: list[float] | None = None  # scores (C,) by its validation, see `postprocess.class_scores`
        self.settings = Postprocess.of(self.test)
        normalize = normalize or {"mean": (0.0,) * 3, "std": (1.0,) * 3}
        if pad not in PADS:
            raise UserError(f"pad={shown(pad)}: unknown; {suggest(pad, PADS)}")
        self.pad_colour = None if pad == PADS[0] else list(normalize["mean"])
        self.bgr = bool(normalize.get("bgr"))
        self.register_buffer("mean", torch.tensor(normalize["mean"]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalize["std"]).view(3, 1, 1), persistent=False)
        # The engine reads these: padding, rebuilding, task dispatch, loss bookkeeping.
        self.stride = torch.tensor([float(ENGINE_STRIDE)])
        self.yaml = dict(spec or {})
        self.task = "detect"
        self.args: Any = {}
        self.criterion = None
        self.half_maps = False
        self.export = False  # tracing: return y alone
        self.pt_path = None

    @property
    def model(self) -> nn.ModuleList:
        """The children in data-flow order; the engine indexes it. A view: it owns nothing and names no tensor."""
        return nn.ModuleList(self.children())

    def info(
        self, detailed: bool = False, verbose: bool = True, imgsz: int | Sequence[int] = 640
    ) -> tuple[int, int, int, float] | None:
        """As upstream, with the operations of `gflops`.

        Returns:
            Numbers of layers, parameters and gradients, and GFLOPs on an image of `imgsz`; None unless verbose.
        """
        if not verbose:
            return None
        for name, p in self.named_parameters() if detailed else ():
            LOGGER.info(f"{name:60} {'x'.join(map(str, p.shape)):>20} {p.numel():>10,}")
        count = sum(p.numel() for p in self.parameters())
        learnt = sum(p.numel() for p in self.parameters() if p.requires_grad)
        layers = sum(not [*module.children()] for module in self.modules())
        fused: Any = self.is_fused
        operations = self.gflops(imgsz)
        LOGGER.info(
            f"Model summary{' (fused)' if fused() else ''}: {layers:,} layers, {count:,} parameters, "
            f"{learnt:,} gradients, {operations:.1f} GFLOPs"
        )
        return layers, count, learnt, operations

    @property
    @abstractmethod
    def first_head(self) -> nn.Module:
        """The head that sees the whole maps."""

    def gflops(self, imgsz: int | Sequence[int] = 640) -> float:
        """Billions of operations on one image, two a multiply-add: the sum over all convolutions and products.

        Deformable convolutions are not counted beside their offsets, nor what a head does with its findings alone, as
        Grid R-CNN's grids.

        Args:
            imgsz: side, or height and width, px.
        """
        height, width = imgsz if isinstance(imgsz, Sequence) else (imgsz, imgsz)
        shapes = deepcopy(self).eval().to("meta")  # no memory and no arithmetic
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            shapes.first_head(shapes.features(torch.zeros(1, 3, height, width, device="meta")))
        return float(counter.get_total_flops() / 1e9)

    @abstractmethod
    def losses(
        self, maps: list[Tensor], targets: list[dict[str, Tensor]], size_hw: tuple[int, int], sample: bool = True
    ) -> dict[str, Tensor]:
        """Training losses by name, scalars whose sum is minimised.

        Args:
            maps: the neck's outputs.
            targets: per image {"boxes": (M, 4) xyxy in input pixels, "labels": (M,) int64, optional "ignore": (K, 4)},
                and of one in a corner of the input "size_hw" (2,), its height and width there.
            size_hw: height and width of the network input.
            sample: False uses every positive and negative instead of a random sample.
        """

    @abstractmethod
    def candidates(
        self,
        maps: list[Tensor],
        size_hw: tuple[int, int],
        core: Core | None = None,
        least: MinScore | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4) float32 xyxy in input pixels and class scores (B, N, C) float32, before NMS; N is fixed.

        Args:
            maps: the neck's outputs.
            size_hw: height and width of the network input.
            core: x1, y1, x2, y2: only candidates of this part of the input are wanted, and boxes may reach out of the
                input. Of a dense head they are those whose cell begins there, of a second stage those whose centre lies
                there; all others are left out or score 0.
            least: with a core, the boxes of candidates that score more than this in some class are wanted; all others'
                may be 0. A number, one for each class (C,), or None for all.
        """

    def features(self, images: Tensor) -> list[Tensor]:
        """Neck maps of RGB images (B, 3, H, W) in [0, 1]."""
        # A quarter less time on a CPU; but the backward pass of wide backbones takes more.
        if images.device.type == "cpu" and (not self.training or self.channels_last):
            images = images.contiguous(memory_format=torch.channels_last)
        images = (images - self.mean) / self.std
        maps: list[Tensor] = self.neck(self.backbone(images.flip(1) if self.bgr else images))
        return maps

    def at_precision(self, images: Tensor) -> Any:
        """A context in which layers compute in float16, see `half_maps`; otherwise one that changes nothing.

        By autocast, not by weights of 16 bits: pixels, and the places of a deformable convolution's taps, stay exact.
        """
        return torch.autocast(images.device.type, torch.float16) if self.half_maps else nullcontext()

    def look(
        self, images: Tensor, core: Core | None = None, least: MinScore | None = None
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """From images (B, 3, H, W), RGB in [0, 1], to the neck's maps, boxes and scores; see `candidates`."""
        with self.at_precision(images):
            maps = self.features(images)
            return maps, *self.candidates(maps, (images.shape[-2], images.shape[-1]), core, least)

    def predict(self, x: Tensor, profile: bool = False, augment: bool = False, embed: Any = None) -> Any:
        """Eval-mode forward of the engine: (y, maps), or vectors for `embed`. In train mode the maps alone.

        Args:
            x: (B, 3, H, W) RGB in [0, 1].
            profile, augment: upstream's; not used.
            embed: indices of the neck's maps, 0 the finest: per image one vector, the means of these maps in a row.

        Raises:
            UserError: no such map.
        """
        if embed is not None:
            with self.at_precision(x):
                maps = self.features(x)
            if not embed or any(level not in range(len(maps)) for level in embed):
                raise UserError(f"embed={embed}: expected maps of the neck; Choices: 0 (finest) to {len(maps) - 1}")
            return list(torch.cat([maps[level].float().mean(dim=(2, 3)) for level in embed], dim=1).unbind())
        if self.training:
            return self.features(x)
        maps, boxes, scores = self.look(x)
        y = output_of(boxes, scores)
        return y if self.export else (y, maps)

    def loss(self, batch: dict[str, Any], preds: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The engine's loss: (sum over losses, {name: detached scalar}) of a batch as the dataset collates it."""
        images = batch["img"]
        maps = self.features(images) if preds is None else preds[1] if isinstance(preds, tuple) else preds
        losses = self.losses(maps, targets_of(batch), (images.shape[-2], images.shape[-1]))
        total = sum(losses.values(), images.new_zeros(()))
        return total, {name: value.detach() for name, value in losses.items()}

    @torch.no_grad()
    def detect(self, maps: list[Tensor], size_hw: tuple[int, int]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Per image boxes (K, 4), scores (K,) and labels (K,) by the model's own test settings."""
        return self.settings(*self.candidates(maps, size_hw))

    def set_head_attr(self, **attributes: Any) -> None:
        """The engine passes max_det here for heads that do their own NMS; ours leave NMS to the engine."""


def targets_of(batch: Mapping[str, Any]) -> list[dict[str, Tensor]]:
    """Per-image targets in input pixels from a collated batch.

    Args:
        batch: "img" (B, 3, H, W), "batch_idx" (K,), "cls" (K, 1), "bboxes" (K, 4) normalised cxcywh, and optionally
            "ignore_idx" (J,), "ignore_bboxes" (J, 4), "content_hw" (B, 2).
    """
    device, size_hw = batch["img"].device, batch["img"].shape[-2:]
    boxes, owner, labels = batch["bboxes"], batch["batch_idx"].to(device), batch["cls"].to(device).view(-1).long()
    regions, region_owner = batch.get("ignore_bboxes", boxes[:0]), batch.get("ignore_idx", owner[:0]).to(device)
    boxes, regions = (to_pixels(given.to(device, torch.float32), size_hw) for given in (boxes, regions))
    return [
        {"boxes": boxes[owner == i], "labels": labels[owner == i], "ignore": regions[region_owner == i]}
        | ({"size_hw": batch["content_hw"][i]} if "content_hw" in batch else {})
        for i in range(len(batch["img"]))
    ]


def filled(images: Tensor, content_hw: Tensor, colour: Sequence[float]) -> Tensor:
    """Images (B, 3, H, W) with `colour` (3,) to the right of and below the first rows and columns (B, 2) of each.

    Examples:
        >>> filled(torch.ones(1, 1, 2, 3), torch.tensor([[1, 2]]), [0.5])
        tensor([[[[1.0000, 1.0000, 0.5000],
                  [0.5000, 0.5000, 0.5000]]]])
    """
    content_hw = content_hw.to(images.device)[:, :, None]
    rows, columns = (
        torch.arange(side, device=images.device) < content_hw[:, i] for i, side in enumerate(images.shape[2:])
    )
    inside = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(inside, images, images.new_tensor(colour).view(-1, 1, 1))
