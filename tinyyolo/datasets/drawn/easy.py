"""The easy scene: bright shapes on dim ground, told apart by colour and form. A sound detector nearly saturates."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyyolo.datasets.drawn.ground import mix, noise
from tinyyolo.datasets.drawn.objects import Sprite, ellipse, fit_side, paint, pick, rectangle

NAMES = ("disc", "bar", "arrow")
COLOURS = np.array([(50, 70, 235), (80, 225, 70), (240, 140, 60)], dtype=np.float64)  # BGR: red, green, blue
GROUND = np.array([(46, 52, 50), (84, 92, 96)], dtype=np.float64)
SPREAD = np.sqrt(3.0)  # half the width of a uniform distribution in standard deviations
SMALLEST = 2.0  # px
GAP = 1.0  # px of ground, at least, around every box
TRIES = 30  # places tried before an object is left out


def outline(rng: np.random.Generator, label: int) -> np.ndarray:
    """(P, 2) points of a shape: a round disc, a bar of some aspect, or an arrowhead."""
    if label == 0:
        return ellipse(0, 0, 0.5, rng.uniform(0.4, 0.5))
    if label == 1:
        return rectangle(-0.5, 0.5, rng.uniform(0.22, 0.5))
    return np.array([(0.5, 0.0), (-0.5, 0.45), (-0.2, 0.0), (-0.5, -0.45)])


def draw_easy(
    rng: np.random.Generator, size: int, objects: tuple[int, int], side_px: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One easy scene; arguments and result as `toy.draw_scene`. Sides are uniform, not lognormal."""
    mean, std = side_px
    dark, light = GROUND
    image = mix(dark, light, 0.5 + 0.3 * noise(rng, size, 60)) + 3 * noise(rng, size, 2, 1)[..., None]
    sprites: list[Sprite] = []
    labels = []
    for _ in range(int(rng.integers(objects[0], objects[1] + 1))):
        label = int(rng.integers(len(NAMES)))
        side = max(mean + rng.uniform(-SPREAD, SPREAD) * std, SMALLEST)
        parts = fit_side(
            [(outline(rng, label), pick(rng, COLOURS[label : label + 1]))], rng.uniform(0, 2 * np.pi), side
        )
        sprite = place(rng, parts, size, [other.box for other in sprites])
        if sprite is not None:
            sprites.append(sprite)
            labels.append(label)
    for sprite in sprites:
        image[sprite.window] = image[sprite.window] * (1 - sprite.alpha[..., None]) + sprite.colour
    image += rng.standard_normal(image.shape, dtype=np.float32) * 2
    boxes = np.array([sprite.box for sprite in sprites]).reshape(-1, 4)
    return np.clip(np.round(image), 0, 255).astype(np.uint8), boxes, np.array(labels, dtype=np.int64)


def place(rng: np.random.Generator, parts: list[Any], size: int, others: list[np.ndarray]) -> Sprite | None:
    """The shape painted whole inside the image where no other box is near; None if there is no room."""
    half = np.abs(parts[0][0]).max(0) + GAP
    if (2 * half >= size).any():
        return None
    taken = np.array(others).reshape(-1, 4)
    for _ in range(TRIES):
        centre = rng.uniform(half, size - half)
        apart = (taken[:, :2] >= centre + half) | (taken[:, 2:] <= centre - half)
        if apart.any(1).all():
            return paint(parts, centre, size)
    return None
