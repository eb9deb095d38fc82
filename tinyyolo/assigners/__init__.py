"""Which anchor learns which object. An assigner is a class with `_assign` and one line in ASSIGNERS."""

from tinyyolo.assigners.assignment import IGNORE, NEGATIVE, Assignment
from tinyyolo.assigners.atss import ATSSAssigner
from tinyyolo.assigners.base import Assigner
from tinyyolo.assigners.cells import CellAssigner
from tinyyolo.assigners.hierarchical import HierarchicalAssigner
from tinyyolo.assigners.ranking import RankingAssigner
from tinyyolo.assigners.samplers import RandomSampler
from tinyyolo.assigners.shape import ShapeAssigner
from tinyyolo.assigners.threshold import ThresholdAssigner

ASSIGNERS = {"ranking": RankingAssigner, "threshold": ThresholdAssigner, "atss": ATSSAssigner, "shape": ShapeAssigner}
ASSIGNERS |= {"cells": CellAssigner, "hierarchical": HierarchicalAssigner}

__all__ = [
    "ASSIGNERS",
    "IGNORE",
    "NEGATIVE",
    "ATSSAssigner",
    "Assigner",
    "Assignment",
    "CellAssigner",
    "HierarchicalAssigner",
    "RandomSampler",
    "RankingAssigner",
    "ShapeAssigner",
    "ThresholdAssigner",
]
