"""Annotations of a data set, read from any format, checked, counted and converted."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`coco_json`, the name under which the reader of COCO JSON was documented first."""
    if name == "coco_json":
        from tinyyolo.datasets.formats import coco

        return coco
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
