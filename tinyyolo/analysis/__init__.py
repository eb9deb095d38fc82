"""Numbers about assignments and similarities; no training. The command is `analyze`."""

from tinyyolo.analysis.assignment import Candidate, Scene, count_positives, scenes_of
from tinyyolo.analysis.command import analyze
from tinyyolo.analysis.similarity import shift_curves, worked_example

__all__ = ["Candidate", "Scene", "analyze", "count_positives", "scenes_of", "shift_curves", "worked_example"]
