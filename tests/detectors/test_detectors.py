"""Whole detectors of the paper: the engine's contract, tracing, half precision, and every family end to end."""

from pathlib import Path

import pytest
import torch

from tests.support.sets import SIZE
from tinyyolo import Model
from tinyyolo.config import UserError, load_model_yaml
from tinyyolo.detectors.build import build_model
from tinyyolo.engine import checkpoint

FAMILIES = ("faster-rcnn-r18-nwdrka", "cascade-rcnn-r18-nwdrka", "retinanet-r18-nwdrka", "yolov3-slim", "ssd-slim")
FAMILIES += ("grid-rcnn-r18-nwdrka", "tridentnet-r18-nwdrka")
POINTS = ("fcos-r18", "foveabox-r50", "reppoints-r50-gn")
FAMILIES += POINTS
LONG = ("grid-rcnn-r18-nwdrka", "tridentnet-r18-nwdrka", "cascade-rcnn-r18-nwdrka", *POINTS)
PUBLISHED = ("retinanet-r50", "faster-rcnn-r50", "faster-rcnn-r101", "faster-rcnn-hrnet-w32", "cascade-rcnn-r50")
R10 = {"backbone.depth": 10, "neck.channels": 16}
FEW = {"head.pre_nms": 60, "head.convs": 1, "head.channels": 16}
TINY = {
    "faster-rcnn-r18-nwdrka": {**R10, "rpn.pre_nms": 60, "rpn.proposals": 40, "roi.channels": 32},
    "cascade-rcnn-r18-nwdrka": {**R10, "rpn.pre_nms": 60, "rpn.proposals": 40, "roi.channels": 32},
    "retinanet-r18-nwdrka": {**R10, "head.pre_nms": 60, "head.convs": 1},
    "yolov3-slim": {"backbone.width": 4, "head.min_score": 0, "head.min_objectness": 0},
    "ssd-slim": {"backbone.width": 8, "neck.channels": [16, 16], "head.pre_nms": 60},
    "grid-rcnn-r18-nwdrka": {**R10, "rpn.pre_nms": 60, "rpn.proposals": 40, "roi.channels": 32, "roi.grid_convs": 1},
    "tridentnet-r18-nwdrka": {
        "backbone.depth": 10,
        "rpn.pre_nms": 60,
        "rpn.proposals": 20,
        "rpn.train_proposals": 10,
        "roi.depth": 10,
    },
    "fcos-r18": {**R10, **FEW, "head.norm_groups": 4, "head.min_score": 0},
    "foveabox-r50": {**R10, **FEW, "backbone.frozen_stages": -1},
    "reppoints-r50-gn": {**R10, **FEW, "head.norm_groups": 4, "neck.norm_groups": 4, "backbone.frozen_stages": -1},
}
AUGMENTATIONS = ("flipud", "mosaic", "mixup", "cutmix", "copy_paste", "degrees", "translate", "scale", "shear")
AUGMENTATIONS += ("perspective", "hsv_h", "hsv_s", "hsv_v", "bgr")
RUN = {"imgsz": SIZE, "batch": 2, "epochs": 1, "plots": False, "workers": 0}
HW = (96, 128)


def detector(name, **more):
    torch.manual_seed(0)
    return build_model(load_model_yaml(name, {**TINY[name], **more}), 3)


def spread(model):
    """A dense head away from its prior, where all scores are nearly equal and their order is chance."""
    for name, module in getattr(model, "bbox_head", model).named_modules():
        if name in {"retina_cls", "conv_cls", "reppoints_cls_out"}:
            torch.nn.init.normal_(module.weight)


def by_place(rows):
    """Detections (K, 6) in an order that near-equal scores, as after so little training, do not change."""
    return rows[(rows @ torch.tensor([1.0, 3.7, 11.3, 29.1, 0, 997])).argsort()]


def image(count=1):
    return torch.rand(count, 3, *HW, generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # sizes are fixed on purpose
@pytest.mark.parametrize("name", FAMILIES)
def test_a_trace_follows_the_images(name):
    model = detector(name).eval()
    model.export = True
    close = {}
    if name in POINTS:  # a traced deformable convolution adds up in another order
        spread(model)
        close = {"atol": 1e-4, "rtol": 1e-4}
    with torch.no_grad():
        traced = torch.jit.trace(model, torch.zeros(1, 3, *HW), strict=False, check_trace=False)
        for x in (image(), 1 - image(), torch.zeros(1, 3, *HW), image(3)):
            torch.testing.assert_close(traced(x), model(x), **close)


@pytest.mark.parametrize("name", FAMILIES)
def test_batched_equals_single_and_width_is_fixed(name):
    model, x = detector(name).eval(), image(3)
    spread(model)
    with torch.no_grad():
        y, _ = model(x)
        widths = {model(x * 0)[0].shape[2]}
        for i in range(3):
            torch.testing.assert_close(model(x[i : i + 1])[0][0], y[i], atol=1e-4, rtol=1e-4)
    assert widths == {y.shape[2]} and y.shape[:2] == (3, 4 + 3)


@pytest.mark.parametrize("name", FAMILIES)
def test_boxes_stay_float32_in_half_precision(name):
    model = detector(name)
    targets = [{"boxes": torch.tensor([[10.0, 10, 18, 17]]), "labels": torch.tensor([1])}]
    with torch.autocast("cpu", torch.bfloat16):
        maps = model.features(image())
        assert maps[0].dtype == torch.bfloat16
        losses = model.losses(maps, targets, HW)
        boxes, scores = model.eval().candidates(maps, HW)
    assert boxes.dtype == scores.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in losses.values())
    sum(losses.values()).backward()
    # Autocast keeps the casts of weights; one made for the proposals, without gradient, must not serve the losses.
    assert not [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]


