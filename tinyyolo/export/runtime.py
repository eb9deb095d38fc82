"""Exported files behind one interface: a module that takes images and gives candidates, as a detector does."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tinyyolo.boxes.graph import ranks
from tinyyolo.config import UserError
from tinyyolo.detectors.postprocess import Postprocess, output_of
from tinyyolo.export.graph import FOUND, PAIRS, RAW, limits_of
from tinyyolo.io import printable
from tinyyolo.sizes import ENGINE_STRIDE

Outputs = dict[str, np.ndarray]
Detections = list[tuple[Tensor, Tensor, Tensor]]


@dataclass
class Found:
    """What a file found by itself; no tuple, as the engine takes those apart."""

    detections: Detections


def detections_in(said: Any, rules: Postprocess) -> Detections:
    """Detections of every image in what a model said: candidates, or what it `Found`."""
    return said.detections if isinstance(said, Found) else rules.of_output(said)


class Runtime(nn.Module):
    """What the engine asks of an exported file that takes images of any size, and any number of them.

    Attributes:
        path, said: the file or folder, and its metadata.
        names, test, thresholds, pad_colour, stride: as of a `Detector`.
        finds: whether the file suppresses by itself.
        rules: of a run; then `forward` gives detections instead of candidates, where the file finds by such rules.

    Args:
        path, said: see above.
    """

    def __init__(self, path: Path, said: Mapping[str, Any]):
        super().__init__()
        self.path, self.said = path, dict(said)
        self.names = {int(key): printable(name) for key, name in said["names"].items()}
        self.test, self.thresholds, self.pad_colour = said["test"], said.get("thresholds"), said.get("pad_colour")
        self.stride, self.finds = torch.tensor([float(ENGINE_STRIDE)]), bool(said.get("nms"))
        self.rules: Postprocess | None = None

    def check_outputs(self, names: Collection[str]) -> None:
        """Raise UserError where a file does not give what its metadata say."""
        if missing := [name for name in ((*FOUND, PAIRS) if self.finds else (RAW,)) if name not in names]:
            raise UserError(f"{self.path}: it gives no {missing[0]}: export the checkpoint again")

    def __deepcopy__(self, memo: Any) -> Runtime:
        """Itself: the engine copies what it is given, and a session is not copied."""
        return self

    @abstractmethod
    def run(self, images: np.ndarray, limits: Sequence[np.ndarray], wanted: Sequence[str]) -> Outputs:
        """Outputs by name, those wanted, of images (B, 3, H, W) float32 RGB in [0, 1] and LIMITS, if it `finds`."""

    def outputs(self, images: Tensor, rules: Postprocess, wanted: Sequence[str]) -> list[Tensor]:
        """Outputs on the images' device."""
        limits = [x.numpy() for x in limits_of(rules, list(self.names))] if self.finds else []
        found = self.run(images.float().cpu().numpy(), limits, wanted)
        return [torch.from_numpy(found[name]).to(images.device) for name in wanted]

    def forward(self, images: Tensor, **_: Any) -> Tensor | Found:
        """Candidates (B, 4 + C, N) as `Detector.predict` gives them, or detections: see `rules`."""
        if self.rules is None or not self.finds or self.rules.agnostic:
            return self.candidates(images, self.rules)
        return Found(self.detect(images, self.rules))

    def candidates(self, images: Tensor, rules: Postprocess | None = None) -> Tensor:
        """Candidates (B, 4 + C, N); of a file that `finds` those by `rules`, None for its own, of one class each."""
        if not self.finds:
            return self.outputs(images, Postprocess(), [RAW])[0]
        rules = rules or Postprocess.of(self.test)
        least: Any = rules.least
        (pairs,) = self.outputs(images, replace(rules, score=least, max_det=1), [PAIRS])
        image, label = pairs[:, 0].long(), pairs[:, 6].long()
        place = ranks(image, len(images))
        most = int(place.max()) + 1 if len(place) else 0
        boxes, scores = pairs.new_zeros(len(images), most, 4), pairs.new_zeros(len(images), most, len(self.names))
        boxes[image, place], scores[image, place, label] = pairs[:, 1:5], pairs[:, 5]
        return output_of(boxes, scores)

    def detect(self, images: Tensor, rules: Postprocess) -> Detections:
        """Detections of every image as `Postprocess` gives them, by the file's own suppression if it has one."""
        if not self.finds:
            return rules.of_output(self.candidates(images, rules))
        boxes, scores, labels, counts = self.outputs(images, rules, FOUND)
        parts = (x.split(counts.tolist()) for x in (boxes, scores, labels))
        return list(zip(*parts, strict=True))
