"""The objects of the drawn scenes: flat polygons in their own frame, painted with sub-pixel edges and an exact box.

An object is a list of parts drawn in order. Its frame has x to the front, y to the right, length about 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

SUPER = 8  # samples per pixel side: coverage to 1/64, boxes to 1/8 px
SHIFT = 4  # fractional bits of the vertices given to OpenCV

PAINT = np.array(  # BGR of car bodies, in about the shares of a car park
    [(236, 238, 238), (228, 230, 232), (205, 205, 202), (170, 170, 166), (110, 108, 105), (45, 44, 43), (38, 36, 36)]
    + [(40, 38, 170), (120, 70, 40), (165, 110, 60), (60, 90, 50), (60, 190, 225)],
    dtype=np.float64,
)
CARGO = np.array([(60, 70, 170), (150, 95, 50), (70, 120, 70), (50, 130, 200), (200, 200, 195)], dtype=np.float64)
HULL = np.array([(70, 60, 55), (60, 50, 130), (110, 75, 45), (60, 90, 60), (190, 190, 190)], dtype=np.float64)
GLASS = np.array((52.0, 44.0, 38.0))
WHITE = np.array((238.0, 240.0, 240.0))

Part = tuple[np.ndarray, np.ndarray]  # (P, 2) points of a polygon, (3,) BGR


@dataclass(frozen=True)
class Sprite:
    """One painted object: the window it covers, its colour times coverage, its coverage, its tight box.

    `colour` (h, w, 3) and `alpha` (h, w) are float32, colour in 0..255, alpha in 0..1; `x`, `y` is the window's corner
    in the image; `box` is (4,) float64 xyxy in pixels, the extent of the shape inside the image; `outlines` are its
    parts, (P, 2) points in image px.
    """

    x: int
    y: int
    colour: np.ndarray
    alpha: np.ndarray
    box: np.ndarray
    outlines: list[np.ndarray]

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the image under the sprite."""
        height, width = self.alpha.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)


def rectangle(x0: float, x1: float, half: float, corner: float = 0.0) -> np.ndarray:
    """Outline of a box from x0 to x1, `half` to each side of the x axis, corners cut by `corner`.

    Examples:
        >>> rectangle(0, 2, 1).shape, rectangle(0, 2, 1, corner=0.1).shape
        ((4, 2), (8, 2))
    """
    if corner == 0:
        return np.array([(x0, -half), (x1, -half), (x1, half), (x0, half)])
    c, y = corner, half - corner
    left, right = x0 + c, x1 - c
    return np.array([(left, -half), (right, -half), (x1, -y), (x1, y), (right, half), (left, half), (x0, y), (x0, -y)])


def ellipse(cx: float, cy: float, rx: float, ry: float, points: int = 40) -> np.ndarray:
    """(points, 2) outline of an ellipse."""
    return circle(points) * (rx, ry) + (cx, cy)


@lru_cache
def circle(points: int) -> np.ndarray:
    """(points, 2) outline of the unit circle."""
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    out = np.stack([np.cos(t), np.sin(t)], axis=1)
    out.flags.writeable = False
    return out


def pick(rng: np.random.Generator, palette: np.ndarray, spread: float = 12.0) -> np.ndarray:
    """One colour (3,) of a palette (K, 3), lighter or darker by `spread` and a quarter of that off in hue."""
    return shade(palette[rng.integers(len(palette))] + rng.normal(0, spread) + rng.normal(0, spread / 4, 3))


def shade(colour: np.ndarray, gain: float = 1.0) -> np.ndarray:
    """The colour times `gain`, kept within what a picture can show."""
    return np.minimum(np.maximum(colour * gain, 5), 250)


