"""AI-TOD's and COCO's figures, what went wrong, and how two annotation sets agree. Needs numpy and msgspec only.

What the figures alone do not need is imported on first use: a small set is scored in the time of the imports.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tinyyolo.evaluation.metrics import AITOD_MAX_DETS, COCO_MAX_DETS, IOU_THRESHOLDS, evaluate, operating_scores
from tinyyolo.sizes import AITOD, COCO

if TYPE_CHECKING:
    from tinyyolo.evaluation.agreement import compare
    from tinyyolo.evaluation.errors import count_errors, find_errors, missed_labels, write_missed_labels
    from tinyyolo.evaluation.report import write_pngs, write_report
    from tinyyolo.evaluation.table import format_table, write_csv, write_json

__all__ = [
    "AITOD",
    "AITOD_MAX_DETS",
    "COCO",
    "COCO_MAX_DETS",
    "IOU_THRESHOLDS",
    "compare",
    "count_errors",
    "evaluate",
    "find_errors",
    "format_table",
    "missed_labels",
    "operating_scores",
    "write_csv",
    "write_json",
    "write_missed_labels",
    "write_pngs",
    "write_report",
]
LATER = {
    "agreement": ("compare",),
    "errors": ("count_errors", "find_errors", "missed_labels", "write_missed_labels"),
    "report": ("write_pngs", "write_report"),
    "table": ("format_table", "write_csv", "write_json"),
}


def __getattr__(name: str) -> Any:
    """The functions of LATER."""
    for module, names in LATER.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
