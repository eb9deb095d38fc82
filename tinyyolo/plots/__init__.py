"""Figures and pictures from plain numbers; every function writes one image file and returns its path."""

from tinyyolo.plots.charts import ap_by_size, confusion_matrix, pr_curves, size_histogram, training_curves
from tinyyolo.plots.pictures import compare_images, label_mosaic

__all__ = [
    "ap_by_size",
    "compare_images",
    "confusion_matrix",
    "label_mosaic",
    "pr_curves",
    "size_histogram",
    "training_curves",
]
