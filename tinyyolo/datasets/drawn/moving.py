"""Videos of tiny movers, drawn by seed, with the truth: camera motion, crossings, gaps.

The camera looks at a part of a drawn aerial scene and moves over it; vehicles, ships and planes run on straight or
slightly bent ways. Half of them come in pairs whose ways cross at the same moment. Some are not there for a few frames,
as under a bridge: neither in the picture nor in the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from tinyyolo.datasets.drawn.aerial import DRAWN
from tinyyolo.datasets.drawn.ground import PLANE, SHIP, VEHICLE
from tinyyolo.datasets.drawn.objects import fit_side, paint, turn
from tinyyolo.datasets.drawn.toy import draw_scene

LABELS, SHARES = (VEHICLE, SHIP, PLANE), (0.6, 0.25, 0.15)
SPREAD = 0.15  # of the log of sides within a video
TURNING = 0.01  # rad a frame, deviation of an object's steady turn
CROSSING = 0.5  # share of the objects that come in pairs whose ways cross
MISS = 1.2  # sides between the centres of such a pair where they are nearest, deviation
GAPS, GAP = 0.4, (3, 9)  # share of objects that are gone for a while, frames
NOISE = 2.0  # of the sensor, grey values
SEEN = 0.5  # share of its box that an object at the border must show


@dataclass(frozen=True)
class Movie:
    """What decides a video.

    Attributes:
        size: height and width of a frame, px.
        frames: how many.
        objects: how many movers.
        side: mean of sqrt(w h) of their boxes, px.
        speeds: sides a frame, least and most.
        pan: px a frame, deviation of the camera's steady speed.
        shake: px, deviation of its position around that in each frame.
    """

    size: int = 256
    frames: int = 60
    objects: int = 20
    side: float = 8.0
    speeds: tuple[float, float] = (0.1, 0.9)
    pan: float = 1.0
    shake: float = 0.7


@dataclass(frozen=True)
class Frame:
    """A frame and its truth: image (H, W, 3) uint8 BGR, boxes (M, 4) float64 xyxy px, ids (M,) and labels (M,) int."""

    image: np.ndarray
    boxes: np.ndarray
    ids: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Mover:
    """One object: its parts as `fit_side` gives them for angle 0, its way (T, 2) px of the ground, angles (T,)."""

    label: int
    side: float
    way: np.ndarray
    angles: np.ndarray
    there: np.ndarray  # (T,) bool
    look: int  # seed of its paint


def draw_video(seed: int, movie: Movie = Movie()) -> Iterator[Frame]:
    """The frames of a video, one after the other; the same seed gives the same bytes.

    Examples:
        >>> frame = next(draw_video(0, Movie(size=64, frames=3, objects=4, side=6.0)))
        >>> frame.image.shape, frame.boxes.shape[1], len(frame.ids) == len(frame.labels) <= 4
        ((64, 64, 3), 4, True)
    """
    rng = np.random.default_rng([seed, 41])
    camera = camera_way(rng, movie)
    ground, origin = ground_for(rng, movie, camera)
    movers = cast_of(rng, movie, camera)
    for t in range(movie.frames):
        yield frame_at(rng, t, movie, ground, camera[t] - origin, camera[t], movers)


def camera_way(rng: np.random.Generator, movie: Movie) -> np.ndarray:
    """(T, 2) px of the ground: the picture's left upper corner."""
    steady = np.arange(movie.frames)[:, None] * rng.normal(0, movie.pan, 2)
    return np.asarray(steady + rng.normal(0, movie.shake, (movie.frames, 2)))


def ground_for(rng: np.random.Generator, movie: Movie, camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A scene without objects (S, S, 3) that holds all the camera sees, and the ground's place of its corner."""
    low = np.floor(camera.min(0)) - 2
    side = int(np.ceil((camera.max(0) - low).max())) + movie.size + 2
    image, _, _ = draw_scene(rng, max(side, 64), "aerial", (0, 0), (max(movie.side, 6.0), 1.0))
    return image, low


def cast_of(rng: np.random.Generator, movie: Movie, camera: np.ndarray) -> list[Mover]:
    """The movers, the first of them in pairs that cross."""
    middle = movie.frames // 2
    out: list[Mover] = []
    paired = round(CROSSING * movie.objects / 2) * 2
    meeting = camera[middle]
    for i in range(movie.objects):
        side = movie.side * float(np.exp(rng.normal(0, SPREAD)))
        when = int(rng.integers(movie.frames // 4, max(3 * movie.frames // 4, movie.frames // 4 + 1)))
        if i >= paired:
            at = camera[when] + rng.uniform(0.05, 0.95, 2) * movie.size
        elif i % 2 == 0:
            at = meeting = camera[when] + rng.uniform(0.2, 0.8, 2) * movie.size
            pair_when = when
        else:
            at, when = meeting + rng.normal(0, MISS * side / np.sqrt(2), 2), pair_when
        out.append(mover(rng, movie, side, at, when))
    return out


def mover(rng: np.random.Generator, movie: Movie, side: float, at: np.ndarray, when: int) -> Mover:
    """An object that is at `at` in frame `when`."""
    speed, t = rng.uniform(*movie.speeds) * side, np.arange(movie.frames)
    angles = rng.uniform(0, 2 * np.pi) + rng.normal(0, TURNING) * t
    steps = speed * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    way = np.cumsum(steps, axis=0)
    there = np.ones(movie.frames, bool)
    if rng.random() < GAPS:
        first, length = int(rng.integers(0, movie.frames)), int(rng.integers(GAP[0], GAP[1] + 1))
        there[first : first + length] = False
    label = LABELS[rng.choice(len(LABELS), p=SHARES)]
    return Mover(label, side, way - way[when] + at, angles, there, int(rng.integers(2**31)))


def frame_at(
    rng: np.random.Generator,
    t: int,
    movie: Movie,
    ground: np.ndarray,
    inside: np.ndarray,
    corner: np.ndarray,
    movers: list[Mover],
) -> Frame:
    """One frame; `inside` is its corner in `ground`, `corner` that on the ground where the ways lie."""
    shift = np.array([[1, 0, inside[0]], [0, 1, inside[1]]], dtype=np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(ground, shift, (movie.size, movie.size), flags=flags).astype(np.float32)
    boxes, ids, labels = [], [], []
    for i, one in enumerate(movers, 1):
        if not one.there[t]:
            continue
        looks = np.random.default_rng(one.look)  # the same object in every frame
        light = turn(np.array([[1.0, 0.0]]), -one.angles[t])[0]
        parts = fit_side(DRAWN[one.label](looks, light), one.angles[t], one.side)
        sprite = paint(parts, one.way[t] - corner, movie.size)
        if sprite is None:
            continue
        image[sprite.window] = image[sprite.window] * (1 - sprite.alpha[..., None]) + sprite.colour
        whole = np.prod(np.ptp(np.vstack([points for points, _ in parts]), axis=0))
        if np.prod(sprite.box[2:] - sprite.box[:2]) >= SEEN * whole:
            boxes.append(sprite.box)
            ids.append(i)
            labels.append(one.label)
    image += rng.normal(0, NOISE, (movie.size, movie.size, 1)).astype(np.float32)
    seen = np.clip(np.round(image), 0, 255).astype(np.uint8)
    return Frame(seen, np.array(boxes).reshape(-1, 4), np.array(ids, dtype=np.int64), np.array(labels, dtype=np.int64))
