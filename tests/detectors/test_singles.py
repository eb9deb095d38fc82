"""YOLOv3 and SSD learn: from scratch, slim, in under a minute of one core."""

from pathlib import Path

import pytest

from tinyyolo import Model
from tinyyolo.config import load_model_yaml
from tinyyolo.detectors.build import build_model

RUN = {"imgsz": 256, "epochs": 5, "lr_steps": [4], "warmup_iters": 20, "val": False, "plots": False, "workers": 0}


@pytest.mark.parametrize(("name", "batch", "side"), [("yolov3-d53", 2, 608), ("ssd512-vgg16", 2, 512)])
def test_published_settings(name, batch, side):
    """The paper's schedule and test settings; rates, input size and warm-up are those of the stock files."""
    spec = load_model_yaml(name)
    train = spec["train"]
    assert spec["published"]["data"] == "AI-TOD-v2" and spec["published"]["AP"] in {4.1, 10.7}
    assert (train["epochs"], train["lr_steps"], train["batch"], train["imgsz"]) == (12, [8, 11], batch, side)
    assert (train["optimizer"], train["momentum"], train["weight_decay"]) == ("SGD", 0.9, 1e-4)
    assert train["lr_batch"] == 64 and not train["ema"] and train["decay_all"]
    assert (spec["test"]["iou"], spec["test"]["max_det"]) == (0.5, 3000)
    scores = {spec["test"]["score"], spec["head"].get("min_score", 0.05)}
    assert scores <= {0, 0.05} and 0.05 in scores


@pytest.mark.parametrize("name", ["yolov3-d53", "ssd512-vgg16"])
def test_normalisation_is_that_of_the_stock_files(name):
    model = build_model(load_model_yaml(name, {"backbone.width": 1}))
    shift, factor = (model.mean.flatten() * 255).tolist(), (1 / model.std / 255).flatten().tolist()
    expected = ([0] * 3, [1 / 255] * 3) if name == "yolov3-d53" else ([123.675, 116.28, 103.53], [1] * 3)
    assert shift == pytest.approx(expected[0], rel=1e-6) and factor == pytest.approx(expected[1], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides", "keys", "least"),
    [
        ("yolov3-slim", {"backbone.width": 4}, {"lr0": 0.003}, 0.8),
        ("ssd-slim", {"backbone.width": 8}, {}, 0.8),
    ],
)
def test_it_learns_drawn_shapes(name, overrides, keys, least, tmp_path):
    model = Model(f"{name}.yaml", overrides=overrides)  # seen: .95 and .94
    model.train(data="toy-easy.yaml", project=str(tmp_path), seed=0, **RUN, **keys)
    found = Model(Path(model.trainer.last)).val(data="toy-easy.yaml", imgsz=256, plots=False)
    assert least <= found.AP50, found
