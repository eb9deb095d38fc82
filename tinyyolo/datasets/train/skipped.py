"""What a run had to leave out: said again at its end, and kept in its folder."""

from __future__ import annotations

from pathlib import Path

from ultralytics.utils import LOGGER

from tinyyolo import ranks, together
from tinyyolo.datasets.train.dataset import MAX_LISTED, TinyDataset
from tinyyolo.io import counted, new_file, some

SKIPPED = "skipped.txt"  # in a run's folder


def report_left_out(dataset: TinyDataset) -> None:
    """Say again at the end what a split lacks: the list at the start is far up by then."""
    counts = {"unreadable images": len(dataset.bad_images), "annotation problems": len(dataset.problems)}
    if words := counted(counts):
        LOGGER.warning(f"left out of split '{dataset.split}', listed above: {words}")


def keep_skipped(dataset: TinyDataset, folder: Path) -> None:
    """Add the images that a run had to skip to a file in its folder, each once; a resumed run adds to it."""
    if not ranks.first():
        return  # the first process hears of it
    file = folder / SKIPPED
    old = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    lines = list(dict.fromkeys([*old, *(f"{dataset.im_files[i]}: {fault}" for i, fault in dataset.lost.items())]))
    if lines != old:
        with new_file(file, overwrite=True) as stream:
            stream.write("\n".join([*lines, ""]))


def keep_skipped_of_all(dataset: TinyDataset, folder: Path) -> None:
    """As `keep_skipped`, with what every process of the run had to skip."""
    for lost in together.gathered(dataset.lost):
        for i, fault in lost.items():
            dataset.lost.setdefault(i, fault)
    keep_skipped(dataset, folder)


def report_skipped(folder: Path) -> None:
    """Say in one line which images a run had to skip."""
    if (file := folder / SKIPPED).exists():
        lines = file.read_text(encoding="utf-8").splitlines()
        words = "; ".join(some(lines, MAX_LISTED, ""))
        LOGGER.warning(f"{len(lines):,} images skipped, as they could not be read during the run, see {file}: {words}")
