"""docs/published.md: the rows of the paper's Table 4, what of each was verified here, and where code and paper differ.

Written from the model YAMLs: `python -m tinyyolo.detectors.published docs/published.md`. A row's own file says under
`published:` its figures (percent), `classes` (Table 5), `checked` (what was verified, `golden` and `regression`) and
`differs` (what of the authors' files or logs is not what they printed); the last two are not those of its `base:`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyyolo.config import find_yaml, load_model_yaml, load_yaml, yaml_names
from tinyyolo.io import markdown_table as table

FIGURES = ("AP", "AP50", "AP75", "AP_vt", "AP_t", "AP_s", "AP_m", "AR1500")
CLASSES = ("airplane", "bridge", "storage-tank", "ship", "swimming-pool", "vehicle", "person", "wind-mill")
TABLE_4 = (  # in the paper's order
    *("tridentnet-r50", "faster-rcnn-r50-atss", "faster-rcnn-r50", "faster-rcnn-r101", "faster-rcnn-hrnet-w32"),
    *("cascade-rcnn-r50", "detectors-r50", "faster-rcnn-r50-dotd", "yolov3-d53", "retinanet-r50", "ssd512-vgg16"),
    *("reppoints-r50", "foveabox-r50", "fcos-r50", "grid-rcnn-r50", "retinanet-r50-nwdrka", "faster-rcnn-r50-nwdrka"),
    *("faster-rcnn-r101-nwdrka", "faster-rcnn-hrnet-w32-nwdrka", "cascade-rcnn-r50-nwdrka", "detectors-r50-nwdrka"),
)
NOTHING = "-"
ROUNDED = 0.1  # percent: what rounding takes from figures with one decimal, at most
DATA = "AI-TOD-v2"
NOT_YET = "nothing told"
# The settings of section 6.1 of the paper, for all rows "unless specified otherwise".
TEXT = {"epochs": 12, "batch": 2, "lr0": 0.01, "momentum": 0.9, "weight_decay": 0.0001, "lr_steps": [8, 11]}
TEXT_TOPK, TEXT_POSITIVE = 2, "1/3"
ABOUT = """# Published rows

The rows of Table 4 of Xu et al., Detecting tiny objects in aerial images (ISPRS Journal 190, 2022): trained on
trainval of AI-TOD-v2, tested on its test set, percent, as printed. **None was rerun here: there are no AI-TOD
images here.** What was verified instead stands below, row by row. This file is written from the model YAMLs by
`python -m tinyyolo.detectors.published docs/published.md`.

    tinyyolo train model=faster-rcnn-r50-nwdrka.yaml data=AI-TOD-v2.yaml backbone.weights=resnet50.pth
"""
PROTOCOL = """## The protocol that these YAMLs follow

- **Nothing is chosen on the test set.** `select: last` and `val: false`: 12 epochs, the last one is `best.pt`, and
  it is looked at once, at the end. `AI-TOD-v2.yaml` has no val: a run of another model that chooses its epoch
  (`select=best`) looks at test, and its table says so; `AI-TOD-v2-dev.yaml` has the official train and val.
- **Images** are fitted to 800 px, mirrored with a chance of .5 and nothing else, whatever is installed; then
  normalised, and filled up by zeros to the right and below, to multiples of 32 px (`pad: corner`). In a batch of
  several shapes, anchors that lie beyond an image's own multiple are left out of its assignment.
- **Left out of training**: images without objects, boxes with a side under 1 px.
"""
DIFFERENCES = """## Where the authors' files, their logs and the paper differ

- k of RKA is 2 in the paper; in the authors' files 2 for Faster R-CNN and 3 for RetinaNet, Cascade R-CNN and
  DetectoRS.
- Of the anchors that RKA gives no object those whose best NWD lies above .3 are ignored in the authors' code,
  negative in the paper: `negative_below: 0.3` and `null`.
- The RPN samples positives and negatives 1:1 (at most half positive) in the authors' files, 1:3 by the paper's
  text.
