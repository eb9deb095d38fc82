"""What the engine is told of a data YAML, and the part of a split that a run looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinyyolo.datasets import spec as data_yaml
from tinyyolo.datasets.annotations import Annotations, subset
from tinyyolo.datasets.spec import DataSpec


def data_dict(name: str | DataSpec) -> dict[str, Any]:
    """What the engine wants to know of a data YAML; `spec` is what our datasets use.

    Raises:
        UserError: no such YAML, or a fault in it.
    """
    spec = data_yaml.load(name)
    return {
        **{split: split for split in spec.splits},
        "val": "val" if "val" in spec.splits else next(iter(spec.splits)),
        "names": spec.names,
        "nc": len(spec.names),
        "channels": 3,
        "path": spec.path,
        "yaml_file": str(spec.file),
        "spec": spec,
    }


def of_classes(annotations: Annotations, classes: Sequence[int]) -> Annotations:
    """The objects of some classes, counted anew from 0, and every ignore region; the other classes are gone.

    Args:
        annotations: of all classes.
        classes: indices.
    """
    order = np.array(sorted(classes), np.int64)
    part = subset(annotations, boxes=(annotations.labels < 0) | np.isin(annotations.labels, order))
    return replace(
        part,
        names={new: annotations.names[old] for new, old in enumerate(order.tolist())},
        category_ids=annotations.category_ids[order],
        labels=np.where(part.labels < 0, part.labels, np.searchsorted(order, part.labels)),
    )
