"""Stock models beside ours: how what they find is scored."""

import json

import numpy as np
import pytest

from benchmarks import peers
from tinyyolo.datasets.spec import load


def test_peers_are_scored_on_the_original_annotations(tmp_path, tiny_set):
    """Ultralytics numbers classes from 1 and images by their name; ids in the JSON are others."""
    notes = load(tiny_set).read("val")
    x1, y1, x2, y2 = notes.boxes.T.tolist()
    names = [notes.file_names[i] for i in notes.image_index]
    found = [
        {"image_id": "val_0", "file_name": name, "category_id": int(label) + 1, "bbox": box, "score": 0.9}
        for name, label, box in zip(
            names, notes.labels, np.stack([x1, y1, np.subtract(x2, x1), np.subtract(y2, y1)], 1).tolist(), strict=True
        )
    ]
    peers.score(str(tiny_set), found, tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text())["AP"] == pytest.approx(1.0)
    peers.score(str(tiny_set), [], tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text())["AP"] == 0
    assert peers.main(["model=yolov8n-p2.yaml"]) == 2
