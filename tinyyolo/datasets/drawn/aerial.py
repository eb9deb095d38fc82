"""Aerial scenes: town, harbour, airport, industry, country. What stands in them, and the objects put into them."""

from __future__ import annotations

import cv2
import numpy as np

from tinyyolo.datasets.drawn.ground import (
    BRIDGE,
    CYCLE,
    GROUND,
    MILL,
    PAVED,
    PERSON,
    PLANE,
    POOL,
    ROAD,
    SHIP,
    TANK,
    THING,
    VEHICLE,
    WATER,
    Scene,
    Slot,
    banded,
    noise,
)
from tinyyolo.datasets.drawn.more import MORE
from tinyyolo.datasets.drawn.objects import OBJECTS, Sprite, fit_side, paint, turn
from tinyyolo.datasets.drawn.zones import (
    apron,
    containers,
    free_places,
    houses,
    jetty,
    lot,
    road,
    round_things,
    stones,
    tank_yard,
    trees,
)

LAND = ROAD | PAVED | GROUND
ALLOWED = {VEHICLE: LAND, SHIP: WATER, PLANE: PAVED, TANK: PAVED | GROUND}
ALLOWED |= {PERSON: LAND, CYCLE: LAND, POOL: GROUND, MILL: GROUND, BRIDGE: LAND | WATER, THING: LAND}
HEIGHT = {VEHICLE: 0.22, SHIP: 0.1, PLANE: 0.12, TANK: 0.3}  # of the side
HEIGHT |= {PERSON: 0.6, CYCLE: 0.3, POOL: 0.0, MILL: 0.8, BRIDGE: 0.1, THING: 0.15}
DRAWN = [*OBJECTS.values(), *MORE.values()]  # by label
CROP = 0.5  # an object at the border shows at least this share of its box
SHADOW = np.array((0.48, 0.54, 0.58), dtype=np.float32)  # share of the light that is missing
LIGHT_LEFT = 1 - np.float32(np.arange(256)[:, None] / 255) * SHADOW  # by cover
HAZE = np.array((1.15, 1.0, 0.9), dtype=np.float32)

SQUARE = (0.0, np.pi / 2)


def town(scene: Scene) -> None:
    """Two streets, car parks, houses in rows, trees."""
    rng = scene.rng
    scene.grow_ground(farmed=False)
    road(scene, 2.0 * scene.car, scene.angle, rng.uniform(-0.3, 0.3))
    road(scene, 1.7 * scene.car, scene.angle + np.pi / 2, rng.uniform(-0.1, 0.1))
    for _ in range(scene.count(1, 4)):
        lot(scene, int(rng.integers(1, 4)), int(rng.integers(5, 13)), scene.angle)
    houses(scene, scene.count(8, 18), (1.6, 1.4), (4.5, 3.0), gabled=0.65, turns=SQUARE)
    round_things(scene, scene.count(3, 8))
    trees(scene, scene.count(60, 160))
    free_places(scene, TANK, GROUND, scene.count(4, 7))


def harbour(scene: Scene) -> None:
    """A quay or a beach, jetties, ships, containers, a few sheds, a street."""
    rng = scene.rng
    scene.grow_ground(farmed=False)
    straight = rng.random() < 0.6
    road(scene, 1.7 * scene.car, scene.angle + rng.normal(0, 0.05), 0.0)
    scene.flood(straight)
    for _ in range(scene.count(1, 4)):
        jetty(scene)
    if straight:
        containers(scene, scene.count(3, 8))
    tank_yard(scene, int(rng.integers(1, 3)), int(rng.integers(2, 4)), scene.angle)
    lot(scene, 1, int(rng.integers(4, 9)), scene.angle)
    houses(scene, scene.count(2, 7), (2, 1.5), (5, 3), gabled=0.5)
    stones(scene, scene.count(4, 14), WATER)
    trees(scene, scene.count(20, 80))
    free_places(scene, SHIP, WATER, scene.count(30, 50))


