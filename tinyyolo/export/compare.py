"""Whether an exported file finds what its checkpoint finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tinyyolo.config import UserError
from tinyyolo.detectors.base import Detector
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.export.runtime import Detections

LEAST = 0.001  # score of the detections that are compared; less, where so many candidates of an image have less
MOST = 300  # detections an image
SAME_PLACE = 0.6  # px; two boxes of a class that are further apart are two detections
MOVED = 0.002  # share of the detections, and one more, that may be farther off than a tolerance, whatever the precision


class Tolerance(NamedTuple):
    """How far an export may be off: boxes in px, scores, and the share of detections that only one of two has.

    A pair of scores that are closer than they can be told apart, or an IoU at the very threshold, may fall either way;
    so may a candidate at the limit of those that vote, which moves the detection it votes on (`MOVED`).
    """

    boxes: float
    scores: float
    alone: float


TOLERANCES = {
    "float32": Tolerance(1e-2, 1e-4, 0.002),
    "float16": Tolerance(0.05, 1e-2, 0.05),
}


class Difference(NamedTuple):
    """What was seen: detections, the largest differences of boxes, px, and of scores, and how many have no partner.

    Where there is a tolerance, `moved` are beyond it, by `far_boxes` and `far_scores` at most, not among the others.
    """

    seen: int
    boxes: float
    scores: float
    alone: int
    moved: int = 0
    far_boxes: float = 0.0
    far_scores: float = 0.0

    @property
    def words(self) -> str:
        """A line for the user."""
        more = f"; {self.moved} by {self.far_boxes:.2g} px and {self.far_scores:.2g}" if self.moved else ""
        more += f", {self.alone} have no partner" if self.alone else ""
        far = f"boxes differ by {self.boxes:.2g} px at most, scores by {self.scores:.2g}"
        return f"{self.seen:,} detections, {far}{more}"


def difference(
    detector: Detector,
    found: Callable[[Tensor, Postprocess], Detections],
    images: Sequence[Tensor],
    near: float,
    within: Tolerance | None = None,
) -> Difference:
    """Compare a detector with what an export finds in batches (B, 3, H, W).

    Args:
        detector: in eval mode.
        found: detections of a batch by rules.
        images: batches.
        near: detections whose scores are that close to the least one may be missing.
        within: as of `paired`.
    """
    parts = []
    for batch in images:
        with torch.no_grad():
            own = detector.predict(batch)
        every = own[0][:, 4:].flatten() if isinstance(own, tuple) else torch.tensor([LEAST])
        best = every.topk(min(MOST, len(every))).values[-1].item()
        least = min(LEAST, best / detector.settings.votes)
        rules = Postprocess.of({**detector.test, "score": least, "max_det": MOST})
        for mine, theirs in zip(rules.of_output(own), found(batch, rules), strict=True):
            cut = [float(scores[-1]) for _, scores, _ in (mine, theirs) if len(scores) == MOST]
            parts.append(paired(mine, theirs, max([least, *cut]) + near, within))
    seen, boxes, scores, alone, moved, *far = zip(*parts, strict=True)
    return Difference(sum(seen), max(boxes), max(scores), sum(alone), sum(moved), *map(max, far))


def paired(
    mine: tuple[Tensor, ...], theirs: tuple[Tensor, ...], edge: float = 0.0, within: Tolerance | None = None
) -> Difference:
    """The difference of two sets of detections of an image, whatever their order.

    Args:
        mine, theirs: boxes (K, 4) xyxy px, scores (K,), labels (K,).
        edge: a detection of at most this score may be missing, as where it lies at the threshold or `max_det` ends.
        within: what is farther off is counted instead.

    Examples:
        >>> one = torch.tensor([[0.0, 0, 4, 4], [9, 9, 12, 12]]), torch.tensor([0.9, 0.5]), torch.tensor([0, 1])
        >>> paired(one, tuple(x.flip(0) for x in one)).alone
        0
        >>> paired(one, tuple(x[:1] for x in one)).alone, paired(one, tuple(x[:1] for x in one), edge=0.5).alone
        (1, 0)
    """
    alone = 0
    apart = torch.zeros(0, 2)  # px, score; of every detection that has a partner, from either side
    for one, other in ((mine, theirs), (theirs, mine)):
        if not len(one[1]):
            continue
        if not len(other[1]):
            alone += int((one[1] > edge).sum())
            continue
        far = torch.cdist(one[0], other[0], p=float("inf"))
        far = far.masked_fill(one[2][:, None] != other[2], float("inf"))
        index = (far + (one[1][:, None] - other[1]).abs()).argmin(1)  # of boxes that lie on each other the score tells
        nearest = far.gather(1, index[:, None])[:, 0]
        has = nearest <= SAME_PLACE
        alone += int((~has & (one[1] > edge)).sum())
        both = torch.stack([nearest, (one[1] - other[1][index]).abs()], 1)
        apart = torch.cat([apart, both[has & (one[1] > edge)].to(apart)])
    far = (apart > apart.new_tensor(within[:2])).any(1) if within else torch.zeros(len(apart), dtype=torch.bool)
    most = [torch.cat([part, apart.new_zeros(1, 2)]).amax(0).tolist() for part in (apart[~far], apart[far])]
    (boxes, scores), (far_boxes, far_scores) = most
    moved = -(-int(far.sum()) // 2)  # either side tells of it
    return Difference(max(len(mine[1]), len(theirs[1])), boxes, scores, alone, moved, far_boxes, far_scores)


def check(what: Any, seen: Difference, precision: str) -> None:
    """Raise UserError where an export differs from its checkpoint by more than its precision explains."""
    most = TOLERANCES[precision]
    alone = seen.alone > most.alone * seen.seen + (precision != "float32")
    moved = seen.moved > MOVED * seen.seen + 1
    if seen.boxes > most.boxes or seen.scores > most.scores or alone or moved:
        every = Difference(seen.seen, max(seen.boxes, seen.far_boxes), max(seen.scores, seen.far_scores), seen.alone)
        allowed = f"at most {most.boxes:g} px and {most.scores:g} are right for {precision}"
        raise UserError(f"{what}: not written: it finds something else than the checkpoint: {every.words}; {allowed}")
