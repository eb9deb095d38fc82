"""`tinyyolo analyze`: numbers and pictures about assignment and similarity, without training."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tinyyolo.analysis.anchors import anchors_of, drawn_example, example_of
from tinyyolo.analysis.assignment import SIZE_NAMES, count_positives, gather, scenes_of
from tinyyolo.analysis.similarity import shift_curves, worked_example
from tinyyolo.analysis.words import example_in_words, in_words
from tinyyolo.boxes.anchors import auto_constant
from tinyyolo.boxes.convert import sides
from tinyyolo.boxes.similarity import CONSTANT
from tinyyolo.config import UserError, above, suggest
from tinyyolo.datasets import spec
from tinyyolo.datasets.annotations import Annotations
from tinyyolo.datasets.audit.faults import tell_doubts
from tinyyolo.datasets.formats import coco as coco_json
from tinyyolo.evaluation.commands import tell_unused
from tinyyolo.io import write_json
from tinyyolo.plots.assign import anchors as draw_anchors
from tinyyolo.plots.assign import draw
from tinyyolo.plots.charts import FORMATS


def analyze(
    *words: str,
    data: str | None = None,
    split: str = "val",
    model: str | Sequence[str] = "faster-rcnn-r50-nwdrka.yaml",
    assigners: str | Sequence[str] | Mapping[str, Any] | None = None,
    constant: float | str = CONSTANT,
    imgsz: int | None = None,
    images: str | Path | None = None,
    image: str | None = None,
    object: int | None = None,
    figures: bool = True,
    format: str = "png",
    out: str | Path = "runs/analyze",
    **overrides: Any,
) -> None:
    """Show what assigners do with your boxes: tinyyolo analyze data.yaml, or a COCO JSON; alone: the similarities.

    Prints positives for each object by size (the paper's Fig. 8), objects that get none and which anchors are taken,
    and writes these, similarity under a shift (Fig. 2) and the worked example (Fig. 1) to `analyze.json` and figures.
    `anchors.png` shows an object on its picture with the anchors that each rule gives it (Fig. 7); of a COCO JSON give
    the folder of the pictures as images=. All else needs annotations only.

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
        images: folder of the pictures, if the data is a COCO JSON.
        image: file name of the picture with the object that is shown.
        object: annotation id of the object that is shown; by default one of about the median size.
        figures: draw the figures.
        format: of the figures, png, pdf or svg.
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
    if format not in FORMATS:
        raise UserError(f"format={format}: {suggest(format, FORMATS)}")
    told = {"images": images is not None, "image": image is not None, "object": object is not None}
    if not (data and figures):
        told["format"] = format != FORMATS[0] and not figures
        tell_unused(told, "analyze without data" if figures else "figures=false")
    report: dict[str, Any] = {"data": data, "split": split, "imgsz": imgsz, "constant": constant}
    candidates, example = {}, drawn_example() if figures and not data else None
    if data:
        found, folder = with_folder(data, split, images)
        tell_doubts(found)
        scenes = list(scenes_of(found, imgsz))
        if not scenes:
            raise UserError(f"{data}: no image has objects")
        if figures:
            example = example_of(found, folder, image, object, imgsz)
        wh = torch.cat([sides(scene.boxes) for scene in scenes])
        places = [(scene.size_hw, scene.boxes) for scene in scenes]
        report["constant"] = auto_constant(wh) if constant == "auto" else constant
        candidates = gather(model, assigners, report["constant"], overrides, wh, places)
        report |= {"images": len(scenes), "objects": len(wh), "sizes": SIZE_NAMES}
        report["assigners"] = {name: count_positives(c, scenes) for name, c in candidates.items()}
        print(in_words(report))
    elif example:
        boxes = example.scene.boxes
        places = [(example.scene.size_hw, boxes)]
        candidates = gather(model, assigners, report["constant"], overrides, sides(boxes), places)
    report["shift"] = shift_curves(constant=report["constant"])
    report["example"] = worked_example(constant=report["constant"])
    print(example_in_words(report["example"]))
    if example:
        report["anchors"] = anchors_of(candidates, example, report["constant"])
    target = Path(out)
    write_json(target / "analyze.json", report)
    print(f"numbers: {target / 'analyze.json'}")
    if example:
        others, path = example.scene.boxes.double().numpy(), target / f"anchors.{format}"
        drawn = draw_anchors(report["anchors"], others, example.view, example.scale, path)
        example.view.close()
        for file in (*draw(report, target, format), drawn):
            print(f"figure: {file}")


def with_folder(data: str, split: str, images: str | Path | None) -> tuple[Annotations, Path | None]:
    """The objects of a data YAML's split or a COCO JSON, and the folder of its pictures; None where it is not known.

    Raises:
        UserError: as the readers.
    """
    given = None if images is None else Path(images)
    if data.endswith(".json"):
        return coco_json.read(data), given
    set_ = spec.load(data)
    folder = set_.folder_of(set_.split(split))
    return set_.measured(split), given or (folder if folder.is_dir() else None)
