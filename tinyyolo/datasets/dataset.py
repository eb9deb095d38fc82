"""The old place of TinyDataset, which scripts outside import."""

from tinyyolo.datasets.train.dataset import TinyDataset

__all__ = ["TinyDataset"]