def airport(scene: Scene) -> None:
    """An apron with planes, a runway, hangars, a car park."""
    rng = scene.rng
    scene.grow_ground(farmed=False)
    road(scene, 3.2 * scene.car, scene.angle, 0.0)
    scene.slots.clear()  # nobody drives on the runway, and no way leads to it
    scene.streets = scene.streets[:0]
    road(scene, 1.6 * scene.car, scene.angle + rng.choice([0, np.pi / 2]), rng.uniform(-0.1, 0.1))
    apron(scene, rng.uniform(0.7, 1.3), scene.angle)
    for _ in range(scene.count(1, 3)):
        lot(scene, int(rng.integers(1, 3)), int(rng.integers(5, 10)), scene.angle)
    houses(scene, scene.count(3, 8), (3, 2), (6, 4), gabled=0.4, turns=SQUARE)
    containers(scene, scene.count(0, 3))
    trees(scene, scene.count(10, 50))
    free_places(scene, TANK, GROUND, scene.count(3, 5))


def industry(scene: Scene) -> None:
    """Tank farms, sheds with vents, containers, lorries on a street."""
    rng = scene.rng
    scene.grow_ground(farmed=False)
    road(scene, 1.9 * scene.car, scene.angle, rng.uniform(-0.15, 0.15))
    for _ in range(scene.count(2, 5)):
        tank_yard(scene, int(rng.integers(1, 5)), int(rng.integers(2, 6)), scene.angle)
    houses(scene, scene.count(3, 8), (2.5, 2), (7, 4), gabled=0.25)
    lot(scene, 1, int(rng.integers(4, 10)), scene.angle)
    containers(scene, scene.count(1, 5))
    stones(scene, scene.count(3, 9), GROUND)
    round_things(scene, scene.count(3, 8))
    trees(scene, scene.count(10, 70))
    free_places(scene, TANK, GROUND, scene.count(7, 12))


def country(scene: Scene) -> None:
    """Fields, a road with few cars, a lake or wide river with boats, a farm."""
    rng = scene.rng
    scene.grow_ground(farmed=True)
    road(scene, 1.6 * scene.car, rng.uniform(0, np.pi), rng.uniform(-0.3, 0.3), rng.random() < 0.6)
    road(scene, 1.2 * scene.car, rng.uniform(0, np.pi), rng.uniform(-0.2, 0.2), False)
    scene.flood(straight=False)
    houses(scene, scene.count(2, 6), (1.6, 1.4), (4, 2.5), gabled=1.0, turns=rng.uniform(0, np.pi, 4).tolist())
    round_things(scene, scene.count(5, 20))
    stones(scene, scene.count(3, 10), GROUND | WATER)
    trees(scene, scene.count(50, 150))
    free_places(scene, SHIP, WATER, scene.count(15, 25))


THEMES = {  # how often; what the objects are
    town: (0.26, {VEHICLE: 0.92, TANK: 0.08}),
    harbour: (0.24, {SHIP: 0.62, VEHICLE: 0.2, TANK: 0.18}),
    airport: (0.22, {PLANE: 0.6, VEHICLE: 0.35, TANK: 0.05}),
    industry: (0.18, {TANK: 0.6, VEHICLE: 0.4}),
    country: (0.1, {VEHICLE: 0.6, SHIP: 0.4}),
}


def settle(scene: Scene, shares: dict[int, float], count: int) -> list[tuple[Slot, Sprite]]:
    """Objects for `count` of the places, class by class; none shares a pixel with another or stands where it cannot."""
    taken = np.zeros_like(scene.kind, dtype=bool)
    placed: list[tuple[Slot, Sprite]] = []
    queue = sorted(scene.slots, key=lambda slot: slot.turn)
    rounds = [(label, round(share * count)) for label, share in shares.items()]
    for label, wanted in [*rounds, (None, count)]:  # at last, anything that fits makes up for what a class lacked
        for slot in [s for s in queue if label in (s.label, None)]:
            wanted_now = min(wanted, count - len(placed))
            if wanted_now <= 0:
                break
            queue.remove(slot)
            column, row = np.clip(slot.at, 0, scene.size - 1).astype(int)
            sprite = shaped(scene, slot) if scene.kind[row, column] & ALLOWED[slot.label] else None
            if sprite is None:
                continue
            under = sprite.alpha > 0
            clash = taken[sprite.window] | ((scene.kind[sprite.window] & ~np.uint8(ALLOWED[slot.label])) > 0)
            if not (clash & under).any():
                taken[sprite.window] |= under
                placed.append((slot, sprite))
                wanted -= 1
    return placed


