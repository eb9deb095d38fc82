"""What the scores of `conf=auto` are worth on images that did not choose them.

    tinyyolo val model=best.pt data=my.yaml split=val name=chose
    tinyyolo val model=best.pt data=my.yaml split=test name=unseen
    python benchmarks/thresholds.py val.json runs/chose/predictions.json test.json runs/unseen/predictions.json

Prints recall, precision, F1 and LRP (IoU .5; LRP as the mean of the classes) at .25, at the scores of `conf=auto` and
at those of the best F1, all chosen on the first pair of files, on both. `--few` instead draws some objects of each
class at a time, chooses with these alone, and prints the LRP of the second pair beside that by the score of all.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import numpy as np

from tinyyolo.datasets.annotations import Annotations, subset
from tinyyolo.detectors.postprocess import SHOWN_SCORE
from tinyyolo.evaluation import evaluate, find_errors, operating_scores
from tinyyolo.evaluation.detections import read_detections
from tinyyolo.evaluation.errors import CAUSES, TRUE
from tinyyolo.evaluation.inputs import read_truth

Pair = tuple[Annotations, Annotations]
DRAWS = 40
COUNTS = (2, 5, 10, 20, 40, 80)  # objects


def read(gt: str, dt: str, ignore: list[str]) -> Pair:
    """Objects and detections of a split."""
    truth = read_truth(gt, ignore)
    return truth, read_detections(dt, truth)


def objects_of(truth: Annotations) -> dict[str, int]:
    """How many objects each class has."""
    return {name: int((truth.labels == i).sum()) for i, name in truth.names.items()}


def counts_at(pair: Pair, scores: Mapping[str, float]) -> np.ndarray:
    """(C, 4) of each class: right, wrong, missed, and the sum of 1 - IoU of the right ones."""
    found = find_errors(*pair, threshold=dict(scores))
    labels, true = found.detections.labels, found.verdict == TRUE
    rows = []
    for k in found.truth.names:
        mine = labels == k
        right = int((mine & true).sum())
        wrong = int((mine & np.isin(found.verdict, list(CAUSES))).sum())
        rows.append((right, wrong, int((found.truth.labels == k).sum()) - right, (1 - found.iou[mine & true]).sum()))
    return np.array(rows)


def figures(counts: np.ndarray) -> list[float]:
    """Recall, precision and F1 of all, mean LRP of the classes that have objects."""
    right, wrong, missed, _ = counts.sum(axis=0)
    there = counts[counts[:, 0] + counts[:, 2] > 0]
    lrp = (2 * there[:, 3] + there[:, 1] + there[:, 2]) / there[:, :3].sum(axis=1)
    recall, precision = right / (right + missed), right / max(right + wrong, 1)
    return [recall, precision, 2 * right / (2 * right + wrong + missed), float(lrp.mean())]


def best_f1(pair: Pair, names: list[str]) -> dict[str, float]:
    """The score of each class at which its F1 is greatest."""
    grid = np.concatenate([np.arange(0.001, 0.1, 0.002), np.arange(0.1, 0.95, 0.01)])
    table = np.stack([counts_at(pair, dict.fromkeys(names, float(score))) for score in grid])
    f1 = 2 * table[..., 0] / np.maximum(2 * table[..., 0] + table[..., 1] + table[..., 2], 1)
    return {name: float(grid[i]) for name, i in zip(names, f1.argmax(axis=0), strict=True)}


def few(chose: Pair, unseen: Pair, rng: np.random.Generator) -> None:
    """LRP of each class by its own score from so many of its objects, and by that of all together from the same."""
    truth, detections = chose
    for k, name in truth.names.items():
        own_counts = np.bincount(truth.image_index[truth.labels == k], minlength=len(truth))
        for count in COUNTS:
            if own_counts.sum() < 2 * count:
                break
            lrp: dict[str, list[float]] = {"own": [], "all": []}
            for _ in range(DRAWS):
                order = rng.permutation(len(truth))
                kept = np.zeros(len(truth), bool)
                kept[order[: np.searchsorted(own_counts[order].cumsum(), count) + 1]] = True
                result = evaluate(subset(truth, kept), subset(detections, kept))
                score = {"own": result["per_class"][name]["threshold"], "all": result["threshold"]}
                for which, value in score.items():
                    at = counts_at(unseen, dict.fromkeys(truth.names.values(), value if value >= 0 else 1.0))[k]
                    lrp[which].append((2 * at[3] + at[1] + at[2]) / at[:3].sum())
            print(f"{name:14} {count:3} objects: own {np.mean(lrp['own']):.3f}, all {np.mean(lrp['all']):.3f}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs=4, metavar=("GT", "DT", "GT2", "DT2"))
    parser.add_argument("--ignore", nargs="*", default=[], help="classes that are ignore regions")
    parser.add_argument("--few", action="store_true")
    args = parser.parse_args()
    chose, unseen = (read(*args.files[i : i + 2], args.ignore) for i in (0, 2))
    if args.few:
        few(chose, unseen, np.random.default_rng(0))
        return
    names = list(chose[0].names.values())
    auto, common = operating_scores(evaluate(*chose), objects_of(chose[0]), names)
    rules = {".25": dict.fromkeys(names, SHOWN_SCORE), "auto": auto, "best F1": best_f1(chose, names)}
    print({name: round(score, 4) for name, score in auto.items()}, "of all together:", common)
    print("scores    split   recall precision    F1   LRP")
    for rule, scores in rules.items():
        for where, pair in {"chose": chose, "unseen": unseen}.items():
            recall, precision, f1, lrp = figures(counts_at(pair, scores))
            print(f"{rule:9} {where:7} {recall:6.3f} {precision:9.3f} {f1:5.3f} {lrp:5.3f}")


if __name__ == "__main__":
    main()
