"""Files of exactly the official formats, drawn by the tests."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import yaml

AITOD_NAMES = ["airplane", "bridge", "storage-tank", "ship", "swimming-pool", "vehicle", "person", "wind-mill"]


def picture(path: Path, width: int, height: int, seed: int = 0) -> np.ndarray:
    """Write an image of its own for every seed, no two parts of it alike; returns it (H, W, 3) BGR."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    image = blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width].copy()
    image[::16, :, 0] = np.arange(width) % 251
    image[:, ::16, 1] = (np.arange(height) % 241)[:, None]
    assert cv2.imwrite(str(path), image)
    return image


def coco(path: Path, images: list, annotations: list, categories: list, **more) -> Path:
    """Write a COCO JSON from short records: images (id, name, w, h), annotations (id, image, category, xywh)."""
    content = {
        "images": [
            i if isinstance(i, dict) else dict(zip(("id", "file_name", "width", "height"), i, strict=True))
            for i in images
        ],
        "annotations": [a if isinstance(a, dict) else annotation(*a) for a in annotations],
        "categories": [c if isinstance(c, dict) else {"id": c[0], "name": c[1]} for c in categories],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | more))
    return path


def annotation(key: int, image: int, category: int, xywh: list, **more) -> dict:
    """One COCO annotation as AI-TOD's files have it."""
    x, y, w, h = xywh
    outline = [x, y, x, y + h, x + w, y + h, x + w, y]
    return {
        "area": w * h,
        "iscrowd": 0,
        "image_id": image,
        "bbox": xywh,
        "category_id": category,
        "id": key,
        "ignore": 0,
        "segmentation": [outline],
    } | more


def data_yaml(file: Path, /, **content) -> Path:
    """Write a data YAML."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def clean_set(root: Path) -> Path:
    """Two splits of two 64 x 48 px images, boxes by hand, nothing wrong. Returns the YAML."""
    for i, name in enumerate(("t0", "t1", "v0", "v1")):
        picture(root / "images" / f"{name}.png", 64, 48, seed=i)
    kinds = [(1, "ship"), (2, "car")]
    coco(
        root / "train.json",
        [(1, "t0.png", 64, 48), (2, "t1.png", 64, 48)],
        [(1, 1, 1, [2, 3, 4, 5]), (2, 1, 2, [10, 10, 8, 8]), (3, 2, 1, [60, 44, 4, 4])],
        kinds,
    )
    coco(
        root / "val.json",
        [(1, "v0.png", 64, 48), (2, "v1.png", 64, 48)],
        [(1, 1, 1, [0, 0, 3, 3]), (2, 2, 2, [20, 20, 16, 16])],
        kinds,
    )
    jsons = {"train": "train.json", "val": "val.json"}
    return data_yaml(root / "set.yaml", train="images", val="images", annotations=jsons, names=["ship", "car"])


def visdrone_set(root: Path) -> Path:
    """Two VisDrone images: ignored regions, all twelve categories, a box with score 0, commas at line ends."""
    for i in range(2):
        picture(root / "images" / f"000000{i}.jpg", 120, 80, seed=i)
    twelve = [f"{8 * c},10,6,7,{int(0 < c < 11)},{c},0,1" for c in range(12)]
    (root / "annotations").mkdir()
    (root / "annotations" / "0000000.txt").write_text("\n".join(twelve) + "\n")
    (root / "annotations" / "0000001.txt").write_text("5,6,7,8,1,4,1,2,\n5,6,7,8,0,4,0,0,\n")
    names = ["pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus", "motor"]
    return data_yaml(
        root / "v.yaml",
        train="images",
        annotations={"train": "annotations"},
        format="visdrone",
        names=names,
        ignore=["ignored regions", "others"],
    )


def dota_set(root: Path) -> Path:
    """Two DOTA scenes: header lines, difficult flags, a rotated box, a scene without a label file."""
    picture(root / "images" / "P0000.png", 1390, 900, seed=1)
    picture(root / "images" / "P0001.png", 300, 200, seed=2)
    lines = [
        "imagesource:GoogleEarth",
        "gsd:0.146343590398",
        "10 5 15 10 10 15 5 10 ship 0",  # a square on its corner
        "100.5 50.25 110.5 50.25 110.5 60.25 100.5 60.25 plane 1",
        "780 100 820 100 820 120 780 120 ship 0",  # half in the first tile
        "1385 895 1390 895 1390 900 1385 900 plane 0",
    ]
    (root / "labelTxt").mkdir()
    (root / "labelTxt" / "P0000.txt").write_text("\n".join(lines) + "\n")
    return data_yaml(
        root / "d.yaml", train="images", annotations={"train": "labelTxt"}, format="dota", names=["plane", "ship"]
    )


def xview_set(root: Path) -> Path:
    """Two xView scenes as TIFF and a GeoJSON with a type without a name and a scene that is not there."""
    picture(root / "train_images" / "24.tif", 1390, 1000, seed=3)
    picture(root / "train_images" / "109.tif", 900, 700, seed=4)
    rows = [
        ("24.tif", 18, "10,20,22,30"),
        ("24.tif", 86, "700,700,740,730"),
        ("109.tif", 75, "1,2,9,9"),
        ("1395.tif", 18, "1,1,5,5"),
    ]
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[[-90.5, 29.1], [-90.4, 29.1], [-90.4, 29.0]]]},
            "properties": {
                "bounds_imcoords": bounds,
                "image_id": image,
                "type_id": kind,
                "feature_id": i,
                "ingest_time": "x",
            },
        }
        for i, (image, kind, bounds) in enumerate(rows)
    ]
    (root / "xView_train.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return data_yaml(
        root / "x.yaml",
        train="train_images",
        annotations={"train": "xView_train.geojson"},
        format="xview",
        names=["Small Car", "Storage Tank"],
    )
