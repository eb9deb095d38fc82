"""What ultralytics' engine asks of a model and what we ask of ultralytics: fails first when an upgrade moves a seam."""

import importlib
import inspect
import math
import sys
import types

import pytest
import torch
import ultralytics
import ultralytics.engine.trainer
import ultralytics.engine.validator
import ultralytics.optim.muon
from torch import nn
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.engine.validator import BaseValidator
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import SETTINGS
from ultralytics.utils.torch_utils import model_info_for_loggers

from tests.engine.test_engine import TINY, trained
from tests.test_cfg import batch_of
from tinyyolo import compat
from tinyyolo.config import load_model_yaml
from tinyyolo.detectors.build import build_model

SIDE = 64
OBJECTS = [[0.3, 0.3, 0.1, 0.1], [0.6, 0.6, 0.2, 0.1]]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(load_model_yaml("tinyyolo-n.yaml", TINY), 2)


def test_version_is_the_one_the_seams_were_read_in():
    assert ultralytics.__version__ == "8.4.190"


def test_a_batch_gives_the_loss_and_its_parts(model):
    total, parts = model.train()(batch_of(SIDE, OBJECTS))
    assert total.requires_grad and not any(part.requires_grad for part in parts.values())
    torch.testing.assert_close(total.detach(), sum(parts.values()))


def test_validation_loss_comes_from_the_cached_maps_under_the_same_names(model):
    batch = batch_of(SIDE, OBJECTS)
    with torch.no_grad():
        _, parts = model.eval().loss(batch, model(batch["img"]))
    assert set(parts) == set(model.train()(batch)[1])


def test_backend_passes_augment_and_embed(model):
    y, _ = model.eval()(torch.rand(1, 3, SIDE, SIDE), augment=False, embed=None)
    assert y.shape[1] == 4 + model.nc


def test_attributes_the_engine_reads(model):
    assert isinstance(model, BaseModel) and model.task == "detect" and hasattr(model, "criterion")
    assert isinstance(model.stride, torch.Tensor) and isinstance(model.yaml, dict) and isinstance(model.names, dict)
    assert model.model[-1] is model.bbox_head
    model.set_head_attr(max_det=7)


def test_the_view_of_children_names_no_tensor(model):
    assert not [key for key in model.state_dict() if key.startswith("model.")]


def test_class_is_importable_by_name(model):
    cls = type(model)
    assert getattr(importlib.import_module(cls.__module__), cls.__name__) is cls


def test_moving_the_model_moves_every_tensor(model):
    assert {t.dtype for t in model.half().state_dict().values() if t.is_floating_point()} == {torch.float16}
    model.float()


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (
            BaseTrainer,
            ["_setup_train", "_build_train_pipeline", "_setup_scheduler", "_get_warmup_iterations", "_model_train"]
            + ["_handle_nan_recovery", "check_resume", "resume_training", "save_model", "final_eval", "optimizer_step"],
        ),
        (
            BaseValidator,
            ["init_metrics", "postprocess", "update_metrics", "get_stats", "finalize_metrics", "gather_stats"],
        ),
        (ultralytics.engine.trainer, ["check_amp"]),
        (ultralytics.engine.validator, ["check_det_dataset"]),
        (ultralytics.utils.torch_utils, ["NUM_THREADS"]),
        (ultralytics.utils.plotting, ["check_font"]),
        (ultralytics.utils.patches, ["_image_open"]),
        (ultralytics.utils.events, ["events"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_we_override_or_patch_is_still_there(owner, names):
    assert not [name for name in names if not hasattr(owner, name)]


def test_the_loop_still_calls_back_in_the_order_we_rely_on():
    source = inspect.getsource(BaseTrainer._do_train)
    order = [
        "on_train_start",
        "on_train_epoch_start",
        "self._model_train()",
        "on_train_batch_start",
        "self.optimizer_step()",
    ]
    assert [source.index(word) for word in order] == sorted(source.index(word) for word in order)


def test_loggers_are_attached_and_find_what_they_read(tiny_set, monkeypatch):
    """A stand-in for TensorBoard's callbacks, which upstream empties under pytest, reads what all of its loggers do."""
    seen, closed = [], []

    def read(trainer):
        assert trainer.validator.confusion_matrix is None and trainer.validator.jdict == []  # else comet and dvc log it
        assert all("timestamp" in plot for plot in {**trainer.plots, **trainer.validator.plots}.values())
        losses = trainer.label_loss_items(trainer.tloss, prefix="train")
        model_info_for_loggers(trainer)
        seen.append({**losses, **trainer.lr, **trainer.metrics, **trainer.validator.metrics.results_dict})

    logger = types.ModuleType("ultralytics.utils.callbacks.tensorboard")
    logger.callbacks = {"on_fit_epoch_end": read, "teardown": closed.append}
    monkeypatch.setitem(sys.modules, logger.__name__, logger)
    monkeypatch.setitem(SETTINGS, "tensorboard", True)
    model = trained(tiny_set, plots=True)
    assert closed == [model.trainer] and seen
    assert {"train/box", "val/box", "metrics/AP", "lr/pg0"} <= set(seen[0])
    assert all(math.isfinite(float(value)) for value in seen[0].values())


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (3, 5, 5), (2, 12, 40)])
def test_muon_on_the_cpu_is_upstreams_in_float32(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = ultralytics.optim.muon.zeropower_via_newtonschulz5(matrices)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, compat.upstream_orthogonalised(matrices).float(), atol=0.05, rtol=0.05)
    assert ((values := torch.linalg.svdvals(found)) > 0.6).all() and (values < 1.3).all()


def test_batch_norm_of_the_anchor_yolo_is_upstreams():
    norms = [m for m in build_model(load_model_yaml("tinyyolo-n.yaml")).modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.03, 1e-3)}
