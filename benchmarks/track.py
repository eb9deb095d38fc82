"""Which association holds on to tiny objects: HOTA, SO-HOTA, MOTA and IDF1 by object size on drawn videos.

    python benchmarks/track.py                          # detections simulated from the truth, by seed
    python benchmarks/track.py --model tinyyolo-n.pt    # those of a checkpoint on the drawn frames
    python benchmarks/track.py --stride 2 --trackers botsort.yaml --sides 4 8 --associations nwd iou

Every video has movers of one size (`tinyyolo.datasets.drawn.moving`: camera motion, crossings, gaps). All rows of a
size have the same videos and detections. Figures are percent of all videos together, by trackeval: HOTA under IoU;
SO-HOTA and its AssA under DotD with the mean side as its constant (the metric of Kondo et al. 2025); MOTA and IDF1 at
DotD .5, which is .69 sides between centres, and IDF1 at IoU .5; how often ids change (IDSW).
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from trackeval.metrics import CLEAR, HOTA, Identity
from ultralytics.engine.results import Boxes

from tinyyolo import Model
from tinyyolo.boxes.convert import areas, convert
from tinyyolo.boxes.similarity import CONSTANT, pairwise_dotd, pairwise_iou
from tinyyolo.datasets.drawn.moving import Frame, Movie, draw_video
from tinyyolo.detectors.postprocess import SHOWN_SCORE
from tinyyolo.engine.track.association import ASSOCIATIONS
from tinyyolo.engine.track.following import tracker_of
from tinyyolo.engine.track.settings import Thresholds, constant_of, settings_of

SIDES = (3, 4, 6, 8, 12, 16, 24)  # px
TRACKERS = ("bytetrack.yaml", "botsort.yaml")
METRICS = (HOTA(), CLEAR({"PRINT_CONFIG": False}), Identity({"PRINT_CONFIG": False}))
FIGURES = ("HOTA", "SO-HOTA", "SO-AssA", "MOTA", "IDF1", "IDF1 IoU", "IDSW")
LOW = 0.4 * SHOWN_SCORE


@dataclass(frozen=True)
class Detector:
    """A simulated one.

    Attributes:
        jitter, share: px and sides, whose root of squares is the deviation of a box's place along each axis.
        stretch: deviation of the log of each side.
        miss: share of the objects that are not found at all.
        weak: share of those found whose score is between the low and the high threshold.
        alarms: false ones a frame.
    """

    jitter: float = 0.5
    share: float = 0.04
    stretch: float = 0.12
    miss: float = 0.1
    weak: float = 0.2
    alarms: float = 2.0

    def found(self, frames: Sequence[Frame], seed: int, side: float) -> list[np.ndarray]:
        """Of each frame detections (K, 6): xyxy px, score, class 0."""
        rng, size, out = np.random.default_rng([seed, 7]), frames[0].image.shape[0], []
        for frame in frames:
            own = frame.boxes[rng.random(len(frame.ids)) >= self.miss]
            boxes, scale = convert(own, "xyxy", "cxcywh"), np.sqrt(areas(own))[:, None]
            boxes[:, :2] += rng.normal(size=(len(own), 2)) * np.hypot(self.jitter, self.share * scale)
            boxes[:, 2:] *= np.exp(rng.normal(0, self.stretch, (len(own), 2)))
            weak = rng.random(len(own)) < self.weak
            scores = np.where(weak, rng.uniform(LOW, SHOWN_SCORE, len(own)), rng.uniform(SHOWN_SCORE, 0.95, len(own)))
            count = rng.poisson(self.alarms)
            false = np.hstack([rng.uniform(0, size, (count, 2)), side * np.exp(rng.normal(0, 0.2, (count, 2)))])
            every = convert(np.concatenate([boxes, false]), "cxcywh", "xyxy")
            scores = np.concatenate([scores, rng.uniform(LOW, 2 * SHOWN_SCORE, count)])
            out.append(np.column_stack([every, scores, np.zeros(len(scores))]))
        return out


def detected(model: Model, frames: Sequence[Frame], scores: Thresholds) -> list[np.ndarray]:
    """Of each frame the detections (K, 6) of a model down to its low thresholds."""
    conf = dict(zip(model.names.values(), scores.low.tolist(), strict=True))
    images, size = [frame.image for frame in frames], frames[0].image.shape[0]
    results = model.predict(images, conf=conf, imgsz=size, stream=True, verbose=False)
    return [result.boxes.data.numpy() for result in results]


def followed(frames: Sequence[Frame], found: Sequence[np.ndarray], tracker: Any) -> list[np.ndarray]:
    """Of each frame tracks (K, 8): xyxy px, id, score, class, row of the detection."""
    return [
        tracker.update(Boxes(rows.astype(np.float32), frame.image.shape[:2]), frame.image)
        for frame, rows in zip(frames, found, strict=True)
    ]


def judged(truth: Sequence[Frame], tracks: Sequence[np.ndarray], constant: float) -> dict[str, dict[str, Any]]:
    """What trackeval says of a video, by metric and measure."""
    ids = [numbered([frame.ids for frame in truth]), numbered([rows[:, 4].astype(int) for rows in tracks])]
    out = {}
    for name, measure in {"IoU": pairwise_iou, "DotD": partial(pairwise_dotd, constant=constant)}.items():
        pairs = [
            measure(torch.from_numpy(frame.boxes), torch.from_numpy(rows[:, :4].astype(np.float64))).numpy()
            for frame, rows in zip(truth, tracks, strict=True)
        ]
        data = {"num_timesteps": len(truth), "similarity_scores": pairs}
        for word, own in zip(("gt", "tracker"), ids, strict=True):
            data |= {
                f"{word}_ids": own,
                f"num_{word}_ids": len(np.unique(np.concatenate(own))),
                f"num_{word}_dets": sum(map(len, own)),
            }
        out |= {f"{metric.get_name()} {name}": metric.eval_sequence(data) for metric in METRICS}
    return out


def numbered(ids: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The ids of a video counted from 0 on, as trackeval wants them."""
    known = np.unique(np.concatenate(ids))
    return [np.searchsorted(known, frame) for frame in ids]


