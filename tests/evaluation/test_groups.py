"""Detections in many files, matched by groups of images, give the figures of one file, to the last bit."""

import json
from dataclasses import fields

import numpy as np
import pytest

from tinyyolo.config import UserError
from tinyyolo.datasets.formats.tables.shards import WHOLE, Image, Rows, write_shard
from tinyyolo.evaluation import detections, evaluate, groups
from tinyyolo.evaluation.commands import evaluate_command
from tinyyolo.evaluation.inputs import read_truth

NAMES = {0: "ship", 1: "car", 2: "plane"}  # there are no planes
IMAGES = 40


def truth(rng):
    """Objects and ignore regions in 40 images, in no order of theirs."""
    rows = []
    for image in range(1, IMAGES + 1):
        for _ in range(int(rng.integers(0, 9))):
            x, y = rng.integers(0, 180, 2).tolist()
            w, h = rng.integers(3, 40, 2).tolist()
            rows.append(
                {"image_id": image, "category_id": int(rng.integers(1, 3)), "bbox": [x, y, w, h], "area": w * h}
            )
            rows[-1] |= {"iscrowd": int(rng.random() < 0.1)}
    images = [{"id": i, "file_name": f"{i}.png", "height": 200, "width": 200} for i in range(1, IMAGES + 1)]
    categories = [{"id": label + 1, "name": name} for label, name in NAMES.items()]
    annotations = [row | {"id": i} for i, row in enumerate(rows, 1)]
    return {"images": images, "categories": categories, "annotations": annotations}


def found(rng, content, planes=True):
    """Boxes near the objects and boxes of chance; scores of two digits, so that many are equal."""
    rows = []
    for one in content["annotations"]:
        for _ in range(int(rng.integers(0, 3))):
            box = (np.array(one["bbox"]) + rng.normal(0, 1, 4)).clip(1).round(3).tolist()
            rows.append({"image_id": one["image_id"], "category_id": one["category_id"], "bbox": box})
    for _ in range(300):
        box = [*rng.integers(0, 180, 2).tolist(), *rng.integers(2, 60, 2).tolist()]
        label = int(rng.integers(1, 4 if planes else 3))
        rows.append({"image_id": int(rng.integers(1, IMAGES + 1)), "category_id": label, "bbox": box})
    return [row | {"score": float(rng.random().__round__(2))} for row in rows]


def by_name(row):
    name = NAMES[row["category_id"] - 1]
    return row | {"file_name": f"{row['image_id']}.png", "category_name": name}


