"""What ultralytics would do silently to tiny objects, and that we do not; each test fails without its fix."""

import random

import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data.augment import Compose, RandomPerspective
from ultralytics.utils.instance import Instances

from tests.engine.test_engine import RUN, TINY, trained
from tests.support.sets import SIZE, write_set
from tinyyolo import Model
from tinyyolo.boxes.nms import grouped_nms, select
from tinyyolo.compat import TinyPerspective
from tinyyolo.config import UserError, load_model_yaml
from tinyyolo.datasets import spec as data_yaml
from tinyyolo.datasets.train.dataset import TinyDataset, replace_steps
from tinyyolo.detectors.build import build_model
from tinyyolo.engine.arguments import engine_args, resolve
from tinyyolo.engine.trainer import TinyTrainer


class TestSuppression:
    def test_classes_are_not_shifted_apart(self):
        """At an offset of 7 * 7680 px a float32 is good to 1/256 px; these two boxes then differ in IoU."""
        a, b = [100.0, 100.0, 102.0, 102.0], [100.6665, 100.0, 102.6665, 102.0]
        boxes = torch.tensor([a, b])
        overlap = (102 - 100.6665) / (102.6665 - 100)
        labels, scores = torch.tensor([7, 7]), torch.tensor([0.9, 0.8])
        assert grouped_nms(boxes, scores, labels, overlap + 1e-4).tolist() == [0, 1]
        assert grouped_nms(boxes, scores, labels, overlap - 1e-4).tolist() == [0]

    def test_no_image_is_dropped_by_time(self, monkeypatch):
        """A clock that jumps an hour at each look changes nothing."""
        hours = iter(range(0, 10**9, 3600))
        monkeypatch.setattr("time.time", lambda: float(next(hours)))
        boxes = torch.rand(500, 2).repeat(1, 2) * 90 + torch.tensor([0.0, 0, 5, 5])
        scores = torch.rand(500, 2)
        kept = [len(select(boxes, scores, 0.3, 0.5, 3000)[0]) for _ in range(4)]
        assert kept[0] > 0 and len(set(kept)) == 1

    def test_max_det_and_order(self):
        grid = torch.arange(40.0).mul(10)
        boxes = torch.stack([grid, grid, grid + 5, grid + 5], 1)
        _, scores, _ = select(boxes, torch.linspace(0.1, 0.9, 40)[:, None], 0.05, 0.5, 12)
        assert len(scores) == 12 and scores.tolist() == sorted(scores.tolist(), reverse=True)

    def test_nothing_is_normal(self):
        boxes, scores, labels = select(torch.zeros(0, 4), torch.zeros(0, 3), 0.05, 0.5, 10)
        assert boxes.shape == (0, 4) and scores.shape == labels.shape == (0,)

    @pytest.mark.parametrize(("classes", "expected"), [(None, [0, 1]), ([1], [1]), ([], []), ([9], [])])
    def test_classes(self, classes, expected):
        _, _, labels = select(torch.tensor([[0.0, 0, 5, 5]]), torch.tensor([[0.9, 0.8]]), 0.1, 0.5, 10, classes=classes)
        assert labels.tolist() == expected