@pytest.mark.parametrize("name", FAMILIES)
def test_ignore_regions_change_the_loss_only_where_they_lie(name):
    model = detector(name).eval()
    maps = model.features(image())
    target = {"boxes": torch.tensor([[10.0, 10, 18, 17]]), "labels": torch.tensor([1])}
    everything = torch.tensor([[0.0, 0, HW[1], HW[0]]])
    plain, same, less = (
        sum(model.losses(maps, [t], HW, sample=False).values())
        for t in (target, {**target, "ignore": everything[:0]}, {**target, "ignore": everything})
    )
    assert plain == same and plain != less


@pytest.mark.parametrize("variant", ["", "-nwdrka"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings(name, variant):
    spec = load_model_yaml(name + variant)
    train, test = spec["train"], spec["test"]
    assert spec["published"]["data"] == "AI-TOD-v2" and spec["published"]["AP"] > 0
    assert test == {"score": 0.05, "iou": 0.5, "max_det": 3000}
    assert train["lr0"] == (0.005 if "retinanet" in name else 0.01)
    expected = {
        "optimizer": "SGD",
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "decay_all": True,
        "lr_steps": [8, 11],
        "epochs": 12,
        "batch": 2,
        "imgsz": 800,
        "warmup_iters": 500,
        "warmup_factor": 0.001,
        "warmup_bias_lr": 0,
        "clip_grad": None,
        "ema": False,
        "fliplr": 0.5,
    }
    assert {key: train[key] for key in expected} == expected
    assert all(train[key] == 0 for key in AUGMENTATIONS)
    head = spec["rpn" if "rpn" in spec else "head"]
    assert head["inside_only"] == ("cascade" in name)
    if variant:
        assert head["assigner"]["topk"] == (2 if "faster" in name else 3)
        assert head["assigner"]["type"] == "ranking" and head["assigner"]["negative_below"] == 0.3
    else:
        bounds = (0.5, 0.4, 0) if "retinanet" in name else (0.7, 0.3, 0.3)
        assert tuple(head["assigner"][key] for key in ("positive", "negative", "min_positive")) == bounds


@pytest.mark.parametrize("name", ["fcos-r50", "fcos-r50-center", "foveabox-r50", "reppoints-r50", "reppoints-r50-gn"])
def test_published_settings_of_points(name):
    spec = load_model_yaml(name)
    train, fcos = spec["train"], "fcos" in name
    figures = {"fcos-r50": 12.0, "foveabox-r50": 11.3, "reppoints-r50": 9.3, "reppoints-r50-gn": 9.3}
    assert (spec["published"] or {}).get("AP") == figures.get(name)
    assert spec["test"] == {"score": 0 if fcos else 0.05, "iou": 0.5, "max_det": 3000}
    assert (train["epochs"], train["batch"], train["lr_steps"], train["weight_decay"]) == (12, 2, [8, 11], 1e-4)
    assert train["lr0"] == (0.005 if "center" in name else 0.01)
    warmup = (10000 if "center" in name else 500, 1 / 3, True) if fcos else (500, 0.001, None)
    assert (train["warmup_iters"], train["warmup_factor"], train.get("warmup_constant")) == warmup
    assert (train.get("bias_lr"), train.get("bias_decay"), train["clip_grad"]) == (
        (2, False, 35) if fcos else (None, None, None)
    )
    assert all(train[key] == 0 for key in AUGMENTATIONS)


def test_caffes_images_are_blue_first_and_from_0_to_255():
    model = detector("fcos-r18", normalize=load_model_yaml("fcos-r50")["normalize"])
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    colour = torch.tensor([200.0, 100, 50])  # red, green, blue
    model.eval().features((colour / 255).view(1, 3, 1, 1).expand(1, 3, 64, 64))
    expected = torch.tensor([50 - 102.9801, 100 - 115.9465, 200 - 122.7717])
    torch.testing.assert_close(seen[0][0, :, 5, 7], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("overrides", "check"),
    [
        ({"rpn.anchors.scales": [4]}, lambda m: m.rpn_head.grid.base_boxes[0][1].tolist() == [-8, -8, 8, 8]),
        ({"rpn.assigner.topk": 4}, lambda m: m.rpn_head.assigner.topk == 4),
        ({"rpn.assigner.constant": 24}, lambda m: m.rpn_head.assigner.options["constant"] == 24),
        ({"rpn.assigner.negative_below": None}, lambda m: m.rpn_head.assigner.negative_below is None),
        ({"rpn.assigner.similarity": "giou"}, lambda m: m.rpn_head.assigner.similarity == "giou"),
    ],
)
def test_table_rows_by_dotted_overrides(overrides, check):
    assert check(build_model(load_model_yaml("faster-rcnn-r18-nwdrka", overrides)))


def test_an_image_of_800_px_stays_800_px():
    model = detector("faster-rcnn-r18-nwdrka").eval()
    with torch.no_grad():
        maps = model.features(torch.zeros(1, 3, 800, 800))
    assert [tuple(x.shape[-2:]) for x in maps] == [(200, 200), (100, 100), (50, 50), (25, 25), (13, 13)]
    assert sum(model.rpn_head.grid.level_sizes((800, 800))) == 159_882


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in FAMILIES])
def test_train_kill_resume_val_predict_export(name, tiny_set, tmp_path):
    class Killed(Exception):
        pass

    def kill(trainer):
        if trainer.epoch == 1:
            raise Killed

    model = Model(f"{name}.yaml", overrides=TINY[name])
    model.add_callback("on_train_epoch_end", kill)
    with pytest.raises(Killed):
        model.train(data=tiny_set, **{**RUN, "epochs": 2, "name": "run"})
    last = tmp_path / "runs" / "run" / "weights" / "last.pt"
    assert checkpoint.load(last)["epoch"] == 0
    resumed = Model(last)
    resumed.train(resume=True)
    assert len((last.parent.parent / "results.csv").read_text().splitlines()) == 3
    best = Model(resumed.trainer.best)
    metrics = best.val(data=tiny_set, imgsz=SIZE, plots=False, verbose=False)
    assert 0 <= metrics.AP <= 1
    images = sorted((tiny_set.parent / "images").glob("val_*.png"))
    settings = {"conf": 0, "imgsz": SIZE, "verbose": False}
    found = [r.boxes.data for r in best.predict(images, **settings)]
    assert all(len(boxes) for boxes in found)
    exported = Model(best.export(imgsz=SIZE)).predict(images, **settings)
    for a, b in zip(found, exported, strict=True):
        torch.testing.assert_close(by_place(a), by_place(b.boxes.data), atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"backbone.depth": 51}, "backbone.depth=51"),
        ({"neck.extra": "p6"}, "neck.extra=p6"),
        ({"rpn.anchors.strides": [4, 8]}, "rpn.anchors.strides"),
        ({"rpn.assigner.topk": 0}, "topk"),
        ({"roi.pool": 7}, "roi.pool"),
        ({"backbone.weights": "nothing.pt"}, "nothing.pt: no such checkpoint"),
    ],
)
def test_mistakes_are_one_line(overrides, says):
    with pytest.raises(UserError, match=says) as caught:
        build_model(load_model_yaml("faster-rcnn-r18-nwdrka", overrides))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_ranking_beats_thresholds_where_anchors_are_too_large(tmp_path):
    """With anchors of 8 strides, IoU thresholds give tiny objects no positives (paper, Tables 4 and 7)."""
    slim = {"backbone.depth": 10, "rpn.pre_nms": 300, "rpn.proposals": 100, "roi.sampler.num": 64}
    run = {"imgsz": 256, "epochs": 4, "lr_steps": [3], "val": False, "plots": False, "workers": 0, "seed": 0}
    found = {}
    for name in ("faster-rcnn-r18", "faster-rcnn-r18-nwdrka"):
        model = Model(f"{name}.yaml", overrides=slim)
        model.train(data="toy-easy.yaml", project=str(tmp_path / name), **run)
        found[name] = Model(Path(model.trainer.last)).val(data="toy-easy.yaml", imgsz=256, plots=False).AP50
    assert found["faster-rcnn-r18-nwdrka"] >= found["faster-rcnn-r18"] + 0.3, found


@pytest.mark.slow
def test_fcos_finds_toy_objects(tmp_path):
    """These 3 epochs gave an AP50 of .69."""
    slim = {"backbone.depth": 10, "neck.channels": 32, "head.channels": 32, "head.convs": 1, "head.norm_groups": 8}
    run = {"imgsz": 256, "epochs": 3, "lr_steps": [2], "lr0": 0.02, "warmup_iters": 20, "val": False, "plots": False}
    model = Model("fcos-r18.yaml", overrides=slim)
    model.train(data="toy-easy.yaml", project=str(tmp_path), workers=0, seed=0, **run)
    found = Model(Path(model.trainer.last)).val(data="toy-easy.yaml", imgsz=256, plots=False)
    assert found.AP50 >= 0.5, found.AP50
