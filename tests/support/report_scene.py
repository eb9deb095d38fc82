"""A small set with every kind of error, and a run of the report on it."""

import json

import cv2
import numpy as np

from tinyyolo.analysis.report import report as report_command
from tinyyolo.evaluation.errors import BACKGROUND, CONFUSION, DUPLICATE, HIDDEN, IGNORED, LOCALISATION, TRUE

SHIP, CAR = 1, 2
COLOURS = {"TP": (0, 200, 83), "FP": (41, 121, 255), "FN": (255, 23, 68)}
SIDE = 96  # of the drawn images


def box(image, category, bbox, score=None, **more):
    record = {"image_id": image, "category_id": category, "bbox": bbox, **more}
    return record if score is None else {**record, "score": score}


OBJECTS = [
    box(1, SHIP, [10, 10, 8, 8]),
    box(1, SHIP, [40, 10, 12, 12]),
    box(1, CAR, [60, 60, 20, 20]),
    box(2, CAR, [10, 10, 7, 7]),
    box(2, SHIP, [60, 10, 30, 30], iscrowd=1),
]
FOUND_BOXES = [  # detection, verdict, object
    (box(1, SHIP, [10, 10, 8, 8], 0.9), TRUE, 0),
    (box(1, SHIP, [10, 11, 8, 8], 0.8), DUPLICATE, 0),
    (box(1, SHIP, [46, 10, 12, 12], 0.7), LOCALISATION, 1),
    (box(1, SHIP, [60, 60, 20, 18], 0.6), CONFUSION, 2),
    (box(1, CAR, [60, 60, 20, 20], 0.95), TRUE, 2),
    (box(1, CAR, [5, 70, 10, 10], 0.85), BACKGROUND, -1),
    (box(1, CAR, [80, 5, 10, 10], 0.2), HIDDEN, -1),
    (box(2, SHIP, [62, 12, 20, 20], 0.9), IGNORED, 4),
    (box(2, SHIP, [30, 70, 5, 5], 0.55), BACKGROUND, -1),
    (box(2, CAR, [10, 10, 7, 7], 0.1), HIDDEN, -1),
    (box(3, SHIP, [20, 20, 40, 40], 0.75), BACKGROUND, -1),
]
DETECTIONS = [record for record, *_ in FOUND_BOXES]
NAMES = {1: "first.png", 2: "second image.png", 3: "third.png", 4: "empty.png"}


def truth():
    return {
        "images": [{"id": i, "file_name": name, "width": SIDE, "height": SIDE} for i, name in NAMES.items()],
        "categories": [{"id": SHIP, "name": "ship"}, {"id": CAR, "name": "car"}],
        "annotations": [{"id": i, "iscrowd": 0, **record} for i, record in enumerate(OBJECTS, 1)],
    }


def pixel_of(image, y, x):
    """A colour that tells the place."""
    return 60 + x % 64, 60 + y % 64, 40 * image


def write_run(folder):
    """A run of the command on drawn images, as a user would have it."""
    (folder / "photos").mkdir()
    for image, name in NAMES.items():
        rows, columns = np.mgrid[:SIDE, :SIDE]
        picture = np.stack([*pixel_of(image, rows, columns)[:2], np.full((SIDE, SIDE), 40 * image)], -1)
        (folder / "photos" / name).write_bytes(cv2.imencode(".png", picture[..., ::-1].astype(np.uint8))[1].tobytes())
    (folder / "gt.json").write_text(json.dumps(truth()))
    (folder / "dt.json").write_text(json.dumps(DETECTIONS))
    given = {"gt": str(folder / "gt.json"), "dt": str(folder / "dt.json"), "images": str(folder / "photos")}
    report_command(**given, out=str(folder / "out"), threshold=0.5, pngs=2)
    report_command(**given, out=str(folder / "alone"), threshold=0.5, pngs=0, embed=True)
