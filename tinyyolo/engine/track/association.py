"""Which detection may continue which track: one cost for every pair, by five measures, and never for pairs far apart.

Ultralytics' trackers ask for the IoU alone. A diagonal step of 1 px leaves two boxes of 4 px an IoU of .39, one of 2 px
.14.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tinyyolo.boxes.convert import areas, centres, scaled
from tinyyolo.boxes.similarity import CONSTANT, pairwise_diou, pairwise_dotd, pairwise_iou, pairwise_nwd
from tinyyolo.config import above, suggest

FAR = 2.0  # cost of a pair that the gate keeps apart: more than any threshold, also with scores in it
Similar = Callable[[Tensor, Tensor, "Association"], Tensor]

ASSOCIATIONS: dict[str, Similar] = {  # of (N, 4) and (M, 4) xyxy px, (N, M) from 0 to 1
    "nwd": lambda a, b, how: pairwise_nwd(a, b, how.constant),
    "iou": lambda a, b, how: pairwise_iou(a, b),
    "diou": lambda a, b, how: (pairwise_diou(a, b) + 1) / 2,
    "expand": lambda a, b, how: pairwise_iou(scaled(a, how.expand), scaled(b, how.expand)),
    "centre": lambda a, b, how: pairwise_dotd(a, b, how.constant),
}


@dataclass(frozen=True)
class Association:
    """How alike a track's predicted box and a detection are, and from which distance on they never belong together.

    Attributes:
        name: nwd, iou, diou (brought from [-1, 1] to [0, 1]), expand (IoU of enlarged boxes) or centre (DotD).
        constant: C of nwd and centre, px.
        gate: centres may be apart by so many sides, sqrt(w h), of the pair's mean; None for no gate. NWD and DotD never
            are 0, and DIoU says something of any distance.
        slack: and by so many px more, whatever the size: camera and detector move a small box as far as a large one.
        expand: factor of both sides of both boxes.

    Raises:
        ValueError: no such name, or a number that is not above 0.

    Examples:
        Two boxes of 4 px, 3 px apart, with C = 6 px: exp(-1/2); the third is 30 px away.

        >>> boxes = np.array([[0.0, 0, 4, 4], [3, 0, 7, 4], [30, 0, 34, 4]])
        >>> costs = Association("nwd", constant=6.0, gate=3.0).cost(boxes[:1], boxes)
        >>> [round(cost, 3) for cost in costs[0].tolist()]
        [0.0, 0.393, 2.0]
    """

    name: str = "nwd"
    constant: float = CONSTANT
    gate: float | None = None
    slack: float = 0.0
    expand: float = 2.0

    def __post_init__(self) -> None:
        if self.name not in ASSOCIATIONS:
            raise ValueError(f"association={self.name}: unknown; {suggest(self.name, ASSOCIATIONS)}")
        above(0, constant=self.constant, expand=self.expand)
        if self.gate is not None:
            above(0, gate=self.gate)

    def cost(self, tracks: np.ndarray, detections: np.ndarray) -> np.ndarray:
        """1 - similarity of boxes (N, 4) and (M, 4) xyxy px: (N, M) float32; FAR beyond the gate."""
        a, b = (torch.from_numpy(np.asarray(boxes, dtype=np.float32).reshape(-1, 4)) for boxes in (tracks, detections))
        cost = 1 - ASSOCIATIONS[self.name](a, b, self)
        if self.gate is not None:
            cost[self.far(a, b)] = FAR
        return np.asarray(cost.numpy())

    def far(self, a: Tensor, b: Tensor) -> Tensor:
        """(N, M) bool: which pairs the gate keeps apart."""
        side, other = areas(a).clamp(min=0).sqrt(), areas(b).clamp(min=0).sqrt()
        reach = (self.gate or 0) * (side[:, None] + other) / 2 + self.slack
        return torch.cdist(centres(a), centres(b), compute_mode="donot_use_mm_for_euclid_dist") > reach