class TestAugmentation:
    def labels(self, image, boxes):
        return {
            "img": image,
            "cls": np.zeros((len(boxes), 1), np.float32),
            "instances": Instances(
                np.array(boxes, np.float32), np.zeros((0, 1000, 2), np.float32), bbox_format="xyxy", normalized=False
            ),
        }

    def warp(self, step, image, boxes, seed=0):
        random.seed(seed)
        return step(self.labels(image, boxes))

    @pytest.mark.parametrize("side", [1, 2, 3])
    def test_tiny_boxes_keep_their_label(self, side):
        image = np.zeros((64, 64, 3), np.uint8)
        settings = {"degrees": 0, "translate": 0.0, "scale": (0.7, 0.7), "size": (64, 64)}
        box = [[30, 30, 30 + side, 30 + side]]
        ours = self.warp(TinyPerspective(**settings), image, box)
        assert len(ours["instances"]) == len(ours["cls"]) == 1
        if side < 3:
            assert len(self.warp(RandomPerspective(**settings), image, box)["instances"]) == 0, "upstream keeps it now"

    @pytest.mark.parametrize("scale", [0.5, 0.75, 1.5])
    def test_pixels_and_boxes_move_alike(self, scale):
        x, y = np.meshgrid(np.arange(200) + 0.5, np.arange(200) + 0.5)
        blob = 220 * np.exp(-((x - 56) ** 2 + (y - 80) ** 2) / 50)  # smooth, so that thinning out pixels moves nothing
        image = np.repeat(blob[..., None], 3, axis=2).astype(np.uint8)
        out = self.warp(
            TinyPerspective(degrees=0, translate=0.1, scale=(scale, scale), size=(200, 200)),
            image,
            [[40, 60, 72, 100]],
            seed=4,
        )
        x1, y1, x2, y2 = out["instances"].bboxes[0]
        bright = np.zeros((200, 200))
        near = np.s_[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1]
        bright[near] = out["img"][near][..., 0]
        centres = np.arange(200) + 0.5
        middle = [(bright.sum(0) * centres).sum() / bright.sum(), (bright.sum(1) * centres).sum() / bright.sum()]
        np.testing.assert_allclose(middle, [(x1 + x2) / 2, (y1 + y2) / 2], atol=0.1)  # upstream: 0.25 at scale .5

    def test_box_almost_outside_is_dropped(self):
        before, after = np.array([[0, 0, 10, 10.0]]).T, np.array([[9.5, 0, 10, 10.0]]).T
        assert not TinyPerspective.box_candidates(before, after)[0]
        assert TinyPerspective.box_candidates(before, np.array([[5, 0, 10, 10.0]]).T)[0]

    def test_every_perspective_step_is_replaced(self):
        inner = RandomPerspective(size=(9, 9))
        steps = Compose([Compose([inner]), RandomPerspective(size=(5, 5))])
        replace_steps(steps)
        assert type(steps.transforms[0].transforms[0]) is TinyPerspective
        assert steps.transforms[0].transforms[0].size == (9, 9)
        assert type(steps.transforms[1]) is TinyPerspective

    def test_training_set_uses_it_and_keeps_duplicates(self, tmp_path):
        data = write_set(tmp_path / "set")
        spec = data_yaml.load(data)
        options = {"imgsz": SIZE, "augment": True, "hyp": default_hyp(), "batch_size": 2, "stride": 32, "pad": 0.0}
        dataset = TinyDataset(spec, "train", **options)
        kinds = [type(step) for step in walk(dataset.transforms)]
        assert TinyPerspective in kinds and RandomPerspective not in kinds
        notes = dataset.annotations
        assert sum(len(label["cls"]) for label in dataset.labels) == len(notes.boxes)


def walk(step):
    """Every transform of a Compose."""
    yield step
    for inner in getattr(step, "transforms", []):
        yield from walk(inner)
    if getattr(step, "pre_transform", None) is not None:
        yield from walk(step.pre_transform)


def default_hyp():
    return get_cfg(overrides=engine_args(resolve("train", {}, {})))


