"""What an exported file computes: the network, and suppression with it, in operators that other programs run."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tinyyolo.boxes.nms import Rules, batched
from tinyyolo.detectors.base import Detector
from tinyyolo.detectors.postprocess import Postprocess, boxes_and_scores, output_of
from tinyyolo.heads.yolo import YoloHead
from tinyyolo.layers.halves import halved
from tinyyolo.sizes import filled_up

IMAGES, LIMITS = "images", ("score", "iou", "max_det")  # inputs; those of the second have defaults in the file
RAW, FOUND, PAIRS = "candidates", ("boxes", "scores", "labels", "counts"), "pairs"  # outputs: without NMS; with it


class Graph(nn.Module):
    """A detector as a function of images alone, or with its suppression.

    images (B, 3, H, W) RGB in [0, 1] -> candidates (B, 4 + C, N), cx, cy, w, h px and class scores before suppression.

    With `nms`: images, score (C,), iou (1,) and max_det (1,) int64 -> boxes (K, 4) xyxy px, scores (K,) and labels (K,)
    of the detections of all images in their order, by falling score, counts (B,), and pairs (P, 7): image, box, score
    and label of what was suppressed or voted, at most `max_candidates` an image.

    Args:
        detector: stays as it is.
        nms: whether detections come out, too.
        half: weights and maps are of 16 bits; boxes and suppression stay at 32.
    """

    def __init__(self, detector: Detector, nms: bool, half: bool = False):
        super().__init__()
        self.network, self.nms, self.half_maps = halved(frozen(detector)), nms, half
        if half:
            self.network.half()
        self.rules = Rules(detector.settings.votes, detector.settings.max_candidates)

    def forward(self, images: Tensor, *limits: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        images, network = images.half() if self.half_maps else images, self.network
        if not self.nms:
            return (network(images),)
        maps, size_hw = network.features(images), (images.shape[-2], images.shape[-1])
        if isinstance(head := getattr(network, "bbox_head", None), YoloHead):  # what scores too little needs no box
            return batched(partial(head.boxes_at, maps, size_hw), head.scores(maps), limits, self.rules)
        boxes, scores = boxes_and_scores(output_of(*network.candidates(maps, size_hw)))
        return batched(lambda image, row: boxes[image, row], scores, limits, self.rules)


def frozen(detector: Detector) -> Any:
    """A copy of a detector as exports record it: on the CPU, in float32, its layers fused, without gradients."""
    network: Any = deepcopy(detector).cpu().float().eval()
    network = network.fuse(verbose=False)
    network.export = True
    return network.requires_grad_(False)


def sides(imgsz: int | Sequence[int]) -> list[int]:
    """Height and width of an input, px.

    Examples:
        >>> sides(640), sides([64]), sides((64, 100))
        ([640, 640], [64, 64], [64, 128])
    """
    both = [imgsz, imgsz] if isinstance(imgsz, int) else [*imgsz, *imgsz][:2]
    return [filled_up(int(side)) for side in both]


def limits_of(rules: Postprocess, names: Sequence[Any]) -> list[Tensor]:
    """The inputs LIMITS by the rules of a run, for a model of these classes; of one not wanted no score is over 1.

    Examples:
        >>> [x.tolist() for x in limits_of(Postprocess(score=0.25, classes=(1,)), ["car", "ship"])]
        [[1.0, 0.25], [0.5], [3000]]
    """
    score = torch.tensor(rules.score, dtype=torch.float32).expand(len(names)).clone()
    if rules.classes is not None:
        score[[i for i in range(len(names)) if i not in rules.classes]] = 1.0
    return [score, torch.tensor([rules.iou], dtype=torch.float32), torch.tensor([rules.max_det])]
