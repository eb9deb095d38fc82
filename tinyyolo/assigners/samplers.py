"""Which of the assigned anchors enter the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyyolo.assigners.assignment import Assignment
from tinyyolo.config import whole, within


class RandomSampler:
    """A fixed number of anchors at random, at most a fraction of them positive (Faster R-CNN).

    Negatives fill what the positives leave of `num`, so an image with few positives still gives `num` samples.

    Args:
        num: samples per image; None takes every positive and every negative.
        positive_fraction: highest share of positives; int(num * positive_fraction) of them at most.

    Raises:
        ValueError: num no whole number of at least 1, or positive_fraction outside [0, 1].

    Examples:
        >>> found = Assignment(torch.tensor([0, -1, 1, -1, -2, -1]))
        >>> RandomSampler(None, 0.5)(found)
        (tensor([0, 2]), tensor([1, 3, 5]))
        >>> [len(part) for part in RandomSampler(3, 0.5)(found)]
        [1, 2]
    """

    def __init__(self, num: int | None, positive_fraction: float):
        if num is not None:
            whole(1, num=num)
        within(0, 1, positive_fraction=positive_fraction)
        self.num, self.positive_fraction = num, positive_fraction

    def __call__(self, assignment: Assignment, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw.

        Args:
            assignment: of N anchors.
            generator: source of chance, on any device; torch's own if None.

        Returns:
            Indices of positives and of negatives, int64, rising.
        """
        positive, negative = assignment.positive_idx, assignment.negative_idx
        if self.num is None:
            return positive, negative
        positive = _draw(positive, int(self.num * self.positive_fraction), generator)
        return positive, _draw(negative, self.num - len(positive), generator)


def _draw(idx: Tensor, num: int, generator: torch.Generator | None) -> Tensor:
    if len(idx) <= num:
        return idx
    device = idx.device if generator is None else generator.device
    chosen = torch.randperm(len(idx), generator=generator, device=device)[:num]
    return idx[chosen.to(idx.device).sort().values]