class TestRecipe:
    def test_defaults(self):
        args = resolve("train", {}, {"batch": 4})
        expected = {"nbs": 4, "warmup_bias_lr": 0.0, "iou": 0.5, "max_det": 3000}
        assert {key: args[key] for key in expected} == expected

    def test_what_the_user_says_wins_over_the_recipe(self):
        args = resolve("train", {"lr0": 0.1, "epochs": 12}, {"lr0": "1e-3"})
        assert (args["lr0"], args["epochs"]) == (1e-3, 12)

    def test_one_optimiser_step_per_batch(self, tiny_set):
        model = trained(tiny_set)
        assert model.trainer.accumulate == 1 and model.trainer.ema.updates == 3

    def test_published_schedule(self, tiny_set):
        """Steps, iteration warm-up, one parameter group with decay on everything, no clipping, no average."""
        rates = []
        model = Model("tinyyolo-n.yaml", overrides=TINY)
        model.add_callback("on_train_batch_end", lambda t: rates.append(t.optimizer.param_groups[0]["lr"]))
        recipe = {"optimizer": "SGD", "lr0": 0.1, "lr_steps": [2, 3], "warmup_iters": 4, "warmup_factor": 0.1}
        recipe |= {"clip_grad": None, "ema": False, "decay_all": True, "weight_decay": 1e-4}
        model.train(data=tiny_set, **{**RUN, "epochs": 4}, **recipe)
        np.testing.assert_allclose(rates[:4], [0.1 * (0.1 + 0.9 * i / 4) for i in range(4)], rtol=1e-6)
        np.testing.assert_allclose([rates[5], rates[6], rates[9]], [0.1, 0.01, 0.001], rtol=1e-6)
        (group,) = model.trainer.optimizer.param_groups
        assert (group["weight_decay"], group["nesterov"]) == (1e-4, False)
        assert len(group["params"]) == len(list(model.trainer.model.parameters()))
        raw = model.trainer.model.state_dict()
        for name, value in model.trainer.ema.ema.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(value, raw[name], rtol=0, atol=0)

    def test_schedule_of_fcos(self, tiny_set):
        """A constant warm-up; biases, but not those of norms, with twice the rate and no decay."""
        rates = []
        model = Model("tinyyolo-n.yaml", overrides=TINY)
        model.add_callback(
            "on_train_batch_end", lambda t: rates.append([group["lr"] for group in t.optimizer.param_groups])
        )
        recipe = {"optimizer": "SGD", "lr0": 0.1, "lr_steps": [2], "warmup_iters": 4, "warmup_factor": 0.25}
        recipe |= {"warmup_constant": True, "decay_all": True, "bias_lr": 2, "bias_decay": False}
        model.train(data=tiny_set, **{**RUN, "epochs": 3}, **recipe, weight_decay=1e-4)
        np.testing.assert_allclose(rates[3], [0.025, 0.05], rtol=1e-6)
        np.testing.assert_allclose(rates[4], [0.1, 0.2], rtol=1e-6)
        np.testing.assert_allclose(rates[6], [0.01, 0.02], rtol=1e-6)
        rest, biases = model.trainer.optimizer.param_groups
        assert (rest["weight_decay"], biases["weight_decay"]) == (1e-4, 0)
        named = dict(model.trainer.model.named_parameters())
        own = {id(p) for name, p in named.items() if name.endswith("bias") and ".bn." not in name}
        assert own and {id(p) for p in biases["params"]} == own
        assert len(rest["params"]) == len(named) - len(own)

    def test_gradients_are_not_clipped_when_the_recipe_says_so(self, tiny_set, monkeypatch):
        called = []
        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *a, **k: called.append(k))
        trained(tiny_set, clip_grad=None)
        assert not called
        trained(tiny_set)
        assert called and called[0]["max_norm"] == 10.0

    def test_rate_scales_with_the_batch(self, tiny_set):
        given = {"lr0": 0.004, "lr_batch": 4, "warmup_epochs": 0, "optimizer": "SGD"}
        for batch, rate in ((2, 0.002), (4, 0.004)):
            trainer = trained(tiny_set, batch=batch, **given).trainer
            np.testing.assert_allclose(trainer.optimizer.param_groups[0]["initial_lr"], rate)
            assert trainer.args.lr0 == 0.004, "a resumed run would scale it again"

    def test_frozen_parameters_stay_frozen(self, tiny_set):
        model = Model("tinyyolo-n.yaml", overrides=TINY)
        make = TinyTrainer.get_model

        class Freezing(TinyTrainer):
            def get_model(self, *args, **kwargs):
                detector = make(self, *args, **kwargs)
                detector.backbone.stem.requires_grad_(False)
                self.before = detector.backbone.stem.conv.weight.detach().clone()
                return detector

        model.train(trainer=Freezing, data=tiny_set, **RUN)
        trainer = model.trainer
        assert not trainer.model.backbone.stem.conv.weight.requires_grad
        torch.testing.assert_close(trainer.model.backbone.stem.conv.weight, trainer.before, rtol=0, atol=0)

    def test_nan_stops_with_the_cause(self, tiny_set):
        model = Model("tinyyolo-n.yaml", overrides=TINY)
        model.add_callback("on_train_batch_end", lambda t: setattr(t, "loss", t.loss * float("nan")))
        with pytest.raises(UserError, match=r"epoch 1.*lr0"):
            model.train(data=tiny_set, **RUN)