def shaped(scene: Scene, slot: Slot) -> Sprite | None:
    """The painted object of a place, or None if the border hides too much of it."""
    parts = fit_side(DRAWN[slot.label](scene.rng, turn(scene.light[None], -slot.angle)[0]), slot.angle, slot.side)
    sprite = paint(parts, slot.at, scene.size)
    if sprite is None:
        return None
    points = np.vstack([p for p, _ in parts])
    whole = np.prod(points.max(0) - points.min(0))
    return sprite if np.prod(sprite.box[2:] - sprite.box[:2]) >= CROP * whole else None


def shadow(image: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) float32 darkened, more in red than in blue, where `cover` (H, W) uint8 is."""
    soft = cv2.GaussianBlur(cover, (3, 3), 0.6).ravel()
    dark = np.flatnonzero(soft)
    out = image.copy()
    pixels = out.reshape(-1, 3)
    pixels[dark] = pixels.take(dark, 0) * LIGHT_LEFT.take(soft[dark], 0)
    return np.asarray(out)


def cast_all(scene: Scene, placed: list[tuple[Slot, Sprite]]) -> np.ndarray:
    """(size, size) uint8 with the shadows of the objects."""
    cover = np.zeros_like(scene.shade)
    for slot, sprite in placed:
        for outline in sprite.outlines:
            scene.cast(cover, outline, HEIGHT[slot.label] * slot.side)
    return cover


def wakes(scene: Scene, placed: list[tuple[Slot, Sprite]], image: np.ndarray) -> np.ndarray:
    """White water behind the ships under way."""
    foam, sailing = np.zeros_like(scene.shade), [slot for slot, _ in placed if slot.moving]
    if not sailing:
        return image
    for slot in sailing:
        length = slot.side * scene.rng.uniform(1.2, 3.0)
        fan = np.array([(0.3, 0.0), (-length, -0.22 * length), (-length * 0.9, 0.0), (-length, 0.22 * length)])
        points = turn(fan, slot.angle) + slot.at
        cv2.fillPoly(foam, [np.round(points * 16).astype(np.int32)], 150, cv2.LINE_AA, 4)
    streaks = np.clip(0.5 + 0.5 * noise(scene.rng, scene.size, 4, 2), 0, 1)
    amount = cv2.GaussianBlur(foam, (0, 0), 1.2).astype(np.float32) / 255 * streaks * (scene.kind == WATER)
    return np.asarray(image + (225 - image) * banded(amount))


def sensor(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Haze, tint, optics and noise of a camera: (H, W, 3) float32 -> uint8."""
    gain, haze = rng.uniform(0.82, 1.12), rng.uniform(0, 22)
    tint = rng.normal(1, 0.025, 3) * gain
    seen = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.35, 0.6))
    seen *= np.float32(tint)
    seen += HAZE * np.float32(haze)
    seen += rng.standard_normal((*image.shape[:2], 1), dtype=np.float32) * np.float32(rng.uniform(1, 3))
    return cv2.convertScaleAbs(np.maximum(seen, 0, out=seen))


def draw_aerial(
    rng: np.random.Generator, size: int, objects: tuple[int, int], side_px: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One aerial scene; arguments and result as `tinyyolo.datasets.drawn.toy.draw_scene`."""
    odds = np.array([share for share, _ in THEMES.values()])
    theme = list(THEMES)[rng.choice(len(THEMES), p=odds / odds.sum())]
    scene = Scene(rng, size, side_px)
    theme(scene)
    placed = settle(scene, THEMES[theme][1], int(rng.integers(objects[0], objects[1] + 1)))
    grain = banded(1 + 0.03 * noise(rng, size, 6, 3))
    image = cv2.convertScaleAbs(shadow(scene.image * np.float32(grain), scene.shade))
    image = scene.raise_tops(image).astype(np.float32)
    image = wakes(scene, placed, image)
    image = shadow(image, cast_all(scene, placed))
    for _, sprite in placed:
        image[sprite.window] = image[sprite.window] * (1 - sprite.alpha[..., None]) + sprite.colour
    boxes = np.array([sprite.box for _, sprite in placed]).reshape(-1, 4)
    labels = np.array([slot.label for slot, _ in placed], dtype=np.int64)
    return sensor(rng, image), boxes, labels