- The paper's text has lr .01 and says nothing of a warm-up; the files have lr .005 for RetinaNet, .02 for HRNet's
  baseline, and a linear warm-up over 500 iterations, of DetectoRS over 5,000.
- The authors' files of the NWD and DotD rows train on train and test on val; the printed rows are of trainval and
  test, as here.
- The authors' baseline file of Faster R-CNN points at AI-TOD v1; the printed row is of v2.
- AP_m of RetinaNet with NWD-RKA is 24.2 in Table 4 and 14.2 in the authors' log.
- AP50 of Faster R-CNN with NWD-RKA is 53.2 in Table 4 and 52.7 in Table 5, of SSD-512 32.5 and 23.5; AP_s of the
  IoU baseline is 24.6 in Tables 4 and 7 and 24.0 in Table 6; DetectoRS with NWD-RKA has AP50 57.4 in Table 4, 57.2
  in the paper's introduction.
- Table 8 tunes the thresholds of IoU, on the baseline: `model=faster-rcnn-r50.yaml rpn.assigner.positive=.6
  rpn.assigner.negative=.2`.
- The lines "bbox_mAP_75" in the authors' logs are AP at IoU .55.
- DOTA-v2.0 (Table 14): the authors cut scenes into tiles of 1,024 px; `DOTA-v2.yaml` proposes 800 px with 200 px
  overlap, as AI-TOD was cut; give `tile=1024` to `tinyyolo data convert` for theirs.
- The authors published no settings of TridentNet, Faster R-CNN with ATSS, YOLOv3, SSD-512, RepPoints, FoveaBox,
  FCOS and Grid R-CNN: those YAMLs are MMDetection 2.24.1's stock files with what the paper says, and a guess at
  which file it was.
"""
OURS = """## Where these YAMLs differ from the authors' code

- A side that is fitted is rounded up to whole pixels in training and validation, to the nearest in the reference:
  at most one pixel, and none at 800x800. Boxes follow each side's own factor in both.
- Proposals are cut at the filled-up input, in the reference at the image itself; detections at the image in both.
  No difference where the sides are multiples of 32.
- In validation a batch is filled up to its largest image; the reference tests image by image: `batch=1` does the
  same.
- Where windows of large scenes end inside, they are filled up with grey; the reference knows no windows.
"""


def rows_there() -> tuple[list[str], list[str]]:
    """Names of the rows of Table 4 and of other published ones that come with the package."""
    there = [name.removesuffix(".yaml") for name in yaml_names("cfg/models")]
    others = [name for name in there if name not in TABLE_4 and "AP" in own(name)]
    return [*TABLE_4], others


def resolved(name: str) -> dict[str, Any]:
    """A model YAML with its `base:` applied; {} if there is none of this name."""
    return load_model_yaml(name) if f"{name}.yaml" in yaml_names("cfg/models") else {}


def own(name: str) -> dict[str, Any]:
    """`published:` as a row's own file has it, without that of its base."""
    content = load_yaml(find_yaml(name, "cfg/models")) if resolved(name) else {}
    return dict(content.get("published") or {})


def figure(values: Mapping[str, Any], key: str) -> str:
    """A figure with one decimal; '-' if it is not printed.

    Examples:
        >>> figure({"AP": 21.4}, "AP"), figure({"AP": None}, "AP"), figure({}, "AP")
        ('21.4', '-', '-')
    """
    return NOTHING if values.get(key) is None else f"{values[key]:.1f}"


def link(name: str) -> str:
    """A row's name, linked to its YAML where there is one."""
    return f"[{name}](../cfg/models/{name}.yaml)" if resolved(name) else f"{name} (no YAML yet)"


def figures(names: Sequence[str]) -> list[str]:
    """The table of the published figures; a row of other data says which."""
    lines = []
    for name in names:
        values = resolved(name).get("published") or {}
        other = f", {values['data']}" if values.get("data", DATA) != DATA else ""
        lines.append([link(name) + other, *(figure(values, key) for key in FIGURES)])
    return table(["row", *FIGURES], lines)


