"""Whether every export of every model finds what its checkpoint finds: boxes, scores, AP and thresholds.

    python benchmarks/exports.py                                      # all models, onnx and openvino, about an hour
    python benchmarks/exports.py --models tinyyolo-n --formats onnx openvino torchscript safetensors

Weights are random, made so that every place scores otherwise (`lively`). One drawn picture and three of another size at
once, with noise, as equal places score alike and either may come first, are shown to both; and a blank one by a score
that nothing has, which must give nothing. The truth is every second detection of the checkpoint, moved, so that
AP is neither 0 nor 1 and falls where an order or a box changes. TorchScript takes one size and image.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tinyyolo import Model
from tinyyolo.backbones.darknet53 import Residual
from tinyyolo.boxes.convert import areas, convert
from tinyyolo.config import ROOTS, UserError, load_model_yaml
from tinyyolo.detectors.archives import in_one_line
from tinyyolo.detectors.base import Detector
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.postprocess import AUTO, Postprocess, of_run
from tinyyolo.engine import checkpoint
from tinyyolo.engine.deploy.write import trials
from tinyyolo.evaluation.metrics import evaluate
from tinyyolo.export.compare import Difference, difference
from tinyyolo.export.metadata import describe
from tinyyolo.export.onnx import OnnxRuntime, is_deformable, onnx_model
from tinyyolo.export.openvino import OpenVinoRuntime, openvino_files
from tinyyolo.export.runtime import Detections
from tinyyolo.export.safetensors import safetensors
from tinyyolo.export.torchscript import metadata, torchscript

SIZE = (128, 160)  # px, height and width of the first picture
CLASSES, SPREAD = 3, 0.1
BRANCH = 0.1  # weight of the last norm beside a shortcut
THRESHOLDS = (0.15, 0.2, 0.1)
NEAR = 1e-4  # of the least score: there a detection may be missing
MOVED = 0.1  # sides, deviation of the truth from the detections
FAULTS = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)  # of a row
Finds = Callable[[Tensor, Postprocess], Detections]


class Row(NamedTuple):
    """What was seen of an export: its detections, both APs, whether all else is as it should be (`compared`)."""

    seen: Difference
    own_ap: float
    ap: float
    same: bool

    @property
    def right(self) -> bool:
        """Whether it finds what its checkpoint finds."""
        near = self.seen.boxes < 1e-2 and self.seen.scores < 1e-4 and abs(self.own_ap - self.ap) < 1e-4
        return near and self.same and not self.seen.alone and self.seen.seen > 0 and 0 < self.own_ap < 1


def lively(model: Any, spread: float = 0.5) -> None:
    """Give an untrained detector scores of its own at every place: its norms know an image, its classes differ.

    `spread` is the deviation of a convolution's weights; where it is large many scores are nearly 1, and alike. The
    branch beside a shortcut counts little, as where a training starts: deep random networks whose norms take the mean
    away magnify a rounding of 6e-8 to 5e-4, and their exports then differ as two runs of torch would. Untrained
    heatmaps of grid points are so flat that which cell is highest hangs on the last bit; here not.
    """
    torch.manual_seed(1)
    model.train()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):  # frozen ones and those of `norm_eval`, too
            part.train().momentum = 1.0
        last = getattr(part, "bn3", getattr(part, "bn2", None))
        if last is not None and hasattr(part, "downsample"):  # a block of a ResNet
            torch.nn.init.constant_(last.weight, BRANCH)
        if isinstance(part, Residual):
            torch.nn.init.constant_(part.conv2.bn.weight, BRANCH)
    with torch.no_grad():
        model.features(torch.rand(2, 3, 128, 128))
        for name, weight in model.named_parameters():
            said = ("cls" in name or "class_branch" in name) and ".bn." not in name
            if (said and ("conv" not in name or ".conv_cls." in name)) or ".convs_pred." in name:
                weight.normal_(std=spread if weight.ndim == 4 else 0.05) if weight.ndim > 1 else weight.fill_(0.0)
            if "grid_head.deconv2" in name:
                weight.mul_(10.0) if weight.ndim > 1 else weight.fill_(0.0)
    model.eval()


def built(name: str) -> Detector:
    """An untrained detector that finds something, with thresholds of its own."""
    torch.manual_seed(0)
    model: Any = build_model(load_model_yaml(f"{name}.yaml"), CLASSES)
    lively(model, SPREAD)
    model.thresholds = [*THRESHOLDS]
    return model  # type: ignore[no-any-return]  # see above


def exported(model: Any, form: str, folder: Path) -> tuple[Finds, Any]:
    """What an export finds, and what holds its names, settings and thresholds."""
    said = describe(model, list(SIZE), "a", dynamic=True, nms=True, precision="float32")
    if form == "onnx":
        runtime: Any = OnnxRuntime(folder / "a.onnx", onnx_model(model, said).SerializeToString())
        return runtime.detect, runtime
    if form == "openvino":
        openvino_files(model, said, folder, True, False)
        runtime = OpenVinoRuntime(folder)
        return runtime.detect, runtime
    if form == "torchscript":
        torchscript(model, folder / "a.torchscript", SIZE)
        runtime = torch.jit.load(folder / "a.torchscript")  # type: ignore[no-untyped-call]  # torch's
        held = metadata(folder / "a.torchscript")
        runtime.names, runtime.test, runtime.thresholds = model.names, held["test"], held["thresholds"]
    else:
        safetensors(checkpoint.plain(checkpoint.of_model(model, {"imgsz": max(SIZE)})), folder / "a.safetensors")
        runtime = Model(folder / "a.safetensors").model.eval()
    return lambda images, rules: rules.of_output(runtime(images)), runtime


def compared(model: Any, finds: Finds, holder: Any, batches: Sequence[Tensor]) -> Row:
    """See `Row`; the thresholds, the settings, and an image without detections must be right as well."""
    theirs: list[Any] = []
    own: list[Any] = []

    def kept(images: Tensor, rules: Postprocess) -> Detections:
        with torch.no_grad():
            own.extend(rules.of_output(model.predict(images)))
            theirs.extend(found := finds(images, rules))
        return found

    seen = difference(model, kept, batches, NEAR)
    truth = truth_of(own)
    figures = [evaluate(truth, records(found), lrp=False)["AP"] for found in (own, theirs)]
    nothing = finds(torch.full_like(batches[0], 0.5), Postprocess(score=1.0))
    same = all(of_run(holder, {"conf": conf}, 0.25) == of_run(model, {"conf": conf}, 0.25) for conf in (AUTO, None))
    return Row(seen, *figures, same and [x.shape for x in nothing[0]] == [(0, 4), (0,), (0,)])


def truth_of(found: Detections) -> dict[str, Any]:
    """A COCO dict of every second detection of each image, moved a little."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for image, (boxes, _, labels) in enumerate(found):
        xywh = convert(boxes[::2].double().numpy(), "xyxy", "xywh")
        xywh[:, :2] += rng.normal(0, MOVED, (len(xywh), 2)) * np.sqrt(areas(boxes[::2].double().numpy()))[:, None]
        rows += [
            {"id": len(rows) + i, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3]}
            for i, (box, label) in enumerate(zip(xywh.tolist(), labels[::2].tolist(), strict=True), 1)
        ]
    categories = [{"id": i, "name": str(i)} for i in range(CLASSES)]
    return {"images": [{"id": i} for i in range(len(found))], "categories": categories, "annotations": rows}