class TestPrecisionAndSize:
    def test_boxes_are_float32_under_mixed_precision(self):
        torch.manual_seed(0)
        model = build_model(load_model_yaml("tinyyolo-n.yaml", TINY), 2).eval()
        image = torch.rand(1, 3, 64, 64)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            y, _ = model(image)
            boxes, scores = model.candidates(model.features(image), (64, 64))
        assert y.dtype == boxes.dtype == scores.dtype == torch.float32

    @pytest.mark.parametrize("size", [800, 416])
    def test_an_image_keeps_its_size(self, tmp_path, size, monkeypatch):
        """Not rounded to the largest stride, not padded by half a stride in validation."""
        data = write_set(tmp_path / "set", size=size, counts={"train": 2, "val": 2})
        seen = []
        make = TinyTrainer.get_model

        def watched(self, *args, **kwargs):
            model = make(self, *args, **kwargs)
            model.register_forward_pre_hook(lambda module, inputs: seen.append(shape_of(inputs[0])))
            return model

        monkeypatch.setattr(TinyTrainer, "get_model", watched)
        model = Model("tinyyolo-n.yaml", overrides=TINY)
        kept = []
        model.add_callback("on_fit_epoch_end", lambda trainer: kept.extend(seen))  # then upstream warms a copy up
        model.train(data=data, **{**RUN, "imgsz": size, "val": False})
        seen = kept
        assert len(seen) >= 2
        model.model.register_forward_pre_hook(lambda module, inputs: seen.append(shape_of(inputs[0])))
        model.predict(tmp_path / "set" / "images" / "val_0.png", imgsz=size, verbose=False)
        assert set(seen) == {(size, size)}, seen


def shape_of(x):
    """(H, W) of what enters a model: a batch dict or images."""
    return tuple((x["img"] if isinstance(x, dict) else x).shape[-2:])


class TestClassWeights:
    """`cls_pw` counts ignore regions as a class upstream, which fails, and reaches upstream's own loss only."""

    def test_rare_classes_weigh_more_and_an_object_weighs_one_on_average(self, tmp_path):
        data = write_set(tmp_path, ignore=True)
        head = trained(data, cls_pw=0.5).trainer.model.bbox_head
        notes = data_yaml.load(str(data)).read("train")
        counts = np.bincount(notes.labels[notes.labels >= 0], minlength=2)
        weights = head.class_weights.numpy()
        np.testing.assert_allclose(weights[0] / weights[1], np.sqrt(counts[1] / counts[0]), rtol=1e-5)
        np.testing.assert_allclose((weights * counts).sum() / counts.sum(), 1, rtol=1e-5)

    def test_the_class_loss_follows_them(self):
        torch.manual_seed(0)
        model = build_model(load_model_yaml("tinyyolo-n.yaml"), 2).eval()
        boxes = torch.tensor([[10.0, 10, 18, 18]])
        maps = model.features(torch.rand(1, 3, 64, 64))
        losses = {}
        for factor in (1.0, 2.0, 3.0):
            model.bbox_head.class_weights = torch.tensor([factor, 1.0])
            for label in (0, 1):
                targets = [{"boxes": boxes, "labels": torch.tensor([label])}]
                losses[label, factor] = model.losses(maps, targets, (64, 64))
                torch.testing.assert_close(losses[label, factor]["box"], losses[label, 1.0]["box"])
        # The background weighs 1 whatever the class; an object's anchors weigh what its class does.
        one, two, three = (losses[0, factor]["cls"] for factor in (1.0, 2.0, 3.0))
        assert two > one * 1.01
        torch.testing.assert_close(three - one, 2 * (two - one), rtol=1e-4, atol=0)
        torch.testing.assert_close(losses[1, 3.0]["cls"], losses[1, 1.0]["cls"])

    def test_other_models_refuse(self, tiny_set, tmp_path):
        with pytest.raises(UserError, match=r"cls_pw=0\.5: only the anchor YOLO"):
            Model("retinanet-r18-nwdrka.yaml").train(data=tiny_set, **RUN, cls_pw=0.5)
        assert not (tmp_path / "runs").exists()
