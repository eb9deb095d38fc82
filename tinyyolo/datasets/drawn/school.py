"""The school: drawn scenes that a model learns from before it sees a real picture. See docs/school.md."""

from __future__ import annotations

import numpy as np

from tinyyolo.datasets.drawn import aerial
from tinyyolo.datasets.drawn.aerial import cast_all, settle, shadow, wakes
from tinyyolo.datasets.drawn.ground import (
    BRIDGE,
    CYCLE,
    GROUND,
    MILL,
    PERSON,
    PLANE,
    POOL,
    SEA,
    SHIP,
    TANK,
    THING,
    VEHICLE,
    WATER,
    Scene,
    banded,
    noise,
)
from tinyyolo.datasets.drawn.looks import seen
from tinyyolo.datasets.drawn.objects import ellipse, pick
from tinyyolo.datasets.drawn.people import ground_of, groups, patches, pitch, yard
from tinyyolo.datasets.drawn.zones import (
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

NAMES = (  # AI-TOD's, and two more; by the labels of `ground`
    "vehicle",
    "ship",
    "airplane",
    "storage-tank",
    "person",
    "bicycle",
    "swimming-pool",
    "wind-mill",
    "bridge",
    "thing",
)
BOUNDS = (2.0, 44.0)  # px, side of a box
BARS = 0.06  # share of the pictures with a margin that holds nothing
WARM = 0.7  # share of the thermal pictures where a drone looks for people
EMPTY = 0.06  # share of the scenes without one object


def open_sea(scene: Scene) -> None:
    """Nothing but water, waves and ships, foam and rocks that are none."""
    rng, size = scene.rng, scene.size
    deep = pick(rng, SEA, 14)
    wave = rng.uniform(2, 16) * noise(rng, size, rng.uniform(4, 40), 3) + 6 * noise(rng, size, 120, 2)
    scene.image = np.clip(np.float32(deep) + banded(wave), 0, 255).astype(np.uint8)
    scene.kind[:] = WATER
    stones(scene, scene.count(2, 14), WATER)
    for _ in range(scene.count(0, 14)):
        ring = ellipse(0, 0, rng.uniform(1, 4), rng.uniform(0.6, 1.5), 9) + rng.uniform(0, size, 2)
        scene.fill(ring, np.full(3, rng.uniform(120, 235)))
    free_places(scene, SHIP, WATER, scene.count(30, 60))


def farmland(scene: Scene) -> None:
    """Fields, a stream with bridges, wind turbines, farms with pools, a road."""
    rng = scene.rng
    scene.grow_ground(farmed=True)
    stream(scene)
    road(scene, 1.5 * scene.car, rng.uniform(0, np.pi), rng.uniform(-0.3, 0.3), rng.random() < 0.6)
    houses(scene, scene.count(3, 10), (1.6, 1.4), (4, 2.5), gabled=0.8, turns=rng.uniform(0, np.pi, 4).tolist())
    round_things(scene, scene.count(2, 10))
    trees(scene, scene.count(20, 120))
    stones(scene, scene.count(3, 10), GROUND | WATER)
    free_places(scene, MILL, GROUND, scene.count(10, 20))
    free_places(scene, POOL, GROUND, scene.count(10, 20))


def stream(scene: Scene) -> None:
    """A narrow river from border to border, with places for bridges across it."""
    rng, size = scene.rng, scene.size
    side = scene.side(BRIDGE, 0.4)
    angle, width = rng.uniform(0, np.pi), side * rng.uniform(0.6, 0.8)
    along = np.array([np.cos(angle), np.sin(angle)])
    t = np.linspace(-1, 1, size)[:, None]
    bend = np.sin(t * rng.uniform(2, 7) + rng.uniform(0, 6)) * rng.uniform(0.01, 0.06) * size
    path = rng.uniform(0.25, 0.75, 2) * size + along * t * size * 1.2 + np.array([-along[1], along[0]]) * bend
    normal = np.gradient(path, axis=0)[:, ::-1] * (-1, 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    scene.fill(np.vstack([path + normal * width / 2, (path - normal * width / 2)[::-1]]), pick(rng, SEA, 12), WATER)
    for k in rng.integers(0, len(path), 14):
        cross = float(np.arctan2(normal[k, 1], normal[k, 0]))
        scene.add(BRIDGE, path[k], cross + rng.normal(0, 0.15), side * rng.uniform(0.9, 1.2))


def suburb(scene: Scene) -> None:
    """Houses with pools, cars before them, streets, people on foot."""
    rng = scene.rng
    aerial.town(scene)
    free_places(scene, POOL, GROUND, scene.count(12, 24))
    groups(scene, PERSON, scene.count(1, 5), None)
    lot(scene, int(rng.integers(1, 3)), int(rng.integers(5, 13)), scene.angle)


def nonsense(scene: Scene) -> None:
    """Patches, lines, look-alikes of everything, and things in rows and heaps: shape alone tells what counts."""
    rng, size = scene.rng, scene.size
    ground_of(scene)
    patches(scene)
    for _ in range(int(rng.integers(0, 30))):
        points = rng.uniform(0, size, (2, 2)) if rng.random() < 0.5 else rng.uniform(0, size, (4, 2))
        scene.line(points, rng.uniform(0, 255, 3), rng.uniform(0.3, 1))
    stones(scene, scene.count(4, 20), GROUND)
    round_things(scene, scene.count(4, 14))
    if rng.random() < 0.5:
        containers(scene, scene.count(1, 4))
    for label in rng.choice([THING, THING, VEHICLE, PLANE, TANK, PERSON, MILL], 3):
        groups(scene, int(label), scene.count(2, 8), None)


def port(scene: Scene) -> None:
    """The toy set's harbour on another ground, with more jetties."""
    aerial.harbour(scene)
    for _ in range(scene.count(1, 4)):
        jetty(scene)


def works(scene: Scene) -> None:
    """The toy set's industry with another yard."""
    aerial.industry(scene)
    tank_yard(scene, int(scene.rng.integers(1, 4)), int(scene.rng.integers(2, 6)), scene.angle)


THEMES = {  # how often; what the objects are
    yard: (0.16, {PERSON: 0.5, CYCLE: 0.15, VEHICLE: 0.35}),
    pitch: (0.24, {PERSON: 0.6, CYCLE: 0.25, VEHICLE: 0.15}),
    suburb: (0.13, {VEHICLE: 0.7, POOL: 0.18, PERSON: 0.12}),
    aerial.airport: (0.15, {PLANE: 0.7, VEHICLE: 0.3}),
    port: (0.09, {SHIP: 0.6, VEHICLE: 0.2, TANK: 0.2}),
    works: (0.08, {TANK: 0.55, VEHICLE: 0.45}),
    farmland: (0.08, {MILL: 0.25, POOL: 0.2, BRIDGE: 0.2, VEHICLE: 0.35}),
    open_sea: (0.05, {SHIP: 1.0}),
    nonsense: (0.1, {THING: 0.55, VEHICLE: 0.15, PLANE: 0.15, TANK: 0.05, PERSON: 0.05, MILL: 0.05}),
}


def draw_school(
    rng: np.random.Generator, size: int, objects: tuple[int, int], side_px: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One scene of the school; arguments and result as `tinyyolo.datasets.drawn.toy.draw_scene`."""
    odds = np.array([share for share, _ in THEMES.values()])
    theme = list(THEMES)[rng.choice(len(THEMES), p=odds / odds.sum())]
    scene = Scene(rng, size, side_px, BOUNDS)
    theme(scene)
    count = 0 if rng.random() < EMPTY else int(rng.integers(objects[0], objects[1] + 1))
    placed = settle(scene, THEMES[theme][1], count)
    image = shadow(np.float32(scene.image) * banded(1 + 0.03 * noise(rng, size, 6, 3)), scene.shade)
    image = np.float32(scene.raise_tops(np.clip(image, 0, 255).astype(np.uint8)))
    image = shadow(wakes(scene, placed, image), cast_all(scene, placed))
    living = [slot.label == PERSON for slot, _ in placed]
    odds_of_heat = WARM if theme is pitch else None
    picture = seen(rng, image, [sprite for _, sprite in placed], scene, living, odds_of_heat)
    boxes = np.array([sprite.box for _, sprite in placed]).reshape(-1, 4)
    labels = np.array([slot.label for slot, _ in placed], dtype=np.int64)
    return barred(rng, picture, boxes, labels) if rng.random() < BARS else (picture, boxes, labels)


def barred(
    rng: np.random.Generator, picture: np.ndarray, boxes: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The picture with a margin of nothing on one side, as at the edge of a scene; objects under it are gone."""
    size, out = picture.shape[0], picture.copy()
    edge, axis = int(rng.uniform(0.1, 0.5) * size), int(rng.integers(2))
    low = bool(rng.random() < 0.5)
    part = slice(0, edge) if low else slice(size - edge, size)
    out[(part, slice(None)) if axis else (slice(None), part)] = rng.choice([0, 0, 114, 255])
    stay = boxes[:, axis] >= edge if low else boxes[:, axis + 2] <= size - edge
    return out, boxes[stay], labels[stay]