def vehicle(rng: np.random.Generator, light: np.ndarray) -> list[Part]:
    """A car (4 in 5), or a van, lorry or bus."""
    body = pick(rng, PAINT)
    if rng.random() < 0.8:
        half = rng.uniform(0.21, 0.24)
        glass = np.array([(0.2, -half * 0.85), (0.2, half * 0.85), (0.06, half * 0.68), (0.06, -half * 0.68)])
        rear = np.array([(-0.4, -half * 0.75), (-0.4, half * 0.75), (-0.29, half * 0.65), (-0.29, -half * 0.65)])
        roof = rectangle(-0.27, 0.05, half * 0.7)
        return [
            (rectangle(-0.5, 0.5, half, 0.07), body),
            (rectangle(-0.42, 0.22, half * 0.9), body * 0.72),
            (glass, GLASS),
            (rear, GLASS),
            (roof, shade(body, 1.06)),
        ]
    half = rng.uniform(0.15, 0.19)
    cargo = pick(rng, np.vstack([CARGO, WHITE, WHITE]))
    return [
        (rectangle(0.26, 0.5, half * 0.92, 0.03), body),
        (rectangle(0.4, 0.46, half * 0.8), GLASS),
        (rectangle(-0.5, 0.24, half), cargo),
        (rectangle(-0.47, 0.21, half * 0.12), cargo * 0.85),
        (rectangle(0.22, 0.28, half * 0.5), GLASS),
    ]


def ship(rng: np.random.Generator, light: np.ndarray) -> list[Part]:
    """A boat with a cockpit, or a cargo ship with hatches and a bridge near the stern."""
    small = rng.random() < 0.55
    half = rng.uniform(0.14, 0.2) if small else rng.uniform(0.09, 0.14)
    hull = np.array([(-0.5, 0.8), (-0.3, 1.0), (0.15, 0.95), (0.36, 0.6), (0.5, 0.0)]) * (1, half)
    hull = np.vstack([hull, hull[-2::-1] * (1, -1)])
    if small:
        inside = pick(rng, np.vstack([CARGO[1], (120, 150, 175), (90, 95, 100)]))
        return [
            (hull, pick(rng, np.vstack([WHITE, WHITE, WHITE, HULL[1:3]]))),
            (rectangle(-0.42, 0.0, half * 0.62, 0.02), inside),
            (rectangle(0.0, 0.1, half * 0.66), GLASS),
            (rectangle(0.1, 0.26, half * 0.35), WHITE * 0.92),
        ]
    deck = pick(rng, np.vstack([(70, 75, 135), (100, 110, 110), (95, 85, 75)]))
    parts = [(hull, pick(rng, HULL)), (hull * (0.94, 0.78), deck)]
    for x in (-0.14, 0.04, 0.22):
        parts.append((rectangle(x, x + 0.15, half * 0.6), pick(rng, CARGO)))
    parts.append((rectangle(-0.4, -0.22, half * 0.82), WHITE))
    parts.append((rectangle(-0.36, -0.3, half * 0.3), pick(rng, CARGO)))
    return parts


def plane(rng: np.random.Generator, light: np.ndarray) -> list[Part]:
    """An airliner with swept wings and engines, or (1 in 3) a straight-winged light aircraft."""
    body = pick(rng, np.vstack([WHITE, WHITE * 0.95, (205, 205, 205)]), 6)
    wing_colour = shade(body, rng.uniform(0.82, 0.94))
    light_craft = rng.random() < 1 / 3
    sweep, span, chord = (0.02, 0.6, 0.17) if light_craft else (rng.uniform(0.2, 0.28), rng.uniform(0.44, 0.52), 0.2)
    root = 0.22 if light_craft else 0.16
    wing = np.array([(root, 0), (root - sweep, span), (root - sweep - chord * 0.4, span), (root - chord, 0)])
    tail = np.array([(-0.36, 0), (-0.43, 0.19), (-0.5, 0.19), (-0.48, 0)])
    parts = [(shape * (1, side), wing_colour) for shape in (wing, tail) for side in (1, -1)]
    if not light_craft:
        at = root - sweep * 0.36
        for side in (1, -1):
            parts.append((rectangle(at - 0.08, at + 0.05, 0.028, 0.01) + (0, side * span * 0.36), body * 0.62))
    half = 0.055
    nose = np.array([(-0.5, 0.2), (-0.36, 0.8), (-0.1, 1.0), (0.34, 1.0), (0.45, 0.65), (0.5, 0.0)]) * (1, half)
    fuselage = np.vstack([nose, nose[-2::-1] * (1, -1)])
    dark = fuselage * (0.97, 0.5) - np.array([0, half * 0.45]) * np.sign(light[1] or 1)
    parts += [(fuselage, body), (dark, body * 0.88), (rectangle(0.38, 0.43, half * 0.6), GLASS)]
    if rng.random() < 0.5:
        parts.append((rectangle(-0.5, -0.36, half * 0.35), pick(rng, CARGO)))
    return parts


