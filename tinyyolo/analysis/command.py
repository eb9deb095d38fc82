"""`tinyyolo analyze`: numbers and pictures about assignment and similarity, without training."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tinyyolo.analysis.assignment import SIZE_NAMES, count_positives, gather, scenes_of
from tinyyolo.analysis.similarity import shift_curves, worked_example
from tinyyolo.analysis.words import example_in_words, in_words
from tinyyolo.boxes.anchors import auto_constant
from tinyyolo.boxes.convert import sides
from tinyyolo.boxes.similarity import CONSTANT
from tinyyolo.config import UserError, above, suggest
from tinyyolo.datasets import spec
from tinyyolo.datasets.audit.faults import tell_doubts
from tinyyolo.datasets.formats import coco as coco_json
from tinyyolo.io import write_json
from tinyyolo.plots.assign import draw


def analyze(
    *words: str,
    data: str | None = None,
    split: str = "val",
    model: str | Sequence[str] = "faster-rcnn-r50-nwdrka.yaml",
    assigners: str | Sequence[str] | Mapping[str, Any] | None = None,
    constant: float | str = CONSTANT,
    imgsz: int | None = None,
    figures: bool = True,
    out: str | Path = "runs/analyze",
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
        assigners: any of max-iou, max-nwd, max-dotd, nwd-rka, iou-rka, atss, rfla, rfla-wd, simd, or
            {name: {type: ..., ...}} as in a model YAML; by default max-iou, max-nwd, nwd-rka, and the model's own where
            it differs.
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
    given = [*map(str, words), *([] if data is None else [str(data)])]
    if len(given) > 1:
        raise UserError(f"analyze takes one data set, got {', '.join(given)}")
    data = given[0] if given else None
    if constant == "auto" and not data:
        raise UserError("constant=auto needs data")
    numbers = ({} if imgsz is None else {"imgsz": imgsz}) | ({} if constant == "auto" else {"constant": constant})
    try:
        above(0, **numbers)
    except ValueError as error:
        raise UserError(f"{error} px{', or auto' if str(error).startswith('constant') else ''}") from error
    report: dict[str, Any] = {"data": data, "split": split, "imgsz": imgsz, "constant": constant}
    if data:
        found = coco_json.read(data) if data.endswith(".json") else spec.load(data).measured(split)
        tell_doubts(found)
        scenes = list(scenes_of(found, imgsz))
        if not scenes:
            raise UserError(f"{data}: no image has objects")
        wh = torch.cat([sides(scene.boxes) for scene in scenes])
        places = [(scene.size_hw, scene.boxes) for scene in scenes]
        report["constant"] = auto_constant(wh) if constant == "auto" else constant
        candidates = gather(model, assigners, report["constant"], overrides, wh, places)
        report |= {"images": len(scenes), "objects": len(wh), "sizes": SIZE_NAMES}
        report["assigners"] = {name: count_positives(c, scenes) for name, c in candidates.items()}
        print(in_words(report))
    report["shift"] = shift_curves(constant=report["constant"])
    report["example"] = worked_example(constant=report["constant"])
    print(example_in_words(report["example"]))
    folder = Path(out)
    write_json(folder / "analyze.json", report)
    print(f"numbers: {folder / 'analyze.json'}")
    if figures:
        for path in draw(report, folder):
            print(f"figure: {path}")
