"""The runtime of one file finds what `predict` finds, where neither torch nor this package can be imported."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.export.test_onnx import best, file  # noqa: F401 - fixtures
from tinyyolo import Model
from tinyyolo.export.compare import paired

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_predict.py"
ALONE = """
import runpy, sys
class NotThere:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "torchvision", "ultralytics", "tinyyolo"):
            raise ImportError(name)
sys.meta_path.insert(0, NotThere())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def rows_of(lines, names):
    """Boxes, scores and labels of what the example prints."""
    rows = [line.split("\t")[1:] for line in lines]
    boxes = torch.tensor([[float(x) for x in row[2:]] for row in rows]).view(-1, 4)
    return boxes, torch.tensor([float(row[1]) for row in rows]), torch.tensor([names.index(row[0]) for row in rows])


@pytest.mark.parametrize(("conf", "shape"), [(None, (90, 150)), (0.16, (160, 61))])
def test_it_finds_what_predict_finds(best, file, tmp_path, conf, shape):  # noqa: F811
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    words = [file, tmp_path / "a.png", "imgsz=128", *([f"conf={conf}"] if conf else [])]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, EXAMPLE, *map(str, words)], capture_output=True, text=True, check=True
    )
    (own,) = Model(best).predict(image, imgsz=128, tile="off", verbose=False, **({"conf": conf} if conf else {}))
    found = rows_of(done.stdout.splitlines(), list(own.names.values()))
    seen = paired((own.boxes.xyxy, own.boxes.conf, own.boxes.cls.long()), found, 0.0)
    assert len(own) == len(found[1]) > 3 and not seen.alone and seen.boxes < 0.02 and seen.scores < 1e-3


def test_it_is_short():
    assert len(EXAMPLE.read_text().splitlines()) <= 80