def in_files(folder, rows, count):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"{i}.json").write_text(json.dumps(rows[i * len(rows) // count : (i + 1) * len(rows) // count]))
    return folder


@pytest.mark.parametrize("seed", range(6))
def test_groups_give_the_figures_of_one_file(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(groups, "AT_ONCE", 60)  # some ten groups, and as many chunks of what matches nothing
    rng = np.random.default_rng(seed)
    gt = truth(rng)
    rows = found(rng, gt)
    settings = {"max_dets": (1, 3, 10), "arrays": True, "area_ranges": {"small": (0, 10), "large": (10, 100)}}
    settings["iou_thresholds"] = np.linspace(0.3, 0.9, 10 if seed % 2 else 25)  # one word of lanes, or two
    one = evaluate(gt, rows, **settings)
    many = evaluate(gt, in_files(tmp_path, rows, 3), **settings)
    assert 0 < one["AP"] < 1
    assert same(one, many)


def same(one, many):
    if isinstance(one, dict):
        return one.keys() == many.keys() and all(same(one[key], many[key]) for key in one)
    return np.array_equal(one, many, equal_nan=True)


def test_the_first_detection_of_a_class_is_wrong(tmp_path, monkeypatch):
    """Two objects; a false detection of .9, a right one of .8 and one of .7 in another group.

    Worked out by hand: at recall 0 to .5 precision is 1/2, above 2/3: AP50 = (51 x 2/3 + 50 x 2/3) / 101 = 2/3.
    """
    monkeypatch.setattr(groups, "AT_ONCE", 1)
    box, other = [0, 0, 9, 9], [90, 90, 9, 9]
    gt = {"images": [{"id": i} for i in (1, 2)], "categories": [{"id": 1, "name": "ship"}]}
    gt["annotations"] = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": 81, "iscrowd": 0} for i in (1, 2)
    ]
    rows = [(1, box, 0.8), (2, other, 0.9), (2, box, 0.7), (1, other, 0.1)]
    dt = [{"image_id": i, "category_id": 1, "bbox": b, "score": s} for i, b, s in rows]
    result = evaluate(gt, in_files(tmp_path, dt, 2))
    assert result["AP50"] == pytest.approx(2 / 3)
    assert result["oLRP_fp"] == pytest.approx(1 / 3) and result["threshold"] == 0.7


def test_no_detections_at_all(tmp_path, capsys):
    gt = truth(np.random.default_rng(0))
    assert same(evaluate(gt, []), evaluate(gt, in_files(tmp_path, [], 2)))
    assert "there are no detections in it" in capsys.readouterr().err


def shards(folder, rows, count, **about):
    """The rows as shards: images in turns."""
    for i in range(1, count + 1):
        said = {"shard": [i, count], "total": IMAGES, "key": "k", "settings": {}} | about
        with write_shard(folder / f"{i}-of-{count}.parquet", said, NAMES) as file:
            for image in range(i - 1, IMAGES, count):
                own = [row for row in rows if row["image_id"] == image + 1]
                xywh = np.array([row["bbox"] for row in own], np.float32).reshape(-1, 4)
                boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
                scores = np.array([row["score"] for row in own], np.float32)
                labels = np.array([row["category_id"] - 1 for row in own], np.int32)
                file.add(Image(image, f"{image + 1}.png", (200, 200)), {WHOLE: Rows(boxes, scores, labels)})
    return folder


def test_shards_are_read_as_the_results_that_they_would_become(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyyolo.datasets.formats.tables.shards.ROWS", 20)
    rng = np.random.default_rng(1)
    gt = truth(rng)
    rows = [row | {"bbox": np.round(row["bbox"]).tolist()} for row in found(rng, gt)]
    own = shards(tmp_path / "p.shards", rows, 3)
    assert same(evaluate(gt, [by_name(row) for row in rows]), evaluate(gt, own))
    read = [detections.read_detections(dt, read_truth(gt)) for dt in (own, [by_name(row) for row in rows])]
    assert len(read[0].labels) == len(rows)
    order = [np.lexsort((*one.boxes.T, one.labels, one.image_index)) for one in read]
    for name in ("image_index", "boxes", "labels", "scores", "wh"):
        assert np.array_equal(*(getattr(one, name)[rows] for one, rows in zip(read, order, strict=True))), name
    assert {field.name for field in fields(read[0])} >= {"boxes", "wh"}


def test_shards_that_are_missing_are_named(tmp_path):
    gt = truth(np.random.default_rng(1))
    folder = shards(tmp_path / "p.shards", [], 4)
    (folder / "2-of-4.parquet").unlink()
    (folder / "3-of-4.parquet").unlink()
    with pytest.raises(UserError, match="shards 2 and 3 of 4 are missing: run predict with shard=2/4"):
        evaluate(gt, folder)


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    gt = truth(rng)
    rows = found(rng, gt)
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "dt.json").write_text(json.dumps(rows))
    in_files(tmp_path / "preds", rows, 4)
    for dt in ("dt.json", "preds", "preds/*.json"):
        evaluate_command("gt.json", dt, out=f"out-{dt[:5]}{len(dt)}")
    one, *others = (path.read_bytes() for path in sorted(tmp_path.glob("out-*/metrics.json")))
    assert others == [one, one]


@pytest.mark.parametrize(
    ("files", "dt", "said"),
    (
        ({}, "", "no COCO results"),
        ({"a.json": b"[]", "b.parquet": b""}, "", r"two kinds, .json and .parquet"),
        ({"a.parquet": b"PAR1"}, "a.parquet", "not readable as Parquet"),
        ({"a.json": b"[]"}, "*.txt", "no COCO results"),
        ({"a.json": b"[]"}, ["a.json", "c.json"], "c.json: no such annotation file"),
    ),
)
def test_what_is_no_set_of_detections(tmp_path, files, dt, said):
    gt = truth(np.random.default_rng(1))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    given = [tmp_path / one for one in dt] if isinstance(dt, list) else str(tmp_path / dt)
    with pytest.raises(UserError, match=said):
        evaluate(gt, given)
