"""Which class was taken for which."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyyolo.evaluation.errors import CONFUSION, HIDDEN, IGNORED, MISSED, TRUE, Errors


def confusion_counts(errors: Errors) -> np.ndarray:
    """Objects by class (rows) against what they were detected as (columns), as `plots.confusion_matrix` draws it.

    Args:
        errors: verdicts of `find_errors`.

    Returns:
        (C + 1, C + 1) int64. Row C holds detections where nothing of any class is, column C objects that nothing found.
        An object that was taken for another class counts there and not as missed.

    Examples:
        >>> from tinyyolo.evaluation.errors import find_errors
        >>> gt = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "ship"}, {"id": 2, "name": "car"}],
        ...       "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 6, 6], "area": 36, "iscrowd": 0}]}
        >>> dt = [{"image_id": 1, "category_id": 2, "bbox": [0, 0, 6, 6], "score": 0.9}]
        >>> confusion_counts(find_errors(gt, dt, threshold=0.5)).tolist()
        [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    """
    classes = len(errors.truth.names)
    counts = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    told = errors.detections.labels
    shown = ~np.isin(errors.verdict, (HIDDEN, IGNORED))
    paired = np.isin(errors.verdict, (TRUE, CONFUSION))
    add: Any = np.add.at
    add(counts, (errors.truth.labels[errors.partner[paired]], told[paired]), 1)
    add(counts, (classes, told[shown & ~paired]), 1)
    missed = errors.state == MISSED
    missed[errors.partner[errors.verdict == CONFUSION]] = False
    add(counts, (errors.truth.labels[missed], classes), 1)
    return counts
