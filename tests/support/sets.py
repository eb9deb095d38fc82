"""Small data sets that tests draw."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import yaml

SIZE = 96
COUNTS = {"train": 6, "val": 4}
CLASSES = {7: "bright", 3: "dark"}  # ids out of order, as COCO JSON allows


def write_set(
    root: Path, size: int = SIZE, counts: dict[str, int] = COUNTS, empty: int = 0, ignore: bool = False
) -> Path:
    """Draw `counts` images a split with 3 to 6 squares of 4-9 px, none in the first `empty` ones. Returns the YAML."""
    rng = np.random.default_rng(1)
    (root / "images").mkdir(parents=True, exist_ok=True)
    categories = [{"id": i, "name": n} for i, n in CLASSES.items()]
    if ignore:
        categories.append({"id": 0, "name": "crowd"})
    for split, count in counts.items():
        images, annotations = [], []
        for i in range(count):
            image = rng.normal(110, 6, (size, size, 3)).clip(0, 255).astype(np.uint8)
            name = f"{split}_{i}.png"
            for _ in range(0 if i < empty else int(rng.integers(3, 7))):
                w, h = rng.integers(4, 10, 2).tolist()
                x, y = int(rng.integers(0, size - w)), int(rng.integers(0, size - h))
                kind = int(rng.choice(list(CLASSES)))
                image[y : y + h, x : x + w] = 240 if kind == 7 else 10
                annotations.append(box(len(annotations) + 1, i + 10, kind, [x, y, w, h]))
            if ignore:
                annotations.append(box(len(annotations) + 1, i + 10, 0, [10, 10, 20, 20]))
            cv2.imwrite(str(root / "images" / name), image)
            images.append({"id": i + 10, "file_name": name, "width": size, "height": size})
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))
    spec = {
        "path": str(root),
        **{split: "images" for split in counts},
        "annotations": {split: f"{split}.json" for split in counts},
        **({"ignore": ["crowd"]} if ignore else {}),
    }
    (root / "data.yaml").write_text(yaml.safe_dump(spec))
    return root / "data.yaml"


def box(key: int, image: int, category: int, xywh: list[int]) -> dict:
    """One COCO annotation."""
    return {
        "id": key,
        "image_id": image,
        "category_id": category,
        "bbox": xywh,
        "area": xywh[2] * xywh[3],
        "iscrowd": 0,
    }
