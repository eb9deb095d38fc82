"""Box head behind the last stage of a ResNet, which runs on every region (Ren et al., 2015, on ResNets: "C4")."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from tinyyolo.assigners.base import Assigner
from tinyyolo.assigners.samplers import RandomSampler
from tinyyolo.backbones.base import Backbone
from tinyyolo.backbones.resnet import DEPTHS, STAGE_WIDTHS, ResNet
from tinyyolo.boxes.coders import DeltaCoder
from tinyyolo.heads.regions import in_parts
from tinyyolo.heads.roi import BoxHead, RoIPool, StagedHead


class LastStage(Backbone):
    """The fourth stage of a ResNet, stride 2; names of tensors as in the whole network.

    Args:
        depth, norm_eval, style: of the ResNet.
    """

    # Parts of names of weights from ImageNet that are another module's.
    elsewhere = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.")
    layer4: nn.Module

    def __init__(self, depth: int, norm_eval: bool, style: str):
        super().__init__()
        body = ResNet(depth, frozen_stages=-1, norm_eval=norm_eval, style=style)
        self.norm_eval, self.channels = norm_eval, body.channels[-1:]
        self.add_module("layer4", body.stages[-1])
        self.fixed = [module for module in body.frozen() if module in set(self.modules())]
        self.train()

    def frozen(self) -> Iterable[nn.Module]:
        """What of the whole network never learns, as far as it is here."""
        return self.fixed

    def forward(self, x: Tensor) -> Tensor:
        """(R, D, size, size) -> (R, 2 D, size/2, size/2)."""
        out: Tensor = self.layer4(x)
        return out


class C5Head(StagedHead):
    """One box head on the means of what the last stage of a ResNet makes of a region's features.

    Args:
        in_channels, in_strides: of the one map, that of the ResNet's third stage.
        num_classes: C.
        assigner, sampler: see `sample_rois`.
        coder: deltas <-> boxes.
        depth, norm_eval, style: of the ResNet, see `ResNet`.
        add_gt: whether the objects are regions to learn from, too.
        class_agnostic, box_beta, pool_size, max_candidates: see `RoIHead`.

    Raises:
        ValueError: several maps, or one that the last stage does not fit, or a number out of its bounds.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        num_classes: int,
        assigner: Assigner,
        sampler: RandomSampler,
        coder: DeltaCoder,
        depth: int = 50,
        norm_eval: bool = True,
        style: str = "caffe",
        add_gt: bool = True,
        class_agnostic: bool = False,
        box_beta: float = 0.0,
        pool_size: int = 14,
        max_candidates: int = 30000,
    ):
        stage = LastStage(depth, norm_eval, style)
        wanted = STAGE_WIDTHS[-2] * DEPTHS[depth][0].expansion
        if list(in_channels) != [wanted]:
            found = list(in_channels)
            raise ValueError(f"depth={depth}: its last stage takes one map of {wanted} channels, found {found}")
        pool = RoIPool(in_strides, levels=1, size=pool_size, finest_scale=1.0)
        head = BoxHead(stage.channels[0], num_classes, None, class_agnostic, coder, box_beta)
        super().__init__([head], [assigner], [1.0], sampler, pool, max_candidates, add_gt)
        self.shared_head = stage

    def features(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """See `StagedHead.features`."""

        def make(part: Tensor) -> Tensor:
            out: Tensor = self.shared_head(self.pool(maps, part))
            return out

        return in_parts(make, rois)
