"""`val` and `evaluate` of its predictions.json say the same, to the last digit, whatever the file holds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.engine.test_engine import trained
from tests.support.sets import write_set
from tests.test_cli import call
from tinyyolo import Model
from tinyyolo.engine.validator import TinyValidator
from tinyyolo.evaluation import evaluate
from tinyyolo.plots import pictures


def every(notes, **marks):
    """Marks on every second annotation."""
    for note in notes[::2]:
        note.update(marks)


def text_ids(content):
    for image in content["images"]:
        image["id"] = f"scene {99 - image['id']}"
    for note in content["annotations"]:
        note["image_id"] = f"scene {99 - note['image_id']}"


def flat(content):
    for i, note in enumerate(content["annotations"][::3]):
        note["bbox"][2 + i % 2] = 0


def other_ids(content):
    """Images and categories against the order of the file."""
    categories = {7: 1, 3: 900, 0: 50}
    for image in content["images"]:
        image["id"] = 100 - image["id"]
    for kind in content["categories"]:
        kind["id"] = categories[kind["id"]]
    for note in content["annotations"]:
        note.update(image_id=100 - note["image_id"], category_id=categories[note["category_id"]])
    content["images"].reverse(), content["annotations"].reverse()


CHANGES = {
    "as it is": lambda c: None,
    "ignore 1": lambda c: every(c["annotations"], ignore=1),
    "iscrowd null": lambda c: every(c["annotations"], iscrowd=None),
    "iscrowd text 0": lambda c: every(c["annotations"], iscrowd="0"),
    "iscrowd true": lambda c: every(c["annotations"], iscrowd=True),
    "no area, no id, no mark": lambda c: [[n.pop(k) for k in ("id", "area", "iscrowd")] for n in c["annotations"]],
    "outline's area": lambda c: every(c["annotations"], area=9.0),
    "empty boxes": flat,
    "text ids": text_ids,
    "ids of images as 12.0": lambda c: [n.update(image_id=float(n["image_id"])) for n in c["annotations"]],
    "other ids": other_ids,
    "images without objects": lambda c: c.update(annotations=[n for n in c["annotations"] if n["image_id"] > 11]),
    "no objects": lambda c: c.update(annotations=[]),
}


@pytest.fixture(scope="module")
def model(tiny_set, tmp_path_factory):
    return trained(tiny_set, project=str(tmp_path_factory.mktemp("runs")))


def near_the_objects(validator, preds, batch):
    """Detections as a good model would find them, in place of `preds`: objects moved a little, noise, equal scores."""
    rng = np.random.default_rng(len(validator.found))
    out = []
    for i in range(len(preds)):
        own = [batch[key][batch[row] == i] for key, row in (("bboxes", "batch_idx"), ("ignore_bboxes", "ignore_idx"))]
        centre, side = (torch.cat(own) * batch["img"].shape[-1]).split(2, dim=1)
        boxes = torch.cat([centre - side / 2, centre + side / 2], dim=1).repeat(3, 1)
        boxes = boxes + torch.from_numpy(rng.normal(0, 0.9, tuple(boxes.shape))).float()
        boxes = torch.cat([boxes, torch.tensor([[5.0, 5, 9, 9], [7.0, 7, 7, 9]])])
        cls = torch.from_numpy(rng.integers(0, 2, len(boxes)))
        conf = torch.from_numpy(rng.choice([0.123456789, 0.5, 0.7, 1 / 3], len(boxes))).float()
        out.append({"bboxes": boxes, "conf": conf, "cls": cls})
    return out


@pytest.fixture
def found(monkeypatch):
    """Every validation finds what `near_the_objects` says."""
    update = TinyValidator.update_metrics
    changed = lambda self, preds, batch: update(self, near_the_objects(self, preds, batch), batch)  # noqa: E731
    monkeypatch.setattr(TinyValidator, "update_metrics", changed)


def same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        if isinstance(value, dict):
            same(value, second[key])
        else:
            np.testing.assert_array_equal(value, second[key], err_msg=key)


@pytest.mark.parametrize("ignore", [False, True], ids=["", "a class ignored"])
@pytest.mark.parametrize("change", CHANGES)
def test_val_and_evaluate_say_the_same(model, found, tmp_path, change, ignore):
    data = write_set(tmp_path / "set", ignore=ignore)
    content = json.loads((tmp_path / "set/val.json").read_text())
    CHANGES[change](content)
    (tmp_path / "set/val.json").write_text(json.dumps(content))
    metrics = model.val(data=data, imgsz=160, plots=False, verbose=False)
    predictions = Path(metrics.save_dir) / "predictions.json"
    result = evaluate(tmp_path / "set/val.json", predictions, ignore=["crowd"] if ignore else [])
    same(metrics.result, result)
    assert (result["AP50"] > 0.05) == (change != "no objects")


def test_detections_of_classes_that_the_data_lack_are_told(model, found, tmp_path, monkeypatch, caplog):
    data = write_set(tmp_path / "set")
    content = json.loads((tmp_path / "set/val.json").read_text())
    content["categories"] = [c for c in content["categories"] if c["name"] == "dark"]
    content["annotations"] = [n for n in content["annotations"] if n["category_id"] == 3]
    (tmp_path / "set/val.json").write_text(json.dumps(content))
    spec = yaml.safe_load(data.read_text())
    data.write_text(yaml.safe_dump({**spec, "names": ["dark"], "train": "images", "annotations": {"val": "val.json"}}))
    monkeypatch.setattr("tinyyolo.engine.validator.LOGGER.propagate", True)
    metrics = model.val(data=data, imgsz=160, plots=False, split="val")
    told = {r.getMessage() for r in caplog.records if "no such class" in r.getMessage()}
    rows = json.loads((Path(metrics.save_dir) / "predictions.json").read_text())
    assert len(told) == 1 and "21 bright" in told.pop() and {row["category_id"] for row in rows} == {3}


def test_the_picture_of_val_takes_the_verdicts_of_the_evaluator(model, found, tmp_path, monkeypatch):
    data = write_set(tmp_path / "set", ignore=True)
    drawn = []
    titled = pictures.titled
    monkeypatch.setattr(pictures, "titled", lambda image, text: (drawn.append(text), titled(image, text))[1])
    metrics = model.val(data=data, imgsz=160, plots=True, verbose=False)
    assert len(drawn) == 8 and all("on ignore regions" in text for text in drawn[1::2])
    assert (Path(metrics.save_dir) / "predictions.jpg").stat().st_size > 0


def test_evaluate_takes_what_predict_wrote(model, tiny_set, tmp_path, capsys):
    """Ids there count otherwise; found objects are right all the same, and a stranger is one line."""
    images = tiny_set.parent / "images"
    Model(model.ckpt_path).predict(images, save_json=True, conf=0, imgsz=96, name="p", verbose=False)
    rows = json.loads((tmp_path / "runs/p/predictions.json").read_text())
    assert {row["category_name"] for row in rows} <= {"dark", "bright"}
    code, _, err = call("evaluate", f"gt={tiny_set.parent / 'val.json'}", "dt=runs/p/predictions.json", capsys=capsys)
    assert code == 2 and "train_0.png" in err and len(err.strip().splitlines()) == 1
    content = json.loads((tiny_set.parent / "val.json").read_text())
    files = {image["id"]: image["file_name"] for image in content["images"]}
    names = {kind["id"]: kind["name"] for kind in content["categories"]}
    ids = {(row["file_name"], row["category_name"]): (row["image_id"], row["category_id"]) for row in rows}
    index = {name: key for (_, name), (_, key) in ids.items()} | {"dark": 0, "bright": 1}
    perfect = [
        {
            "image_id": Path(files[note["image_id"]]).stem,
            "file_name": files[note["image_id"]],
            "category_id": index[names[note["category_id"]]],
            "category_name": names[note["category_id"]],
            "bbox": note["bbox"],
            "score": 0.9,
        }
        for note in content["annotations"]
    ]
    assert evaluate(tiny_set.parent / "val.json", perfect)["AP"] == pytest.approx(1)
