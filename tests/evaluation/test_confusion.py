"""Counts of the confusion matrix against a hand-made scene."""

import numpy as np
import pytest

from tinyyolo.evaluation.confusion import confusion_counts
from tinyyolo.evaluation.errors import find_errors

SHIP, CAR = 1, 2
GT = {
    "images": [{"id": 1}],
    "categories": [{"id": SHIP, "name": "ship"}, {"id": CAR, "name": "car"}],
    "annotations": [
        {"id": i + 1, "image_id": 1, "category_id": c, "bbox": [20 * i, 0, 8, 8], "area": 64, "iscrowd": 0}
        for i, c in enumerate([SHIP, SHIP, CAR])
    ],
}


def found(*rows):
    return [{"image_id": 1, "category_id": c, "bbox": [x, 0, 8, 8], "score": s} for c, x, s in rows]


@pytest.mark.parametrize(
    ("dt", "expected"),
    [
        (found(), [[0, 0, 2], [0, 0, 1], [0, 0, 0]]),
        (found((SHIP, 0, 0.9), (SHIP, 20, 0.9), (CAR, 40, 0.9)), [[2, 0, 0], [0, 1, 0], [0, 0, 0]]),
        (found((SHIP, 0, 0.9), (CAR, 20, 0.9), (CAR, 90, 0.9)), [[1, 1, 0], [0, 0, 1], [0, 1, 0]]),
        (found((SHIP, 0, 0.1)), [[0, 0, 2], [0, 0, 1], [0, 0, 0]]),
    ],
    ids=["nothing", "all right", "confused and background", "below the threshold"],
)
def test_counts(dt, expected):
    np.testing.assert_array_equal(confusion_counts(find_errors(GT, dt, threshold=0.5)), expected)
