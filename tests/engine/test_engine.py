"""The engine end to end on drawn images: train, resume, validate, predict, in this process and another."""

import json
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.support.sets import SIZE, write_set
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.engine import checkpoint

TINY = {
    "backbone.channels": [8, 8, 16, 16],
    "backbone.depths": [1, 1, 1],
    "neck.channels": [16, 16, 16],
    "head.hidden": [16, 16, 16],
}
RUN = {"imgsz": SIZE, "batch": 2, "epochs": 1, "plots": False, "workers": 0}


def trained(data, **more):
    model = Model("tinyyolo-n.yaml", overrides=TINY)
    model.train(data=data, **{**RUN, **more})
    return model


@pytest.fixture(scope="module")
def model(tiny_set, tmp_path_factory):
    return trained(tiny_set, epochs=2, project=str(tmp_path_factory.mktemp("runs")), plots=True)


def boxes_of(results):
    return [torch.cat([r.boxes.xyxy, r.boxes.conf[:, None], r.boxes.cls[:, None]], 1) for r in results]


def test_run_folder_holds_what_the_readme_says(model):
    folder = Path(model.trainer.save_dir)
    for name in ("weights/last.pt", "weights/best.pt", "metrics.json", "results.csv", "args.yaml", "predictions.json"):
        assert (folder / name).stat().st_size > 0, name
    assert list(folder.glob("*.jpg")), "no picture"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["per_class"]) == {"bright", "dark"}
    assert len((folder / "results.csv").read_text().splitlines()) == 3
    assert not list(folder.rglob("*.part"))


def test_the_docs_tell_every_file_of_a_run(model):
    page = (Path(__file__).parent.parent.parent / "docs" / "runs.md").read_text(encoding="utf-8")
    table = page.partition("## train")[2].partition("\n## ")[0]
    told = set(re.findall(r"`([\w*./]+\.(?:pt|yaml|csv|png|json|jpg|txt))`", table))
    folder = Path(model.trainer.save_dir)
    files = [path for path in folder.rglob("*") if path.is_file()]
    exported = [path for path in files if path.parent.name == "weights" and path.suffix != ".pt"]  # by other tests
    there = {path.relative_to(folder).as_posix() for path in files if path not in exported}
    assert {name for name in there if not any(fnmatch(name, one) for one in told)} == set()
    assert {one for one in told if not any(fnmatch(name, one) for name in there)} == {"skipped.txt"}


def test_runs_go_to_the_current_folder(tiny_set, tmp_path):
    model = trained(tiny_set)
    assert Path(model.trainer.save_dir) == (tmp_path / "runs" / "train").resolve()


def test_checkpoint_is_plain_and_has_all_it_needs(model):
    content = torch.load(model.ckpt_path, weights_only=True)
    assert content["names"] == {0: "dark", 1: "bright"}  # by the JSON's ids, 3 before 7
    assert content["yaml"]["head"]["assigner"]["type"] == "ranking"
    assert content["resume"] is None, "a finished run keeps nothing to resume"
    assert content["metrics"]["metrics/AP"] >= 0


def test_same_boxes_in_another_process_and_folder_and_batch(model, tiny_set, tmp_path):
    images = sorted((tiny_set.parent / "images").glob("val_*.png"))
    here = boxes_of(model.predict(images, conf=0, imgsz=SIZE, verbose=False))
    assert sum(map(len, here)) > 0
    stack = torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model.model.eval()(stack)[0]
        single = torch.cat([model.model(image[None])[0] for image in stack])
    torch.testing.assert_close(whole, single, atol=1e-3, rtol=0)
    script = (
        "import sys, torch; from tinyyolo import Model; from tests.engine.test_engine import boxes_of\n"
        "stack = torch.rand(8, 3, 96, 96, generator=torch.Generator().manual_seed(0))\n"
        "model = Model(sys.argv[1])\n"
        "raw = model.model.eval()(stack)[0].detach()\n"
        "r = model.predict(sys.argv[3:], conf=0, imgsz=96, verbose=False)\n"
        "torch.save([raw, *boxes_of(r)], sys.argv[2])"
    )
    out = tmp_path / "boxes.pt"
    command = [sys.executable, "-c", script, model.ckpt_path, str(out), *map(str, images)]
    root = Path(__file__).parent.parent.parent
    subprocess.run(command, check=True, capture_output=True, env={**__import__("os").environ, "PYTHONPATH": str(root)})
    raw, *there = torch.load(out)
    torch.testing.assert_close(whole, raw, atol=1e-3, rtol=0)  # every box, before NMS puts near ties in some order
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a[:50, 4], b[:50, 4], atol=1e-3, rtol=0)


def test_killed_and_resumed_equals_uninterrupted(tiny_set, tmp_path):
    whole = trained(tiny_set, epochs=3, name="whole", close_mosaic=1)

    class Killed(Exception):
        pass

    def kill(trainer):
        if trainer.epoch == 1:
            raise Killed

    victim = Model("tinyyolo-n.yaml", overrides=TINY)
    victim.add_callback("on_train_epoch_end", kill)
    with pytest.raises(Killed):
        victim.train(data=tiny_set, **{**RUN, "epochs": 3, "name": "victim", "close_mosaic": 1, "patience": 7})
    last = tmp_path / "runs" / "victim" / "weights" / "last.pt"
    assert checkpoint.load(last)["epoch"] == 0
    resumed = Model(last)
    resumed.train(resume=True)
    assert Path(resumed.trainer.save_dir) == last.parent.parent.resolve()
    assert (resumed.trainer.args.patience, resumed.trainer.args.plots) == (7, False), "not the defaults again"
    a, b = (checkpoint.load(m.trainer.last)["model"] for m in (whole, resumed))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0, msg=name)
    rows = [(Path(m.trainer.save_dir) / "results.csv").read_text().splitlines() for m in (whole, resumed)]
    assert [len(r) for r in rows] == [4, 4]
    without_time = [[line.split(",")[0:1] + line.split(",")[2:] for line in r] for r in rows]
    assert without_time[0] == without_time[1]