def tank(rng: np.random.Generator, light: np.ndarray) -> list[Part]:
    """A storage tank from above: a lit dome or cone, or a floating roof with the wall's shadow on it."""
    wall = pick(rng, np.vstack([WHITE, WHITE, (215, 222, 226), (190, 200, 205), (150, 165, 150)]), 6)
    parts = [(ellipse(0, 0, 0.5, 0.5), wall * 0.8)]
    if rng.random() < 0.35:
        off = -light * 0.09
        parts += [(ellipse(0, 0, 0.48, 0.48), wall), (ellipse(0, 0, 0.42, 0.42), wall * 0.55)]
        return [*parts, (ellipse(off[0], off[1], 0.33, 0.33), wall * 0.86)]
    for radius, gain in ((0.47, 0.9), (0.4, 0.96), (0.3, 1.0)):
        off = light * (0.47 - radius) * 0.8
        parts.append((ellipse(off[0], off[1], radius, radius), shade(wall, gain)))
    return [*parts, (ellipse(0, 0, 0.05, 0.05, 12), wall * 0.7)]


def turn(points: np.ndarray, angle: float) -> np.ndarray:
    """Points (P, 2) rotated by `angle` (radians, clockwise as images have y downwards).

    Examples:
        >>> turn(np.array([[1.0, 0.0]]), np.pi / 2).round(6).tolist()
        [[0.0, 1.0]]
    """
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(points @ np.array([[c, s], [-s, c]]))


def fit_side(parts: list[Part], angle: float, side: float) -> list[Part]:
    """The parts turned by `angle` and scaled so that sqrt(w * h) of their tight box is `side` px, centred on (0, 0)."""
    turned = [turn(points, angle) for points, _ in parts]
    low, high = np.vstack(turned).min(0), np.vstack(turned).max(0)
    scale = side / np.sqrt(np.prod(high - low))
    return [((points - (low + high) / 2) * scale, colour) for points, (_, colour) in zip(turned, parts, strict=True)]


def paint(parts: list[Part], centre: np.ndarray, size: int) -> Sprite | None:
    """Paint an object of `fit_side` at `centre` (x, y) on a square image of `size` px; None if nothing of it is inside.

    The box is read from the painted samples, so it is the drawn shape's to 1/SUPER px, without its shadow.
    """
    outlines = [points + centre for points, _ in parts]
    low = np.clip(np.floor(np.vstack(outlines).min(0)) - 1, 0, size).astype(int)
    high = np.clip(np.ceil(np.vstack(outlines).max(0)) + 1, 0, size).astype(int)
    width, height = high - low
    if width <= 0 or height <= 0:
        return None
    canvas = np.zeros((height * SUPER, width * SUPER, 4), np.uint8)
    for outline, (_, colour) in zip(outlines, parts, strict=True):
        cv2.fillPoly(canvas, [fixed((outline - low) * SUPER)], (*colour.tolist(), 255), shift=SHIFT)
    x, y, w, h = cv2.boundingRect(cv2.extractChannel(canvas, 3))
    if w == 0:
        return None
    box = np.array([x, y, x + w, y + h]) / SUPER + np.tile(low, 2)
    small = cv2.resize(canvas, (int(width), int(height)), interpolation=cv2.INTER_AREA).astype(np.float32)
    return Sprite(int(low[0]), int(low[1]), small[..., :3], small[..., 3] / 255, box, outlines)


def fixed(points: np.ndarray) -> np.ndarray:
    """Points (P, 2) with 0 at the edge of the first pixel, as OpenCV's fixed-point vertices (0 at its centre)."""
    return np.asarray((points * 2**SHIFT - (2**SHIFT - 1) / 2).astype(np.int32))


OBJECTS = {"vehicle": vehicle, "ship": ship, "plane": plane, "tank": tank}