def records(found: Detections) -> list[dict[str, Any]]:
    """Detections as COCO's records."""
    return [
        {"image_id": image, "category_id": label, "bbox": box, "score": score}
        for image, (boxes, scores, labels) in enumerate(found)
        for box, score, label in zip(
            convert(boxes.double().numpy(), "xyxy", "xywh").tolist(), scores.tolist(), labels.tolist(), strict=True
        )
    ]


def row_of(form: str, model: Any) -> Row:
    """The row of a format and a model.

    Raises:
        UserError: it is not offered.
    """
    generator = torch.Generator().manual_seed(0)
    batches = [0.5 * (x + torch.rand(x.shape, generator=generator)) for x in trials(SIZE)[:2]]
    with TemporaryDirectory(prefix="tinyyolo-") as folder:
        finds, holder = exported(model, form, Path(folder))
        return compared(model, finds, holder, batches[:1] if form == "torchscript" else batches)


def line_of(name: str, model: Any, form: str) -> tuple[bool, str]:
    """Whether all is well with a format of a model, and its line of the table; an error is a line as well."""
    start = time.perf_counter()
    try:
        row = row_of(form, model)
    except FAULTS as error:
        refused = isinstance(error, UserError) and form == "openvino" and is_deformable(model)
        what = "not offered" if refused else f"FAILED: {type(error).__name__}"
        return refused, f"| {name} | {form} | {what}: {in_one_line(error)} |"
    seen, aps = row.seen, f"{100 * row.own_ap:.2f} | {100 * row.ap:.2f}"
    places = f"{seen.seen} | {seen.boxes:.1g} | {seen.scores:.1g} | {seen.alone}"
    end = f"{'right' if row.right else 'WRONG'} | {time.perf_counter() - start:.0f} s |"
    return row.right, f"| {name} | {form} | {places} | {aps} | {end}"


def main() -> int:
    """Print a table, row by row; 1 if one of them is wrong or ended in an error."""
    folder = next(f for root in ROOTS if (f := root / "cfg/models").is_dir())
    every = sorted(path.stem for path in folder.glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=every)
    parser.add_argument("--formats", nargs="+", default=["onnx", "openvino"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | format | detections | boxes px | scores | without a partner | AP | AP of the export | | took |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---|---:|", flush=True)
    well = True
    for name in given.models:
        model = built(name)
        for form in given.formats:
            right, line = line_of(name, model, form)
            well &= right
            print(line, flush=True)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
