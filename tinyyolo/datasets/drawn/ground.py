"""The canvas of an aerial scene: textured ground, fields and water, what every pixel is, and things that stand up."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from tinyyolo.datasets.drawn.more import MORE
from tinyyolo.datasets.drawn.objects import OBJECTS, SHIFT, fixed, pick, rectangle, turn

NAMES = tuple(OBJECTS)
VEHICLE, SHIP, PLANE, TANK = range(len(NAMES))
PERSON, CYCLE, POOL, MILL, BRIDGE, THING = range(len(NAMES), len(NAMES) + len(MORE))  # of the school alone
GROUND, WATER, ROAD, PAVED, BUILT = 1, 2, 4, 8, 16  # what a pixel is, for placing things; add them up for a choice

# Medians relative to the mean object (log), and how the log size varies by scene and, within it, by object.
OFFSET = {VEHICLE: -0.19, SHIP: 0.13, PLANE: 0.41, TANK: 0.23}
OFFSET |= {PERSON: -1.5, CYCLE: -1.1, POOL: -0.1, MILL: 0.5, BRIDGE: 0.5, THING: 0.0}
SCENE_SHARE, OBJECT_SHARE = 0.64, 0.77  # of the wanted standard deviation of the log size
SMALLEST, LARGEST = 3.0, 56.0  # px, side of a box
REFERENCE = 320  # px, side of the scene that counts are meant for
QUAY = 10.0  # px, concrete along a straight shore

GRASS = np.array([(62, 98, 84), (70, 112, 100), (88, 118, 112), (58, 84, 70)], dtype=np.float64)
SOIL = np.array([(118, 146, 166), (98, 122, 142), (132, 156, 170), (90, 112, 138)], dtype=np.float64)
CROPS = np.vstack([GRASS, SOIL, [(80, 150, 140), (110, 168, 176), (64, 116, 84)]])
SEA = np.array([(92, 74, 42), (104, 90, 58), (84, 82, 56), (110, 100, 84)], dtype=np.float64)
CONCRETE = np.array([(168, 172, 174), (150, 156, 160), (182, 188, 190)], dtype=np.float64)


@dataclass(frozen=True)
class Slot:
    """A place where an object may be: class, centre (x, y) px, angle, side px of its box, under way or not.

    Places are taken by rising `turn`: those of a crowd share theirs, so that a car park fills up before the next.
    """

    label: int
    at: np.ndarray
    angle: float
    side: float
    turn: float
    moving: bool = False


def noise(rng: np.random.Generator, size: int, cell: float, octaves: int = 4, gain: float = 0.55) -> np.ndarray:
    """(size, size) float32 smooth noise of mean 0 and standard deviation 1; `cell` px is its coarsest grain."""
    out = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        grid = rng.random((int(np.ceil(size / step)) + 1,) * 2, dtype=np.float32) - np.float32(0.5)
        wide = int(np.ceil(grid.shape[0] * step))
        grown = cv2.resize(grid, (wide, wide), interpolation=cv2.INTER_CUBIC)
        x, y = rng.integers(0, wide - size + 1, 2)
        out += gain**octave * grown[y : y + size, x : x + size]
    out -= out.mean()
    out /= max(float(np.sqrt(np.mean(out * out))), 1e-6)
    return out


def banded(plane: np.ndarray) -> np.ndarray:
    """(H, W, 3) of a plane (H, W): numpy is slow where it spreads a plane over three bands itself."""
    return np.asarray(cv2.merge((plane, plane, plane)))


def mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """From `a` to `b`, colours (3,) or images (H, W, 3), by `share` (H, W), cut to 0..1: (H, W, 3) float32."""
    a, b = np.float32(a), np.float32(b)
    out = banded(np.float32(np.minimum(np.maximum(share, 0), 1)))
    rows = out.reshape(out.shape[0], -1)
    for step, other in ((np.multiply, b - a), (np.add, a)):
        step(rows, np.tile(other, out.shape[1]) if other.ndim == 1 else other.reshape(rows.shape), out=rows)
    return out


class Scene:
    """One scene while it is drawn: the picture, what each pixel is, what stands where, and places for objects."""

    def __init__(
        self,
        rng: np.random.Generator,
        size: int,
        side_px: tuple[float, float],
        bounds: tuple[float, float] = (SMALLEST, LARGEST),
    ):
        mean, std = side_px
        log_std = float(np.sqrt(np.log1p((std / mean) ** 2)))
        self.rng, self.size, self.log_std, self.bounds = rng, size, log_std, bounds
        self.log_side = float(np.log(mean) - log_std**2 / 2 + rng.normal(0, SCENE_SHARE * log_std))
        self.car = 1.25 * self.side(VEHICLE, spread=0)  # length of a car, px: the scene's yardstick
        sun = rng.uniform(0, 2 * np.pi)
        self.light = np.array([np.cos(sun), np.sin(sun)])  # towards the sun
        self.reach = rng.uniform(0.5, 1.3)  # length of a shadow by height
        self.angle = rng.uniform(0, np.pi)  # streets and roofs agree about it
        self.image = np.zeros((size, size, 3), np.uint8)
        self.kind = np.full((size, size), GROUND, np.uint8)
        self.shade = np.zeros((size, size), np.uint8)
        self.tops: list[tuple[np.ndarray, np.ndarray]] = []
        self.slots: list[Slot] = []
        self.streets = np.zeros((0, 3))  # x, y along their middles, half their width

    def come_nearer(self, log: float) -> None:
        """Show everything larger, by a factor given as its logarithm."""
        self.log_side += log
        self.car *= float(np.exp(log))

    def side(self, label: int, spread: float = 1.0) -> float:
        """A box side in px for an object of this class in this scene."""
        log = self.log_side + self.log_std / 0.4215 * OFFSET[label]
        log += self.rng.normal(0, spread * OBJECT_SHARE * self.log_std) if spread else 0
        return float(np.clip(np.exp(log), *self.bounds))

    def count(self, low: int, high: int) -> int:
        """How many of something: from `low` to below `high` on REFERENCE px square; one, if none is too few."""
        number: int = round(self.rng.integers(low, high) * (self.size / REFERENCE) ** 2)
        return max(number, min(low, 1))

    def add(
        self, label: int, at: np.ndarray, angle: float, side: float, turn: float = -1, moving: bool = False
    ) -> None:
        """Offer a place for an object; without a `turn` it gets one by chance."""
        turn = self.rng.random() if turn < 0 else turn
        inside = bool(((at > -side / 2) & (at < self.size + side / 2)).all())
        if inside:
            self.slots.append(Slot(label, np.asarray(at, dtype=np.float64), float(angle), float(side), turn, moving))

    # Drawing on the ground and above it

    def fill(self, points: np.ndarray, colour: np.ndarray, kind: int | None = None) -> None:
        """A polygon (P, 2) on the ground, with soft edges."""
        cv2.fillPoly(self.image, [fixed(points)], colour.tolist(), cv2.LINE_AA, SHIFT)
        if kind is not None:
            cv2.fillPoly(self.kind, [fixed(points)], kind, shift=SHIFT)

    def line(self, points: np.ndarray, colour: np.ndarray, strength: float = 0.7) -> None:
        """A painted line one pixel wide, faded into what it lies on."""
        x, y = np.clip(points[0], 0, self.size - 1).astype(int)
        faded = self.image[y, x] * (1 - strength) + colour * strength
        cv2.polylines(self.image, [fixed(points)], False, faded.tolist(), 1, cv2.LINE_AA, SHIFT)

    def stand(self, points: np.ndarray, colour: np.ndarray, height: float = 0.0) -> None:
        """A polygon above the ground; one with a height (px) takes the place and, later, throws a shadow."""
        self.tops.append((points, colour))
        if height > 0:
            self.cast(self.shade, points, height)
            cv2.fillPoly(self.kind, [fixed(points)], BUILT, shift=SHIFT)

    def cast(self, shade: np.ndarray, points: np.ndarray, height: float) -> None:
        """Draw into `shade` (size, size) uint8 the shadow of a convex polygon `height` px high."""
        away = points - self.light * height * self.reach
        hull = cv2.convexHull(np.vstack([points, away]).astype(np.float32))[:, 0].astype(np.float64)
        cv2.fillPoly(shade, [fixed(hull)], 255, cv2.LINE_AA, SHIFT)

    def free(self, points: np.ndarray, kinds: int) -> bool:
        """Whether the polygon touches the image, and there only pixels of these kinds."""
        low = np.maximum(np.floor(points.min(0)).astype(int), 0)
        window = self.kind[low[1] : int(points[:, 1].max()) + 1, low[0] : int(points[:, 0].max()) + 1]
        if min(points.max(0)) < 0 or window.size == 0:
            return False
        mask = np.zeros(window.shape, np.uint8)
        cv2.fillPoly(mask, [fixed(points - low)], 255, shift=SHIFT)
        return bool(mask.any()) and not (window & mask & ~np.uint8(kinds)).any()

    def spot(
        self, width: float, height: float, angle: float, kinds: int = GROUND, tries: int = 14
    ) -> np.ndarray | None:
        """The centre of a free place for a turned rectangle, or None."""
        corners = turn(rectangle(-width / 2, width / 2, height / 2), angle)
        for centre in self.rng.uniform(0, self.size, (tries, 2)):
            if self.free(corners + centre, kinds):
                return np.asarray(centre)
        return None

    # Ground

    def grow_ground(self, farmed: bool) -> None:
        """Grass and soil, or fields with furrows."""
        rng, size = self.rng, self.size
        low, high = pick(rng, GRASS), pick(rng, np.vstack([GRASS, SOIL]))
        ground = mix(low, high, 0.5 + 0.45 * noise(rng, size, 90))
        if farmed:
            ground = mix(ground, self.fields(), np.full((size, size), 0.85))
        grain = 1 + 0.05 * noise(rng, size, 12, 3) + 0.035 * noise(rng, size, 2, 1)
        ground *= banded(grain)
        self.image = np.clip(ground, 0, 255, out=ground).astype(np.uint8)

    def fields(self) -> np.ndarray:
        """(size, size, 3) parcels along the scene's angle, each with its own crop and furrows."""
        rng, size = self.rng, self.size
        y, x = np.mgrid[:size, :size].astype(np.float32)
        c, s = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        u, v = x * c + y * s + 3 * noise(rng, size, 80, 2), y * c - x * s
        row = np.floor(v / rng.uniform(60, 130)).astype(int)
        shift = rng.uniform(0, 200, 64)[row % 64]
        column = np.floor((u + shift) / rng.uniform(70, 170)).astype(int)
        parcel = (row * 7 + column * 13) % 32
        crops = np.array([pick(rng, CROPS, 8) for _ in range(32)], dtype=np.float32)
        furrow = np.sin(np.where(parcel % 2, u, v) * 2 * np.pi / rng.uniform(3, 7)) * (parcel % 3 > 0) * 0.06
        return np.asarray(crops[parcel] * banded(1 + furrow))

    def flood(self, straight: bool) -> None:
        """Water beyond a shore line; straight for a quay. Ships may be anywhere on it."""
        rng, size = self.rng, self.size
        y, x = np.mgrid[:size, :size].astype(np.float32) - size / 2
        normal = np.array([-np.sin(self.angle), np.cos(self.angle)]) * rng.choice([-1, 1])
        depth = np.float32(x * normal[0] + y * normal[1] + rng.uniform(-0.05, 0.28) * size)
        if not straight:
            depth += np.float32(size * 0.05) * noise(rng, size, size / 3, 4)
        deep = pick(rng, SEA, 6)
        shallow = deep + (26, 30, 22)
        wave = 1 + 0.035 * noise(rng, size, 40, 3) + 0.03 * noise(rng, size, 3, 2)
        water = mix(shallow, deep, depth / (0.12 * size))
        shown = mix(self.image.astype(np.float32), water * banded(wave), depth / 1.5 + 0.5)
        if straight:
            shown = mix(shown, pick(rng, CONCRETE), QUAY / 2 + 0.5 - np.abs(depth + QUAY / 2))
        else:
            shown = mix(shown, np.array((176, 190, 196), np.float32), 0.8 * np.exp(-(((depth + 1) / 2.2) ** 2)))
        self.image = np.clip(shown, 0, 255).astype(np.uint8)
        self.kind[depth > -1.0] = WATER
        self.normal, self.depth = normal, depth

    # The finished picture

    def raise_tops(self, image: np.ndarray) -> np.ndarray:
        """A copy of the image (H, W, 3) uint8 with everything that stands drawn in its order."""
        out = image.copy()
        for points, colour in self.tops:
            cv2.fillPoly(out, [fixed(points)], colour.tolist(), cv2.LINE_AA, SHIFT)
        return np.asarray(out)
