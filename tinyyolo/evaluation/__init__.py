"""AI-TOD's and COCO's figures, what went wrong, and how two annotation sets agree. Needs numpy only."""

from tinyyolo.evaluation.agreement import compare
from tinyyolo.evaluation.errors import count_errors, find_errors, missed_labels, write_missed_labels
from tinyyolo.evaluation.metrics import AITOD_MAX_DETS, COCO_MAX_DETS, IOU_THRESHOLDS, evaluate
from tinyyolo.evaluation.report import write_pngs, write_report
from tinyyolo.evaluation.table import format_table, write_csv, write_json
from tinyyolo.sizes import AITOD, COCO

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
    "write_csv",
    "write_json",
    "write_missed_labels",
    "write_pngs",
    "write_report",
]