def by_class(names: Sequence[str]) -> list[str]:
    """The table of the classes' AP, of the rows that say it."""
    rows = [(name, own(name).get("classes")) for name in names]
    return table(
        ["row", *CLASSES], [[name, *(figure(values, key) for key in CLASSES)] for name, values in rows if values]
    )


def verified(names: Sequence[str]) -> list[str]:
    """The table of what was verified here."""
    cells = []
    for name in names:
        checked = own(name).get("checked") or {}
        cells.append([name, checked.get("golden") or NOT_YET, checked.get("regression") or NOTHING])
    return table(["row", "against outputs of the authors' code", "trained here"], cells)


def assigner_of(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The assigner of the RPN or of the dense head."""
    found = (spec.get("rpn") or spec.get("head") or {}).get("assigner") or {}
    return found if isinstance(found, Mapping) else {}


def beside_text(spec: Mapping[str, Any]) -> list[str]:
    """Settings of a resolved YAML that are not those of the paper's text.

    Examples:
        >>> beside_text({"train": {"lr0": 0.005, "batch": 2}, "rpn": {"assigner": {"type": "ranking", "topk": 3}}})
        ['lr0 0.005 (text: 0.01)', 'k 3 (text: 2)']
    """
    train = spec.get("train") or {}
    said = [f"{key} {train[key]} (text: {value})" for key, value in TEXT.items() if train.get(key, value) != value]
    if (topk := assigner_of(spec).get("topk", TEXT_TOPK)) != TEXT_TOPK and assigner_of(spec).get("type") == "ranking":
        said.append(f"k {topk} (text: {TEXT_TOPK})")
    share = ((spec.get("rpn") or {}).get("sampler") or {}).get("positive_fraction")
    return said + ([f"positives of the RPN {share} (text: {TEXT_POSITIVE})"] if share is not None else [])


def beside_classes(said: Mapping[str, Any]) -> list[str]:
    """That a row's AP is not the mean of its classes, where it is not.

    Examples:
        >>> beside_classes({"AP": 12.8, "classes": {"ship": 10.0, "person": 11.6}})
        ['AP 12.8, but the classes of Table 5 have the mean 10.8']
    """
    classes = said.get("classes") or {}
    mean = sum(classes.values()) / max(1, len(classes))
    if not classes or abs(mean - said["AP"]) <= ROUNDED:
        return []
    return [f"AP {said['AP']}, but the classes of Table 5 have the mean {mean:.1f}"]


def differences(names: Sequence[str]) -> list[str]:
    """A line for each row whose settings are not the paper's text, or whose file says that something differs."""
    lines = []
    for name in names:
        spec = resolved(name)
        if said := [*beside_text(spec), *beside_classes(own(name)), *(own(name).get("differs") or [])]:
            lines.append(f"- `{name}`: {'; '.join(said)}.")
    return lines


def settings(names: Sequence[str]) -> list[str]:
    """The table of how the rows are trained."""
    keys = ("epochs", "batch", "imgsz", "lr0", "lr_steps", "warmup_iters", "weight_decay", "clip_grad")
    rows = []
    for name in names:
        if spec := resolved(name):
            train, assigner = spec.get("train") or {}, assigner_of(spec)
            kind = " ".join(str(assigner[key]) for key in ("type", "similarity", "topk") if key in assigner)
            rows.append([name, *(str(train.get(key, NOTHING)).replace("None", "none") for key in keys), kind])
    return table(["row", *keys, "assigner of anchors"], rows)


def markdown() -> str:
    """The content of docs/published.md."""
    rows, others = rows_there()
    parts = [
        [ABOUT.rstrip()],
        ["## Table 4", "", *figures(rows)],
        ["## Other published rows", "", *figures(others)],
        ["## AP by class, Table 5", "", *by_class([*rows, *others])],
        ["## What was verified here", "", *verified([*rows, *others])],
        [PROTOCOL.rstrip()],
        ["## Settings", "", *settings([*rows, *others])],
        [DIFFERENCES.rstrip()],
        ["## Row by row: what is not the paper's text", "", *differences([*rows, *others])],
        [OURS.rstrip()],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")
