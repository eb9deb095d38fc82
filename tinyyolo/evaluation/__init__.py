"""AI-TOD's and COCO's figures, what went wrong, and how two annotation sets agree."""

from tinyyolo.evaluation.metrics import AITOD, AITOD_MAX_DETS, COCO, COCO_MAX_DETS, IOU_THRESHOLDS, evaluate
from tinyyolo.evaluation.table import format_table, write_csv, write_json

__all__ = [
    "AITOD",
    "AITOD_MAX_DETS",
    "COCO",
    "COCO_MAX_DETS",
    "IOU_THRESHOLDS",
    "evaluate",
    "format_table",
    "write_csv",
    "write_json",
]
