"""How a drawn scene is seen: the light, the band, the optics and the file. Variety teaches transfer, not likeness."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from tinyyolo.datasets.drawn.ground import BUILT, PAVED, ROAD, WATER, Scene, banded, noise
from tinyyolo.datasets.drawn.objects import Sprite

LUMINANCE = np.array((0.114, 0.587, 0.299), dtype=np.float32)  # of BGR
QUALITY = (30, 96)  # of JPEG
LIVING = 0.97  # share of the people who are warmer than the ground
PERCENTILES = (1.0, 99.0)  # that a file of 11 bits is stretched between


def weighted(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(H, W) of an image (H, W, 3) by weights (3,), added in this order on every machine; `@` leaves that to BLAS."""
    b, g, r = cv2.split(image)
    return np.asarray(b * weights[0] + g * weights[1] + r * weights[2])


def in_colour(rng: np.random.Generator, ground: np.ndarray, sprites: Sequence[Sprite]) -> np.ndarray:
    """The ground (H, W, 3) float32 with the objects on it, as they are."""
    out = ground.copy()
    for sprite in sprites:
        out[sprite.window] = out[sprite.window] * (1 - sprite.alpha[..., None]) + sprite.colour
    return np.asarray(out)


def in_grey(rng: np.random.Generator, ground: np.ndarray, sprites: Sequence[Sprite]) -> np.ndarray:
    """As one band (H, W): any mixture of the colours, as panchromatic and near-infrared sensors have."""
    weights = np.float32(rng.dirichlet((1.0, 2.0, 2.0)))
    return weighted(in_colour(rng, ground, sprites), weights)


def in_false_colour(rng: np.random.Generator, ground: np.ndarray, sprites: Sequence[Sprite]) -> np.ndarray:
    """With bands exchanged, mixed and turned round: no colour may be trusted."""
    mixing = np.float32(rng.dirichlet((0.5, 0.5, 0.5), 3))
    seen = in_colour(rng, ground, sprites)
    out = cv2.merge([weighted(seen, column) for column in mixing.T])
    for band in range(3):
        if rng.random() < 0.25:
            out[..., band] = 255 - out[..., band]
    return np.asarray(out)


def in_heat(
    rng: np.random.Generator, ground: np.ndarray, sprites: Sequence[Sprite], scene: Scene, living: Sequence[bool]
) -> np.ndarray:
    """As a thermal camera, (H, W): materials have their own warmth, objects are hot or cold against what is around;
    who is `living` is almost always hot.
    """
    size = scene.size
    grey = weighted(ground, np.float32(rng.dirichlet((1.0, 1.0, 1.0)) * rng.choice([-1, 1])))
    grey = (grey - grey.mean()) / max(float(grey.std()), 1e-3)
    heat = rng.uniform(60, 170) + rng.uniform(8, 38) * grey
    for kind in (ROAD, PAVED, BUILT, WATER):
        heat += ((scene.kind & kind) > 0) * np.float32(rng.normal(0, 22))
    heat += np.float32(rng.uniform(0, 22)) * noise(rng, size, rng.uniform(60, 240), 3)
    heat = cv2.GaussianBlur(heat.astype(np.float32), (0, 0), rng.uniform(0.4, 1.2))
    most = rng.uniform(30, 150)  # of the contrast in this scene
    hot = rng.choice([0.95, 0.7, 0.5])
    for sprite, alive in zip(sprites, living, strict=True):
        under = heat[sprite.window]
        value = float(under.mean()) + most * rng.uniform(0.35, 1.1) * (
            1 if rng.random() < (LIVING if alive else hot) else -1
        )
        bright = weighted(sprite.colour, LUMINANCE)
        inner = bright - sprite.alpha * bright.max() * 0.5
        own = value + inner * rng.uniform(-0.5, 0.5)
        heat[sprite.window] = under * (1 - sprite.alpha) + own * sprite.alpha
    if rng.random() < 0.6:  # the halo of a sensor, or of its sharpening
        heat += np.float32(rng.uniform(0.1, 0.9)) * (heat - cv2.GaussianBlur(heat, (0, 0), rng.uniform(1.5, 4)))
    if rng.random() < 0.4:
        heat += np.float32(rng.normal(0, rng.uniform(0.5, 3), (1, size)))  # each column has its own gain
    return np.asarray(heat)


def optics(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Haze, tint, lens, noise, sharpening of a camera, (H, W) or (H, W, 3) float32; and what files do to it.

    Returns:
        (H, W, 3) uint8. Of one band everything is done once.
    """
    grey, shape = image.ndim == 2, image.shape[:2]
    tint = 1.0 if grey else rng.normal(1, 0.05, 3)
    gain = np.float32(tint * rng.uniform(0.6, 1.25))
    out = image * gain if grey else (image.reshape(shape[0], -1) * np.tile(gain, shape[1])).reshape(image.shape)
    out += np.float32(rng.exponential(14))
    if rng.random() < 0.3:  # seen from farther away than its pixels say
        small = 1 / rng.uniform(1, 2.2)
        out = cv2.resize(cv2.resize(out, None, fx=small, fy=small, interpolation=cv2.INTER_AREA), shape[::-1])
    out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.2, 1.0))
    bands = 3 if not grey and rng.random() < 0.4 else 1
    grain = rng.standard_normal((*shape, bands), dtype=np.float32) * np.float32(rng.exponential(3) + 0.5)
    out += grain if bands == 3 else grain[..., 0] if grey else banded(grain[..., 0])
    if rng.random() < 0.3:
        out += np.float32(rng.uniform(0.2, 1.2)) * (out - cv2.GaussianBlur(out, (0, 0), rng.uniform(0.8, 2)))
    if rng.random() < 0.35:  # 11 bits and more, brought to 8 by percentiles
        sample = out[::4, ::4]
        low, high = np.percentile(banded(sample) if grey else sample, PERCENTILES)
        out = (out - low) * np.float32(255 / max(high - low, 8.0))
    if rng.random() < 0.4:
        out = 255 * (np.clip(out, 0, 255) / 255) ** np.float32(np.exp(rng.normal(0, 0.3)))
    seen = cv2.convertScaleAbs(np.maximum(out, 0))
    seen = banded(seen) if grey else seen
    if rng.random() < 0.5:
        data = cv2.imencode(".jpg", seen, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(*QUALITY))])[1]
        seen = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return np.asarray(seen)


LOOKS: dict[str, tuple[float, Callable[..., np.ndarray]]] = {  # how often
    "colour": (0.45, in_colour),
    "grey": (0.12, in_grey),
    "false colour": (0.08, in_false_colour),
    "heat": (0.35, in_heat),
}


def seen(
    rng: np.random.Generator,
    ground: np.ndarray,
    sprites: Sequence[Sprite],
    scene: Scene,
    living: Sequence[bool],
    heat: float | None = None,
) -> np.ndarray:
    """The picture (H, W, 3) uint8 of a scene by one of LOOKS; `heat` is another share of that look."""
    odds = np.array([share for share, _ in LOOKS.values()])
    if heat is not None:
        warm = np.array([name == "heat" for name in LOOKS])
        odds = np.where(warm, heat, odds * (1 - heat) / odds[~warm].sum())
    name = list(LOOKS)[rng.choice(len(LOOKS), p=odds)]
    look = LOOKS[name][1]
    image = look(rng, ground, sprites, scene, living) if name == "heat" else look(rng, ground, sprites)
    return optics(rng, np.float32(image))
