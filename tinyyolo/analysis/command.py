"""`tinyyolo analyze`: numbers and pictures about assignment and similarity, without training."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyyolo.analysis.assignment import Scene, bin_names, count_positives, gather, scenes_of, sizes_of
from tinyyolo.analysis.similarity import shift_curves, worked_example
from tinyyolo.analysis.words import example_in_words, in_words
from tinyyolo.boxes.anchors import auto_constant
from tinyyolo.boxes.similarity import CONSTANT
from tinyyolo.config import UserError, suggest
from tinyyolo.datasets import spec
from tinyyolo.datasets.formats import coco as coco_json
from tinyyolo.io import new_file


def analyze(
    *words: str,
    data: str | None = None,
    split: str = "val",
    model: str | Sequence[str] = "faster-rcnn-r50-nwdrka.yaml",
    assigners: str | Sequence[str] | Mapping[str, Any] | None = None,
    constant: float | str = CONSTANT,
    imgsz: int | None = None,
    figures: bool = True,
    out: str = "runs/analyze",
    **overrides: Any,
) -> None:
    """Show what assigners do with your boxes: tinyyolo analyze data.yaml, or a COCO JSON; alone: the similarities.

    Prints positives for each object by size (the paper's Fig. 8), objects that get none and which anchors are taken,
    and writes these, similarity under a shift (Fig. 2) and the worked example (Fig. 1) to `analyze.json` and PNGs.
    Needs annotations only, no images.

    Args:
        words: the data, if not given as `data=`.
        data: a data YAML by path or name, or a COCO JSON.
        split: of a data YAML.
        model: model YAML whose anchors are taken; of several each adds its own assigner with its own anchors.
        assigners: any of max-iou, max-nwd, max-dotd, nwd-rka, iou-rka, atss, or {name: {type: ..., ...}} as in a model
            YAML; by default max-iou, max-nwd, nwd-rka, and the model's own where it differs.
        constant: C of NWD and DotD in px; auto is the mean size of the objects.
        imgsz: size of the network input to scale images to; by default they stay as they are.
        figures: draw the PNGs.
        out: folder of the files.
        overrides: dotted keys of the models, such as head.anchors=auto, which fits anchors to these objects.

    Raises:
        UserError: no such data, model, assigner or key, or a wrong value.
    """
    for key in overrides:
        if "." not in key:
            raise UserError(f"{key}: analyze has no such key; {suggest(key, inspect.signature(analyze).parameters)}")
    data = chosen_data(words, data)
    scenes = list(read_scenes(data, split, imgsz)) if data else []
    report: dict[str, Any] = {"data": data, "split": split, "imgsz": imgsz, "constant": resolve(constant, scenes)}
    if scenes:
        candidates = gather(model, assigners, report["constant"], overrides, sizes_of(scenes))
        report["images"], report["objects"] = len(scenes), sum(len(scene.boxes) for scene in scenes)
        report["sizes"] = bin_names()
        report["assigners"] = {name: count_positives(c, scenes) for name, c in candidates.items()}
        print(in_words(report))
    elif data:
        raise UserError(f"{data}: no image has objects")
    report["shift"] = shift_curves(constant=report["constant"])
    report["example"] = worked_example(constant=report["constant"])
    print(example_in_words(report["example"]))
    folder = Path(out)
    with new_file(folder / "analyze.json", overwrite=True) as stream:
        json.dump(report, stream, indent=1)
    print(f"numbers: {folder / 'analyze.json'}")
    if figures:
        from tinyyolo.plots import assign as plots_assign

        for path in plots_assign.draw(report, folder):
            print(f"figure: {path}")


def chosen_data(words: Sequence[str], data: str | None) -> str | None:
    """The data of the command line, given as a word or as `data=`."""
    given = [*words, *([] if data is None else [str(data)])]
    if len(given) > 1:
        raise UserError(f"analyze takes one data set, got {', '.join(given)}")
    return given[0] if given else None


def resolve(constant: float | str, scenes: Sequence[Scene]) -> float:
    """C in px: a number as it is, "auto" as the mean absolute size of the objects."""
    if constant == "auto":
        if not scenes:
            raise UserError("constant=auto needs data")
        return auto_constant(sizes_of(scenes))
    if isinstance(constant, bool) or not isinstance(constant, (int, float)) or not constant > 0:
        raise UserError(f"constant={constant}: expected a number of px > 0, or auto")
    return float(constant)


def read_scenes(data: str, split: str, imgsz: int | None) -> Iterator[Scene]:
    """Every image with objects, in network input pixels, boxes clipped to it.

    Raises:
        UserError: unreadable data, or imgsz no positive number.
    """
    if imgsz is not None and (isinstance(imgsz, bool) or not isinstance(imgsz, (int, float)) or not imgsz > 0):
        raise UserError(f"imgsz={imgsz}: expected a positive number of pixels")
    found = coco_json.read(data) if str(data).endswith(".json") else spec.load(data).read(split)
    return scenes_of(found, imgsz)