def test_resuming_a_finished_run_is_refused(model):
    with pytest.raises(UserError, match="finished"):
        Model(model.trainer.last).train(resume=True)


@pytest.mark.parametrize("given", [{"epochs": 9}, {"lr0": 0.1}])
def test_resuming_refuses_to_change_the_result(model, given):
    with pytest.raises(UserError, match="resuming"):
        Model(model.trainer.last).train(resume=True, **given)


def test_same_seed_same_weights(tiny_set):
    a, b = (checkpoint.load(trained(tiny_set, seed=3).trainer.last)["model"] for _ in range(2))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0)


def test_metrics_go_by_name(model, tiny_set):
    metrics = model.val(data=tiny_set, imgsz=SIZE, plots=False, verbose=False)
    assert 0 <= metrics.AP <= metrics.AP50 <= 1 and metrics["AP"] == metrics.AP
    assert metrics.per_class["bright"]["AP50"] >= 0
    assert "bright" in repr(metrics)
    with pytest.raises(AttributeError, match="AP50"):
        _ = metrics.AP55


def test_metrics_are_those_of_pycocotools(model, tiny_set):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    metrics = model.val(data=tiny_set, imgsz=SIZE, plots=False, conf=0)
    truth = COCO(str(tiny_set.parent / "val.json"))
    found = truth.loadRes(str(Path(metrics.save_dir) / "predictions.json"))
    referee = COCOeval(truth, found, "bbox")
    referee.params.maxDets = [100, 300, 1500]
    referee.evaluate(), referee.accumulate()
    precision = referee.eval["precision"][:, :, :, 0, 2]
    np.testing.assert_allclose(metrics.AP, precision[precision > -1].mean(), atol=2e-3)  # the JSON is rounded


def test_ignore_regions_stay_out_of_loss_and_metrics(tmp_path):
    data = write_set(tmp_path / "set", ignore=True)
    model = trained(data)
    assert model.names == {0: "dark", 1: "bright"}
    dataset = model.trainer.train_loader.dataset
    batch = dataset.collate_fn([dataset[i] for i in range(len(dataset))])
    assert len(batch["ignore_bboxes"]) > 0 and batch["cls"].min() >= 0
    assert len(batch["cls"]) == len(batch["bboxes"]) == len(batch["batch_idx"])


def test_images_without_objects_are_normal(tmp_path):
    data = write_set(tmp_path / "set", empty=5)  # one training image has objects, no other image has
    metrics = trained(data).metrics
    assert metrics.AP == -1 and metrics.fitness == 0
    with pytest.raises(UserError, match=r"train\.json: no object to train on in 6 images"):
        trained(write_set(tmp_path / "none", empty=6))


def test_nothing_is_written_beside_the_data(tiny_set):
    before = sorted(p for p in tiny_set.parent.rglob("*"))
    trained(tiny_set)
    assert sorted(p for p in tiny_set.parent.rglob("*")) == before


def test_torchscript_gives_the_same_boxes(model, tiny_set):
    path = model.export(imgsz=SIZE)
    traced = torch.jit.load(path)
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(traced(images), model.model.eval()(images)[0], atol=1e-3, rtol=1e-4)
    (result,) = Model(path).predict(tiny_set.parent / "images" / "val_0.png", conf=0, imgsz=SIZE, verbose=False)
    assert len(result) > 0 and result.names == model.names
    # After votes, which the export knows of too
    (own,) = model.predict(tiny_set.parent / "images" / "val_0.png", conf=0, imgsz=SIZE, verbose=False)
    torch.testing.assert_close(result.boxes.conf[:20], own.boxes.conf[:20], atol=0, rtol=1e-3)
    with pytest.raises(UserError, match="torchscript"):
        model.export(format="torchscipt")


def test_torchscript_validates_images_that_are_not_square(model, tmp_path):
    data = write_set(tmp_path / "set")
    for file in (tmp_path / "set" / "images").glob("val_*.png"):
        cv2.imwrite(str(file), cv2.imread(str(file))[: SIZE // 2])
    content = json.loads((tmp_path / "set" / "val.json").read_text())
    for image in content["images"]:
        image["height"] = SIZE // 2
    (tmp_path / "set" / "val.json").write_text(json.dumps(content))
    metrics = Model(model.export(imgsz=SIZE)).val(data=data, imgsz=SIZE, plots=False)
    assert 0 <= metrics.AP <= 1


@pytest.mark.parametrize("mode", ["tune", "benchmark"])
def test_what_does_not_work_yet_refuses_in_one_line(model, mode):
    with pytest.raises(UserError, match=mode) as caught:
        getattr(model, mode)()
    assert "\n" not in str(caught.value)