def together(videos: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    """FIGURES of several videos; percent, but for IDSW."""
    of = {
        f"{metric.get_name()} {name}": metric.combine_sequences(
            {str(i): one[f"{metric.get_name()} {name}"] for i, one in enumerate(videos)}
        )
        for metric in METRICS
        for name in ("IoU", "DotD")
    }
    shares = {
        "HOTA": of["HOTA IoU"]["HOTA"].mean(),
        "SO-HOTA": of["HOTA DotD"]["HOTA"].mean(),
        "SO-AssA": of["HOTA DotD"]["AssA"].mean(),
        "MOTA": of["CLEAR DotD"]["MOTA"],
        "IDF1": of["Identity DotD"]["IDF1"],
        "IDF1 IoU": of["Identity IoU"]["IDF1"],
    }
    return {**{name: 100 * float(value) for name, value in shares.items()}, "IDSW": float(of["CLEAR DotD"]["IDSW"])}


def measured(
    side: float, seeds: Iterable[int], rows: Sequence[tuple[str, str]], model: Model | None, stride: int, **movie: Any
) -> dict[tuple[str, str], dict[str, float]]:
    """The figures of each (tracker, association) on the videos of one size; `stride` takes every so many frames."""
    constant = CONSTANT if model is None else constant_of(model.spec)
    classes = 1 if model is None else len(model.names)
    conf = SHOWN_SCORE if model is None else tuple(model.model.thresholds)
    videos: dict[tuple[str, str], list[Any]] = {row: [] for row in rows}
    for seed in seeds:
        frames = list(draw_video(seed, Movie(side=side, **movie)))[::stride]
        scores = settings_of(rows[0][0]).thresholds(conf, classes)
        found = Detector().found(frames, seed, side) if model is None else detected(model, frames, scores)
        for tracker, association in rows:
            settings = settings_of(tracker, association=association)
            tracks = followed(frames, found, tracker_of(settings, constant, settings.thresholds(conf, classes)))
            videos[tracker, association].append(judged(frames, tracks, side))
    return {row: together(of) for row, of in videos.items()}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a checkpoint; without it detections are simulated")
    parser.add_argument("--trackers", nargs="+", default=TRACKERS)
    parser.add_argument("--associations", nargs="+", default=list(ASSOCIATIONS), choices=ASSOCIATIONS)
    parser.add_argument("--sides", nargs="+", type=float, default=SIDES, help="px")
    parser.add_argument("--videos", type=int, default=6, help="of each size; their seeds are 0, 1, ...")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--speeds", nargs=2, type=float, default=Movie.speeds, help="sides a frame, least and most")
    parser.add_argument("--shake", type=float, default=Movie.shake, help="px, of the camera")
    parser.add_argument("--stride", type=int, default=1, help="take every so many frames")
    given = parser.parse_args()
    model = Model(given.model) if given.model else None
    rows = [(tracker, association) for tracker in given.trackers for association in given.associations]
    print(f"{platform.machine()}, torch {torch.__version__}, seeds 0 to {given.videos - 1}\n")
    movie = {"frames": given.frames, "speeds": tuple(given.speeds), "shake": given.shake}
    print(f"| side px | tracker | association | {' | '.join(FIGURES)} |\n|---|---|---|{'---:|' * len(FIGURES)}")
    for side in given.sides:
        figures = measured(side, range(given.videos), rows, model, given.stride, **movie)
        for (tracker, association), found in figures.items():
            values = " | ".join(f"{found[name]:.0f}" if name == "IDSW" else f"{found[name]:.1f}" for name in FIGURES)
            print(f"| {side:g} | {tracker.removesuffix('.yaml')} | {association} | {values} |", flush=True)


if __name__ == "__main__":
    main()
