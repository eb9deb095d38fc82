"""Where people are: yards, squares, sports grounds. Pieces of the school's scenes, and its grounds of all kinds."""

from __future__ import annotations

import numpy as np

from tinyyolo.datasets.drawn.aerial import SQUARE
from tinyyolo.datasets.drawn.ground import BUILT, CONCRETE, CYCLE, GROUND, PAVED, PERSON, Scene, banded, noise
from tinyyolo.datasets.drawn.objects import ellipse, pick, rectangle, turn
from tinyyolo.datasets.drawn.zones import ASPHALT, LINE, houses, lot, road, stones, trees

PEOPLE = (0.7, 1.7)  # log of how much nearer scenes of people are seen than others


def ground_of(scene: Scene) -> None:
    """Any ground: grown, bare, paved, or patches of all colours."""
    rng, kind = scene.rng, scene.rng.integers(6)
    scene.grow_ground(farmed=bool(kind == 0))
    if kind == 1:  # a desert, snow, or one colour
        base = rng.uniform(30, 235) + rng.normal(0, 14, 3)
        grain = noise(rng, scene.size, rng.uniform(10, 120), 4) * np.float32(rng.uniform(2, 14))
        scene.image = np.clip(np.float32(base) + banded(grain), 0, 255).astype(np.uint8)
    elif kind == 2:
        patches(scene)


def patches(scene: Scene) -> None:
    """Polygons of all colours and textures, edges everywhere: what is to be learnt as no object."""
    rng, size = scene.rng, scene.size
    for _ in range(int(rng.integers(8, 40))):
        radius = rng.uniform(0.03, 0.3) * size
        points = ellipse(0, 0, radius, radius * rng.uniform(0.2, 1), int(rng.integers(3, 8)))
        scene.fill(turn(points, rng.uniform(0, np.pi)) + rng.uniform(0, size, 2), rng.uniform(10, 245, 3))


def yard(scene: Scene) -> None:
    """A court, a square or a school yard: painted lines, masts, people in groups, bicycles, cars at its edge."""
    scene.come_nearer(float(scene.rng.uniform(*PEOPLE)))
    rng, size = scene.rng, scene.size
    ground_of(scene)
    centre, angle = rng.uniform(0.3, 0.7, 2) * size, scene.angle
    width, height = rng.uniform(0.5, 1.3, 2) * size
    scene.fill(turn(rectangle(-width / 2, width / 2, height / 2), angle) + centre, pick(rng, ASPHALT, 30), PAVED)
    line = pick(rng, np.vstack([LINE, LINE * 0.5, CONCRETE]))
    for _ in range(int(rng.integers(2, 9))):
        x, y = rng.uniform(-0.5, 0.5, 2) * (width, height)
        radius = rng.uniform(0.05, 0.2) * size
        shape = ellipse(x, y, radius, radius) if rng.random() < 0.5 else rectangle(x, x + 2 * radius, radius) + (0, y)
        scene.line(turn(np.vstack([shape, shape[:1]]), angle) + centre, line, rng.uniform(0.3, 0.8))
    road(scene, 1.8 * scene.car, angle + rng.choice(SQUARE), rng.uniform(-0.1, 0.1))
    if rng.random() < 0.6:
        lot(scene, 1, int(rng.integers(3, 8)), angle)
    masts(scene, scene.count(2, 12))
    houses(scene, int(rng.integers(0, 4)), (1.0, 0.8), (3.0, 2.0), gabled=0.3, turns=SQUARE)
    trees(scene, scene.count(5, 60))
    stones(scene, scene.count(2, 9), GROUND | PAVED)
    groups(scene, PERSON, scene.count(3, 12), scene.angle)
    groups(scene, CYCLE, scene.count(1, 5), None)


def pitch(scene: Scene) -> None:
    """A sports ground, a track or a path as a drone sees it aslant: plain surfaces, people who stand upright in the
    picture, alone and together, bicycles in rows, stands and fences.
    """
    scene.come_nearer(float(scene.rng.uniform(*PEOPLE)))
    rng, size = scene.rng, scene.size
    plain(scene)
    for _ in range(int(rng.integers(1, 4))):
        track(scene, rng.uniform(0.04, 0.22) * size)
    if rng.random() < 0.4:
        road(scene, 1.4 * scene.car, scene.angle, rng.uniform(-0.3, 0.3), rng.random() < 0.5)
    for _ in range(int(rng.integers(0, 4))):
        bars(scene)
    if rng.random() < 0.4:
        lot(scene, 1, int(rng.integers(2, 7)), scene.angle)
    masts(scene, scene.count(0, 6))
    houses(scene, int(rng.integers(0, 3)), (0.7, 0.6), (2.5, 1.6), gabled=0.3, turns=SQUARE)
    trees(scene, scene.count(3, 70))
    upright = -np.pi / 2 + rng.normal(0, 0.15) if rng.random() < 0.7 else scene.angle
    groups(scene, PERSON, scene.count(6, 24), upright if rng.random() < 0.85 else None)
    for _ in range(int(rng.integers(0, 4))):
        parked(scene)


