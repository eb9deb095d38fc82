"""More objects of the drawn scenes: what AI-TOD has beside the toy set's four, and small things of no kind."""

from __future__ import annotations

import numpy as np

from tinyyolo.datasets.drawn.objects import CARGO, GLASS, WHITE, Part, ellipse, pick, rectangle, shade, turn

POOLS = np.array([(190, 150, 60), (200, 170, 90), (170, 130, 40), (150, 140, 90)], dtype=np.float64)
CLOTHES = np.array(
    [(40, 40, 45), (60, 50, 170), (150, 90, 50), (200, 200, 205), (60, 110, 160), (90, 140, 90)], dtype=np.float64
)
SKIN = np.array((120.0, 150, 190))
DECKS = np.array([(150, 154, 156), (120, 120, 118), (176, 180, 182), (104, 120, 140)], dtype=np.float64)


def person(rng: np.random.Generator, light: np.ndarray) -> list[Part]:
    """A person, from above as a head over shoulders, or from the side with legs."""
    coat, half = pick(rng, CLOTHES), rng.uniform(0.16, 0.26)
    head = pick(rng, np.vstack([SKIN, GLASS]), 8)
    if rng.random() < 0.4:
        return [(ellipse(0, 0, 0.32, 0.5, 16), coat), (ellipse(0.06, 0, 0.2, 0.22, 12), head)]
    stride = rng.uniform(0.05, 0.9) * half
    legs = shade(pick(rng, CLOTHES), 0.7)
    return [
        (np.array([(0.0, -0.4 * half), (-0.5, -stride - 0.06), (-0.5, -stride + 0.06), (0.0, 0.2 * half)]), legs),
        (np.array([(0.0, -0.2 * half), (-0.48, stride - 0.06), (-0.48, stride + 0.06), (0.0, 0.4 * half)]), legs),
        (np.array([(-0.06, -0.8 * half), (0.3, -half), (0.34, half), (-0.06, 0.8 * half)]), coat),
        (ellipse(0.4, 0, 0.1, 0.11, 10), head),
    ]


def bicycle(rng: np.random.Generator, light: np.ndarray) -> list[Part]:
    """A bicycle or a motorcycle, with its rider in two of three."""
    frame, half = pick(rng, CLOTHES), rng.uniform(0.03, 0.07)
    parts = [(rectangle(-0.5, 0.5, half), frame * 0.7), (rectangle(0.2, 0.28, 0.2), frame)]
    if rng.random() < 2 / 3:
        parts += [(ellipse(-0.05, 0, 0.22, 0.2, 14), pick(rng, CLOTHES)), (ellipse(0.02, 0, 0.1, 0.1, 10), SKIN)]
    return parts


def pool(rng: np.random.Generator, light: np.ndarray) -> list[Part]:
    """A swimming pool with its rim: a rectangle, an ellipse or a kidney."""
    water, half = pick(rng, POOLS), rng.uniform(0.2, 0.42)
    kind = rng.integers(3)
    outline = ellipse(0, 0, 0.5, half, 24) if kind else rectangle(-0.5, 0.5, half, 0.04)
    if kind == 2:
        outline = outline * np.column_stack([np.ones(24), 1 - 0.35 * np.cos(np.linspace(0, 2 * np.pi, 24))])
    parts = [(outline, pick(rng, DECKS)), (outline * 0.86, water)]
    if rng.random() < 0.5:
        parts.append((outline * 0.5 - light * 0.08, shade(water, 1.12)))
    return parts


def windmill(rng: np.random.Generator, light: np.ndarray) -> list[Part]:
    """A wind turbine: three thin blades about a nacelle, and its tower where it is seen aslant."""
    blade = np.array([(0.02, -0.015), (0.5, -0.008), (0.5, 0.008), (0.1, 0.05), (0.02, 0.03)])
    first, parts = rng.uniform(0, 2 * np.pi / 3), []
    if rng.random() < 0.5:
        parts.append((np.array([(0, -0.02), (-0.55, -0.035), (-0.55, 0.035), (0, 0.02)]), WHITE * 0.86))
    parts += [(turn(blade, first + k * 2 * np.pi / 3), WHITE) for k in range(3)]
    return [*parts, (rectangle(-0.08, 0.06, 0.035), WHITE * 0.95)]


def bridge(rng: np.random.Generator, light: np.ndarray) -> list[Part]:
    """A deck with two rails, its ends on the banks."""
    deck, half = pick(rng, DECKS), rng.uniform(0.07, 0.2)
    rail = shade(deck, rng.choice([0.6, 1.25]))
    return [
        (rectangle(-0.5, 0.5, half), deck),
        (rectangle(-0.5, 0.5, 0.16 * half) + (0, 0.84 * half), rail),
        (rectangle(-0.5, 0.5, 0.16 * half) - (0, 0.84 * half), rail),
    ]


def thing(rng: np.random.Generator, light: np.ndarray) -> list[Part]:
    """A small thing of two colours that is none of the others: a star, a ring, a cross, an arrow, a speckled disc."""
    one, two = pick(rng, np.vstack([CARGO, WHITE, GLASS]), 30), pick(rng, np.vstack([CARGO, WHITE, GLASS]), 30)
    kind = rng.integers(5)
    if kind == 0:
        points = int(rng.integers(3, 8))
        radius = np.where(np.arange(2 * points) % 2, rng.uniform(0.2, 0.4), 0.5)[:, None]
        return [(ellipse(0, 0, 1, 1, 2 * points) * radius, one), (ellipse(0, 0, 0.12, 0.12, 10), two)]
    if kind == 1:
        flat = rng.uniform(0.6, 1)
        return [(ellipse(0, 0, 0.5, 0.5 * flat, 24), one), (ellipse(0, 0, 0.28, 0.28 * flat, 20), two)]
    if kind == 2:
        half = rng.uniform(0.1, 0.18)
        return [(rectangle(-0.5, 0.5, half), one), (turn(rectangle(-0.5, 0.5, half), np.pi / 2), two)]
    if kind == 3:
        return [
            (np.array([(0.5, 0), (0, 0.4), (0.05, 0.15), (-0.5, 0.15), (-0.5, -0.15), (0.05, -0.15), (0, -0.4)]), one)
        ]
    spots = [(ellipse(0, 0, 0.12, 0.12, 10) + rng.uniform(-0.28, 0.28, 2), two) for _ in range(4)]
    return [(ellipse(0, 0, 0.5, 0.5, 24), one), *spots]


MORE = {
    "person": person,
    "bicycle": bicycle,
    "swimming-pool": pool,
    "wind-mill": windmill,
    "bridge": bridge,
    "thing": thing,
}
