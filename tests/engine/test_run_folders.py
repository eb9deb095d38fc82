"""Run folders: none is left by a start that fails, none that was there is touched, and nothing is written elsewhere."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.test_engine import RUN, TINY, trained
from tests.support.sets import SIZE, write_set
from tests.test_cli import call
from tinyyolo import Model
from tinyyolo.engine import checkpoint
from tinyyolo.engine.predict.results import TinyResults, run_folder

TRAIN = [f"{k}={v}" for k, v in {**RUN, **TINY}.items() if k not in {"name", "project"}]


@pytest.fixture(scope="module")
def weights(tiny_set, tmp_path_factory):
    return trained(tiny_set, project=str(tmp_path_factory.mktemp("runs"))).ckpt_path


def broken_set(root, spoil):
    """A set whose images of one split are all damaged, or whose classes are others than the model's."""
    data = write_set(root)
    if spoil == "names":
        for split in ("train", "val"):
            content = json.loads((root / f"{split}.json").read_text())
            content["categories"] = [{**c, "name": f"other {c['name']}"} for c in content["categories"]]
            (root / f"{split}.json").write_text(json.dumps(content))
    for path in (root / "images").glob(f"{spoil}_*"):
        path.write_text("no image")
    return data


STARTS = {
    "train: key": lambda w, d, tmp: ["train", f"data={d}", *TRAIN, "epoch=1"],
    "train: data": lambda w, d, tmp: ["train", "data=nothing.yaml", *TRAIN],
    "train: model": lambda w, d, tmp: ["train", "model=nothing.pt", f"data={d}", *TRAIN],
    "train: dotted key": lambda w, d, tmp: ["train", f"data={d}", *TRAIN, "head.assigner.topk=-1"],
    "train: device": lambda w, d, tmp: ["train", f"data={d}", *TRAIN, "device=7"],
    "train: no readable image": lambda w, d, tmp: ["train", f"data={broken_set(tmp / 's', 'train')}", *TRAIN],
    "train: no readable val image": lambda w, d, tmp: ["train", f"data={broken_set(tmp / 's', 'val')}", *TRAIN],
    "val: no readable image": lambda w, d, tmp: ["val", f"model={w}", f"data={broken_set(tmp / 's', 'val')}"],
    "val: other classes": lambda w, d, tmp: ["val", f"model={w}", f"data={broken_set(tmp / 's', 'names')}"],
    "val: split": lambda w, d, tmp: ["val", f"model={w}", f"data={d}", "split=test"],
    "predict: no readable image": lambda w, d, tmp: [
        "predict",
        f"model={w}",
        f"source={broken_set(tmp / 's', 'val').parent / 'images' / 'val_0.png'}",
        "save_txt=true",
    ],
    "predict: class": lambda w, d, tmp: ["predict", f"model={w}", f"source={d.parent / 'images'}", "classes=[cat]"],
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("there", [False, True], ids=["new", "exist_ok"])
def test_a_failed_start_leaves_no_folder_and_touches_none(weights, tiny_set, tmp_path, capsys, start, there):
    words, out = STARTS[start](weights, tiny_set, tmp_path), tmp_path / "deep" / "runs"
    if there:
        (out / "mine" / "weights").mkdir(parents=True)
        for name in ("args.yaml", "results.csv", "weights/best.pt"):
            (out / "mine" / name).write_text("mine")
    code, _, err = call(*words, f"project={out}", "name=mine", f"exist_ok={str(there).lower()}", capsys=capsys)
    assert code == 2 and err.strip().splitlines()[-1].startswith("tinyyolo: "), err
    if there:
        left = [p for p in out.rglob("*") if p.is_file()]
        assert len(left) == 3 and all(p.read_text() == "mine" for p in left)
    else:
        assert not (tmp_path / "deep").exists()


def test_what_a_run_has_made_stays_when_it_fails_later(tmp_path):
    folder = tmp_path / "runs" / "train"
    with pytest.raises(KeyboardInterrupt), run_folder(folder):
        (folder / "weights").mkdir(parents=True)
        (folder / "weights" / "last.pt").write_text("an epoch")
        raise KeyboardInterrupt
    assert (folder / "weights" / "last.pt").exists()


def with_names(weights, folder, names):
    """The checkpoint with other class names."""
    content = checkpoint.load(weights)
    path = folder / "named.pt"
    checkpoint.save(path, {**content, "names": dict(enumerate(names))})
    return path


def snapshot(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_class_names_of_a_checkpoint_lead_nowhere(weights, tiny_set, tmp_path):
    hostile = with_names(weights, tmp_path, ["../../../evil", f"{tmp_path}/absolute"])
    before = snapshot(tmp_path)
    how = {"conf": 0.0, "max_det": 30, "imgsz": SIZE, "save_crop": True, "save_txt": True, "save": True}
    results = Model(hostile).predict(tiny_set.parent / "images" / "val_0.png", **how)
    run = tmp_path / "runs" / "predict"
    new = set(snapshot(tmp_path)) - set(before)
    assert len(results[0].boxes) == 30 and new and all(path.is_relative_to(run) for path in new)
    assert len([p for p in new if p.parent.parent == run / "crops"]) == 30, "one crop a detection, in two plain folders"
    results[0].save_crop(tmp_path / "own")
    assert len(list((tmp_path / "own").rglob("*.jpg"))) == 30 and not list(tmp_path.rglob("evil"))


def test_labels_are_upstream_s_lines(tmp_path):
    boxes = torch.tensor([[10.0, 20, 30, 40, 0.5, 1], [0, 0, 8, 4, 0.25, 0]])
    result = TinyResults(np.zeros((80, 100, 3), np.uint8), "a.png", {0: "ship", 1: "car"}, boxes=boxes)
    result.save_txt(tmp_path / "l" / "a.txt")
    result.save_txt(tmp_path / "l" / "a.txt", save_conf=True)
    lines = [
        "1 0.2 0.375 0.2 0.25",
        "0 0.04 0.025 0.08 0.05",
        "1 0.2 0.375 0.2 0.25 0.5",
        "0 0.04 0.025 0.08 0.05 0.25",
    ]
    assert (tmp_path / "l" / "a.txt").read_text().splitlines() == lines


@pytest.mark.parametrize("name", ["labels", "crops"])
def test_a_link_in_the_run_folder_is_not_followed(weights, tiny_set, tmp_path, capsys, name):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs" / "predict").mkdir(parents=True)
    (tmp_path / "runs" / "predict" / name).symlink_to(tmp_path / "elsewhere")
    words = ["predict", f"model={weights}", f"source={tiny_set.parent / 'images'}", "conf=0", "exist_ok=true"]
    code, _, err = call(*words, "save_txt=true", "save_crop=true", capsys=capsys)
    assert code == 2 and "a link there leads out of the folder" in err and not list((tmp_path / "elsewhere").iterdir())


def test_labels_of_a_validation_go_by_their_own_images(weights, tmp_path, capsys):
    """Images of one name in two folders have label files of their own, and a second run replaces the first's."""
    data = write_set(tmp_path / "set", counts={"train": 1, "val": 2})
    images, path = tmp_path / "set" / "images", tmp_path / "set" / "val.json"
    content = json.loads(path.read_text())
    for folder, image in zip("ab", content["images"], strict=True):
        (images / folder).mkdir()
        shutil.move(images / image["file_name"], images / folder / "same.png")
        image["file_name"] = f"{folder}/same.png"
    path.write_text(json.dumps(content))
    words = ["val", f"model={weights}", f"data={data}", "save_txt=true", "conf=0", "max_det=5", "plots=false"]
    for _ in range(2):
        code, _, err = call(*words, f"imgsz={SIZE}", "exist_ok=true", capsys=capsys)
        assert code == 0, err
    for folder in "ab":
        assert len((Path("runs/val/labels") / folder / "same.txt").read_text().splitlines()) == 5


def test_what_a_killed_run_was_writing_goes_when_it_is_taken_up(tiny_set, tmp_path):
    model = trained(tiny_set, project=str(tmp_path / "runs"))
    folder = Path(model.trainer.save_dir)
    left = folder / "weights" / ".tinyyolo-x1y2.part"
    left.write_text("half")
    trained(tiny_set, project=str(tmp_path / "runs"), exist_ok=True)
    assert not left.exists() and (folder / "weights" / "last.pt").exists()