def plain(scene: Scene) -> None:
    """One surface with little on it: turf, sand, tarmac, each almost even."""
    rng = scene.rng
    base = rng.uniform(50, 200) + rng.normal(0, 10, 3)
    grain = noise(rng, scene.size, rng.uniform(2, 30), 3) * rng.uniform(0.5, 6) + noise(rng, scene.size, 150, 2) * 8
    scene.image = np.clip(np.float32(base) + banded(np.float32(grain)), 0, 255).astype(np.uint8)


def track(scene: Scene, width: float) -> None:
    """A strip with pale edges from border to border, straight or bent."""
    rng, size = scene.rng, scene.size
    t = np.linspace(-1.2, 1.2, 60)[:, None]
    angle = rng.uniform(0, np.pi)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    path = rng.uniform(0.1, 0.9, 2) * size + along * t * size + across * t**2 * rng.normal(0, 0.4) * size
    edges = path + across * width / 2, path - across * width / 2
    scene.fill(np.vstack([edges[0], edges[1][::-1]]), pick(rng, np.vstack([ASPHALT, CONCRETE]), 25), PAVED)
    for edge in edges:
        scene.line(edge, pick(rng, np.vstack([LINE, CONCRETE]), 15), rng.uniform(0.3, 1))


def bars(scene: Scene) -> None:
    """Steps, benches, roof lights or panels: a block of thin bars side by side, none of them anything."""
    rng, length = scene.rng, scene.car * scene.rng.uniform(0.4, 2.0)
    at, angle, gap = rng.uniform(0, scene.size, 2), scene.angle + rng.choice(SQUARE), rng.uniform(2.5, 6)
    colour = pick(rng, np.vstack([ASPHALT * 0.5, LINE, CONCRETE]), 20)
    for k in range(int(rng.integers(2, 12))):
        bar = rectangle(-length / 2, length / 2, gap * 0.3) + (0, k * gap)
        scene.fill(turn(bar, angle) + at, colour, BUILT)


def parked(scene: Scene) -> None:
    """A row of bicycles, wheel by wheel."""
    rng, side = scene.rng, scene.side(CYCLE, 0.4)
    at, along, order = rng.uniform(0, scene.size, 2), rng.uniform(0, 2 * np.pi), rng.random()
    step = side * rng.uniform(0.5, 1.1) * np.array([np.cos(along), np.sin(along)])
    for k in range(int(rng.integers(3, 16))):
        lean = along + np.pi / 2 + rng.normal(0, 0.15)
        scene.add(CYCLE, at + k * step + rng.normal(0, 0.5, 2), lean, side * rng.uniform(0.9, 1.1), order)


def masts(scene: Scene, count: int) -> None:
    """Lamps, hoops and poles, seen aslant with arms: thin and bright or dark, no people."""
    rng = scene.rng
    for _ in range(count):
        at, length = rng.uniform(0, scene.size, 2), scene.car * rng.uniform(0.2, 1.2)
        colour = pick(rng, np.vstack([LINE, ASPHALT * 0.4]))
        scene.stand(turn(rectangle(0, length, max(0.03 * scene.car, 0.5)), scene.angle) + at, colour)
        for side in (-1, 1) if rng.random() < 0.5 else (1,):
            scene.stand(turn(rectangle(0, length * 0.5, 0.5), scene.angle + side * np.pi / 2) + at, colour)


def groups(scene: Scene, label: int, count: int, upright: float | None) -> None:
    """Small groups of one class on any ground but roofs and water; `upright` is the way they all stand."""
    rng = scene.rng
    for _ in range(count):
        heart, side = rng.uniform(0, scene.size, 2), scene.side(label, 0.5)
        spread, order = side * rng.uniform(0.8, 3), rng.random()
        for _ in range(int(rng.integers(1, 9))):
            angle = rng.uniform(0, 2 * np.pi) if upright is None else upright + rng.normal(0, 0.12)
            scene.add(label, heart + rng.normal(0, spread, 2), angle, side * rng.uniform(0.8, 1.15), order)
