"""A checkpoint and its exports side by side: what they find, how long they take, and what they weigh."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ultralytics.cfg import get_save_dir

from tinyyolo.config import UserError, suggest
from tinyyolo.detectors import tensor_files
from tinyyolo.engine.deploy import timing
from tinyyolo.engine.model import Model
from tinyyolo.io import table, write_json
from tinyyolo.plots.charts import COLOUR, chart, save

# Names of rows, and the keys of `export` that write their files; none for the checkpoint itself.
ROWS: dict[str, dict[str, Any] | None] = {
    "checkpoint": None,
    "onnx": {"format": "onnx"},
    "onnx-half": {"format": "onnx", "half": True},
    "onnx-int8": {"format": "onnx", "int8": True},
    "openvino": {"format": "openvino"},
    "openvino-half": {"format": "openvino", "half": True},
    "torchscript": {"format": "torchscript"},
}
FIGURES = ("AP", "AP_vt", "AP_t")
COLUMNS = ("", *FIGURES, "ms", "MB on disk", "MB in memory")
MB = 2**20


def benchmark(model: str, data: str, imgsz: int, split: str, rows: list[str], project: str, name: str) -> Path:
    """Measure the rows, and write benchmark.json and benchmark.png into a run folder, the exports beside them.

    Args:
        model: a checkpoint.
        data: a data YAML, whose `split` is looked at.
        imgsz: px; 0 for that of the training.
        rows: of ROWS.
        project, name: of the run folder.

    Returns:
        The run folder.

    Raises:
        UserError: no such row, or what `Model.export` and `Model.val` raise.
    """
    for row in rows:
        if row not in ROWS:
            raise UserError(f"formats={row}: unknown; {suggest(row, ROWS)}")
    path, *_ = tensor_files.start(model)
    size = {"imgsz": imgsz} if imgsz else {}
    side = imgsz or Model(path).overrides.get("imgsz", 640)
    folder = get_save_dir(SimpleNamespace(save_dir=None, project=project, name=name, exist_ok=False, task="detect"))
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        (folder / row).mkdir(parents=True)
        file = shutil.copy(path, folder / row / path.name)
        if (keys := ROWS[row]) is not None:
            images = {"data": data} if "int8" in keys else {}
            file = Model(file).export(**keys, **size, **images)
        one = Model(file, trust=row == "torchscript")
        run: dict[str, Any] = {"plots": False, "verbose": False, "save_dir": str(folder / row / "val")}
        metrics = one.val(data=data, split=split, **run | size)
        picture = one.validator.dataloader.dataset.im_files[0]
        words = [sys.executable, "-m", timing.__name__, str(file), str(side), str(picture)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        ms, memory = map(float, done.stdout.split()[-2:])
        costs = {"ms": ms, "disk_mb": weight(Path(file)), "memory_mb": memory}
        found[row] = {key: metrics[key] for key in FIGURES} | costs
    write_json(folder / "benchmark.json", {"imgsz": side, "rows": found})
    print(table([COLUMNS, *([row, *cells(values)] for row, values in found.items())]))
    draw(found, folder / "benchmark.png")
    print(f"Table and picture: {folder}")
    return folder


def cells(values: dict[str, float]) -> list[str]:
    """Figures as text: in percent, milliseconds and MB; a size without objects has none."""
    shares = [f"{100 * values[key]:.2f}" if values[key] >= 0 else "-" for key in FIGURES]
    return [*shares, *(f"{values[key]:.1f}" for key in ("ms", "disk_mb", "memory_mb"))]


def weight(path: Path) -> float:
    """MB of a file, or of a folder's."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files) / MB


def draw(found: dict[str, dict[str, float]], path: Path) -> None:
    """AP over time, a point a row."""
    figure, axes = chart()
    axis = axes[0, 0]
    for row, values in found.items():
        axis.plot(values["ms"], 100 * values["AP"], "o", color=COLOUR)
        axis.annotate(row, (values["ms"], 100 * values["AP"]), textcoords="offset points", xytext=(5, 5), fontsize=8)
    axis.set_xlabel("ms a picture")
    axis.set_ylabel("AP, percent")
    axis.set_xlim(left=0)
    save(figure, path)
