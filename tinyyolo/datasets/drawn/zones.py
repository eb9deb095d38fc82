"""What stands in an aerial scene: streets, car parks, houses, trees, aprons, tank farms, jetties, and things that only
look like objects. Each function draws into a scene and offers places for objects in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyyolo.datasets.drawn.ground import BUILT, CONCRETE, GROUND, PAVED, PLANE, ROAD, SHIP, TANK, VEHICLE, Scene
from tinyyolo.datasets.drawn.objects import ellipse, pick, rectangle, shade, turn

Span = tuple[float, float]

CAR_WIDTH = 0.45  # of its length
CROWD_FIRST = 0.4  # a crowd's turn is earlier than that of most single places
CROWD_GAP = 1.3  # px, at least, between parked things
ASPHALT = np.array([(96, 94, 92), (118, 116, 114), (134, 134, 132)], dtype=np.float64)
ROOFS = np.array(
    [(72, 90, 158), (86, 104, 150), (120, 120, 122), (160, 160, 158), (208, 210, 210), (96, 84, 80), (110, 126, 116)],
    dtype=np.float64,
)
BOXES = np.array([(70, 80, 170), (150, 100, 60), (80, 125, 80), (60, 130, 195), (190, 190, 188)], dtype=np.float64)
PATHS = np.vstack([CONCRETE, [(120, 140, 156), (108, 128, 146)]])
LEAVES = np.array([(34, 66, 48), (40, 74, 60), (30, 56, 40), (48, 82, 74)], dtype=np.float64)
LINE = np.array((212.0, 216.0, 216.0))
YELLOW = np.array((60.0, 170.0, 205.0))


def road(scene: Scene, width: float, angle: float, bend: float, markings: bool = True) -> None:
    """A road from border to border with edge lines, a dashed middle, and places for cars on both lanes."""
    rng, size = scene.rng, scene.size
    along = np.array([np.cos(angle), np.sin(angle)])
    middle = rng.uniform(0.15, 0.85, 2) * size
    ends = middle - along * size * 1.2, middle + along * size * 1.2
    control = middle + np.array([-along[1], along[0]]) * bend * size
    t = np.linspace(0, 1, int(size * 2.4))[:, None]
    path = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * control + t**2 * ends[1]
    normal = np.gradient(path, axis=0)[:, ::-1] * (-1, 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)

    def band(half: float) -> np.ndarray:
        return np.vstack([path + normal * half, (path - normal * half)[::-1]])

    scene.fill(band(width / 2 + 2.5), pick(rng, CONCRETE), GROUND)
    scene.fill(band(width / 2), pick(rng, ASPHALT), ROAD)
    if markings:
        for edge in (-1, 1):
            scene.line(path + normal * edge * (width / 2 - 1.5), LINE, 0.45)
        dash = max(int(scene.car * 0.8), 4)
        for start in range(0, len(path) - dash, 2 * dash):
            scene.line(path[start : start + dash], LINE, 0.7)
    middles = np.column_stack([path, np.full(len(path), width / 2)])
    scene.streets = np.vstack([scene.streets, middles[::4]])
    heading = np.arctan2(-normal[:, 0], normal[:, 1])
    step = int(scene.car * 2.2)
    for lane in (-1, 1):
        for k in range(int(rng.integers(step)), len(path), step):
            at = path[k] + normal[k] * lane * width * rng.uniform(0.22, 0.27)
            flip = np.pi if lane < 0 else 0.0
            scene.add(VEHICLE, at, heading[k] + flip + rng.normal(0, 0.03), scene.side(VEHICLE, 0.5))


def drive(scene: Scene, start: np.ndarray, width: float, colours: np.ndarray) -> None:
    """A way from `start` to the nearest street, unless something is in between."""
    if len(scene.streets) == 0:
        return
    nearest = np.argmin(np.linalg.norm(scene.streets[:, :2] - start, axis=1))
    way, half = scene.streets[nearest, :2] - start, scene.streets[nearest, 2]
    strip = turn(rectangle(0, max(np.linalg.norm(way) - half, 1), width / 2), np.arctan2(way[1], way[0])) + start
    if scene.free(strip, GROUND | ROAD):
        scene.fill(strip, pick(scene.rng, colours))


def lot(scene: Scene, rows: int, bays: int, angle: float) -> None:
    """A car park: rows of bays with lines, most of them taken; the crowd of the set."""
    rng, side = scene.rng, scene.side(VEHICLE, 0.3)
    c, s = np.abs([np.cos(angle), np.sin(angle)])
    length = side / np.sqrt((c + CAR_WIDTH * s) * (s + CAR_WIDTH * c))
    bay = max(0.62 * length, 1.06 * CAR_WIDTH * length + CROWD_GAP)
    depth, aisle = 1.15 * length, 1.2 * length
    width, height = bays * bay + length, rows * depth + ((rows + 1) // 2) * aisle
    centre = scene.spot(width, height, angle)
    if centre is None:
        return
    drive(scene, centre, 0.8 * length, ASPHALT)
    scene.fill(turn(rectangle(-width / 2, width / 2, height / 2), angle) + centre, pick(rng, ASPHALT), PAVED)
    top, order = -height / 2, rng.random() * CROWD_FIRST
    for row in range(rows):
        top += aisle if row % 2 == 0 else 0
        y0, y1 = top, top + depth
        top = y1
        for bay_index in range(bays + 1):
            x = -bays * bay / 2 + bay_index * bay
            scene.line(turn(np.array([(x, y0), (x, y1)]), angle) + centre, LINE, 0.45)
            if bay_index < bays and rng.random() < 0.85:
                local = np.array([[x + bay / 2, (y0 + y1) / 2 + rng.normal(0, 0.05 * length)]])
                flip = rng.choice([np.pi / 2, -np.pi / 2])
                scene.add(VEHICLE, turn(local, angle)[0] + centre, angle + flip, side * rng.uniform(0.94, 1.04), order)


def roof(scene: Scene, width: float, depth: float, angle: float, gable: bool) -> None:
    """A building: gabled with a lit and a dark half, or flat with a rim, vents and plant on it."""
    rng = scene.rng
    centre = scene.spot(width + 3, depth + 3, angle)
    if centre is None:
        return
    drive(scene, centre, 0.5 * scene.car, PATHS)
    colour, height = pick(rng, ROOFS), rng.uniform(0.35, 0.9) * scene.car

    def part(x0: float, x1: float, y0: float, y1: float) -> np.ndarray:
        return np.asarray(turn(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), angle) + centre)

    w, d = width / 2, depth / 2
    scene.stand(part(-w, w, -d, d), colour, height)
    if gable:
        lit = turn(scene.light[None], -angle)[0, 1]
        scene.stand(part(-w, w, -d, 0), shade(colour, (1 - 0.2 * lit)))
        scene.stand(part(-w, w, 0, d), shade(colour, (1 + 0.2 * lit)))
        scene.stand(part(-w, w, -0.4, 0.4), shade(colour, 1.15))
        return
    scene.stand(part(-w + 1, w - 1, -d + 1, d - 1), colour * rng.uniform(0.86, 0.95))
    for x in np.arange(-w + 6, w - 4, rng.uniform(6, 14)):
        scene.stand(part(x, x + 0.5, -d + 1, d - 1), colour * 0.84)
    for _ in range(int(rng.integers(0, 6))):
        x, y = rng.uniform(-0.8, 0.8, 2) * (w, d)
        a, b = rng.uniform(1, 0.2 * scene.car + 1.5, 2)
        shift = turn(-scene.light[None] * 1.2, -angle)[0]
        scene.stand(part(x - a + shift[0], x + a + shift[0], y - b + shift[1], y + b + shift[1]), colour * 0.5)
        scene.stand(part(x - a, x + a, y - b, y + b), pick(rng, ROOFS[2:5]))


def houses(scene: Scene, count: int, low: Span, high: Span, gabled: float, turns: Sequence[float] = (0.0,)) -> None:
    """Buildings from `low` to `high` (width, depth) in car lengths, a share of them gabled, turned by one of `turns`
    from the scene's direction.
    """
    for _ in range(count):
        width, depth = scene.car * scene.rng.uniform(low, high)
        roof(scene, width, depth, scene.angle + scene.rng.choice(turns), scene.rng.random() < gabled)


def trees(scene: Scene, count: int) -> None:
    """Trees, alone and in groups, lit from the sun's side."""
    rng = scene.rng
    heart = rng.uniform(0, scene.size, (max(count // 9, 1), 2))
    spread = rng.uniform(0.015, 0.07, len(heart)) * scene.size
    for index in range(count):
        group = index % len(heart)
        at = heart[group] + rng.normal(0, spread[group], 2)
        radius = scene.car * rng.uniform(0.22, 0.6)
        column, row = np.floor(at).astype(int)
        if not (min(column, row) >= 0 and max(column, row) < scene.size and scene.kind[row, column] == GROUND):
            continue
        ring = ellipse(0, 0, radius, radius, 14) * rng.uniform(0.82, 1.12, (14, 1))
        if not scene.free(ring + at, GROUND | BUILT):
            continue
        leaf = pick(rng, LEAVES, 6)
        scene.stand(ring + at, leaf, radius)
        scene.stand(ring * 0.7 + at + scene.light * radius * 0.22, leaf * 1.22)
        for _ in range(3):
            tuft = at + scene.light * radius * 0.25 + rng.normal(0, radius * 0.3, 2)
            scene.stand(ring * 0.25 + tuft, shade(leaf, rng.uniform(1.2, 1.6)))


def stones(scene: Scene, count: int, kinds: int) -> None:
    """Rocks on land or in water: irregular and grey, of the size of the objects."""
    rng = scene.rng
    for _ in range(count):
        radius = scene.car * rng.uniform(0.12, 0.45)
        ring = ellipse(0, 0, radius, radius * rng.uniform(0.5, 1), 9) * rng.uniform(0.65, 1.2, (9, 1))
        ring = turn(ring, rng.uniform(0, np.pi))
        at = scene.spot(2.4 * radius, 2.4 * radius, 0.0, kinds, tries=4)
        if at is None:
            continue
        grey = pick(rng, np.vstack([(112, 120, 126), (92, 104, 114), (138, 146, 150)]))
        scene.stand(ring + at, grey * 0.8, radius * 0.5)
        scene.stand(ring * 0.62 + at + scene.light * radius * 0.2, grey * 1.12)


def containers(scene: Scene, blocks: int) -> None:
    """Stacks of containers side by side: coloured boxes that are no vehicles."""
    rng = scene.rng
    length, width = 1.15 * scene.car, 0.42 * scene.car
    for _ in range(blocks):
        rows, columns, angle = int(rng.integers(2, 7)), int(rng.integers(1, 4)), scene.angle
        w, h = columns * (length + 0.8), rows * width
        centre = scene.spot(w + 3, h + 3, angle)
        if centre is None:
            continue
        scene.stand(turn(rectangle(-w / 2, w / 2, h / 2), angle) + centre, np.array((70.0, 70, 70)), 0.4 * scene.car)
        for row in range(rows):
            for column in range(columns):
                x, y = column * (length + 0.8) - w / 2, row * width - h / 2 + width / 2
                box = rectangle(x, x + length, width * 0.47) + (0, y)
                colour = pick(rng, BOXES, 12)
                scene.stand(turn(box, angle) + centre, colour)
                scene.stand(turn(rectangle(x, x + length, width * 0.06) + (0, y), angle) + centre, colour * 0.86)


def round_things(scene: Scene, count: int) -> None:
    """Bales, pools and bushes: round, but no tanks."""
    rng = scene.rng
    palette = np.array([(120, 170, 186), (176, 168, 92), (44, 84, 62), (70, 96, 110)], dtype=np.float64)
    for _ in range(count):
        radius = scene.car * rng.uniform(0.16, 0.34)
        at = scene.spot(2 * radius + 2, 2 * radius + 2, 0.0, tries=4)
        if at is not None:
            colour = pick(rng, palette)
            ring = ellipse(0, 0, radius, radius * rng.uniform(0.6, 1.0), 20)
            scene.stand(turn(ring, rng.uniform(0, np.pi)) + at, colour, radius * 0.4)
            scene.stand(turn(ring * 0.75, 0.3) + at, shade(colour, 1.08))


def apron(scene: Scene, share: float, angle: float) -> None:
    """A concrete apron with joints, a yellow taxi line and rows of parked planes."""
    rng, size = scene.rng, scene.size
    width, height = share * size, rng.uniform(0.35, 0.6) * size
    centre = rng.uniform(0.3, 0.7, 2) * size
    scene.fill(turn(rectangle(-width / 2, width / 2, height / 2), angle) + centre, pick(rng, CONCRETE), PAVED)
    joint = rng.uniform(9, 16)
    dark = np.array((120.0, 122, 124))
    for x in np.arange(-width / 2 + joint, width / 2, joint):
        scene.line(turn(np.array([(x, -height / 2), (x, height / 2)]), angle) + centre, dark, 0.25)
    for y in np.arange(-height / 2 + joint, height / 2, joint):
        scene.line(turn(np.array([(-width / 2, y), (width / 2, y)]), angle) + centre, dark, 0.25)
    taxi = rng.uniform(-0.12, 0.12) * height
    scene.line(turn(np.array([(-width / 2, taxi), (width / 2, taxi)]), angle) + centre, YELLOW, 0.8)
    for edge in (-1, 1):
        side = scene.side(PLANE, 0.6)
        pitch = 1.5 * side
        y = edge * (height / 2 - 0.85 * side)
        for x in np.arange(-width / 2 + pitch / 2, width / 2 - pitch / 2, pitch):
            at = turn(np.array([(x, y)]), angle)[0] + centre
            stand = np.array([(x, y), (x, taxi)])
            scene.line(turn(stand, angle) + centre, YELLOW, 0.6)
            nose = angle - edge * np.pi / 2 + (rng.normal(0, 0.06) if rng.random() < 0.9 else np.pi)
            scene.add(PLANE, at, nose, side * rng.uniform(0.85, 1.15))
            cart = at + turn(np.array([(pitch * 0.42, edge * side * 0.4)]), angle)[0]
            scene.add(VEHICLE, cart, angle + rng.uniform(0, np.pi), 0.8 * scene.side(VEHICLE, 0.5))
    for x in rng.uniform(-0.45, 0.45, 2) * width:
        at = turn(np.array([(x, taxi)]), angle)[0] + centre
        scene.add(PLANE, at, angle + rng.choice([0, np.pi]), scene.side(PLANE))


def tank_yard(scene: Scene, rows: int, columns: int, angle: float) -> None:
    """A tank farm: a paved yard with bunds, pipes and a grid of tanks of about one size."""
    rng, side = scene.rng, scene.side(TANK, 0.8)
    pitch = side * rng.uniform(1.3, 1.6) + 2
    width, height = columns * pitch, rows * pitch
    centre = scene.spot(width, height, angle)
    if centre is None:
        return
    drive(scene, centre, 0.8 * scene.car, ASPHALT)
    ground = pick(rng, np.vstack([CONCRETE * 0.9, (118, 140, 156), (110, 116, 120)]))
    scene.fill(turn(rectangle(-width / 2, width / 2, height / 2), angle) + centre, ground, PAVED)
    for row in range(rows + 1):
        y = row * pitch - height / 2
        scene.line(turn(np.array([(-width / 2, y), (width / 2, y)]), angle) + centre, LINE * 0.9, 0.5)
    for column in range(columns + 1):
        x = column * pitch - width / 2
        scene.line(turn(np.array([(x, -height / 2), (x, height / 2)]), angle) + centre, LINE * 0.6, 0.5)
    order = rng.random() * CROWD_FIRST
    for row in range(rows):
        for column in range(columns):
            local = np.array([[(column + 0.5) * pitch - width / 2, (row + 0.5) * pitch - height / 2]])
            if rng.random() < 0.9:
                scene.add(TANK, turn(local, angle)[0] + centre, 0.0, side * rng.uniform(0.88, 1.08), order)


def jetty(scene: Scene) -> None:
    """A jetty out into the water with boats moored along both sides: the crowd of the harbour."""
    rng = scene.rng
    shore = np.argwhere(np.abs(scene.depth) < 2)
    if len(shore) == 0:
        return
    start = shore[rng.integers(len(shore))][::-1] - scene.normal * 4
    angle = np.arctan2(scene.normal[1], scene.normal[0])
    length, half = rng.uniform(0.2, 0.4) * scene.size, max(0.12 * scene.car, 1.2)
    side = scene.side(SHIP, 0.5) * 0.8
    scene.stand(turn(rectangle(0, length, half), angle) + start, pick(rng, CONCRETE) * 0.85, 1.5)
    order = rng.random() * CROWD_FIRST
    for x in np.arange(10 + side, length - side / 2, side * 0.75 + CROWD_GAP):
        for edge in (-1, 1):
            if rng.random() < 0.8:
                at = turn(np.array([(x, edge * (half + side * 0.75))]), angle)[0] + start
                scene.add(SHIP, at, angle + edge * np.pi / 2, side * rng.uniform(0.85, 1.05), order)


def free_places(scene: Scene, label: int, kinds: int, count: int) -> None:
    """Places anywhere on these kinds of ground, at any angle; a ship may be under way."""
    rng = scene.rng
    rows, columns = np.nonzero(scene.kind & kinds)
    if len(rows) == 0:
        return
    course = rng.uniform(0, 2 * np.pi)
    for index in rng.integers(0, len(rows), count):
        at = np.array([columns[index], rows[index]]) + rng.uniform(0, 1, 2)
        angle = course + rng.normal(0, 0.5) if rng.random() < 0.6 else rng.uniform(0, 2 * np.pi)
        scene.add(label, at, angle, scene.side(label), moving=label == SHIP and rng.random() < 0.5)
