"""What a GPU must do as a CPU does; skipped without one. One command: python -m pytest tests/test_cuda.py

No machine with a GPU has run this yet. Where there is none, the same questions are put to the CPU itself as far as it
can answer: which operations wait for a number, and that nothing in a step is made on another device than its input.
"""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.assigners.test_assigners import BY_NAME
from tests.detectors.test_detectors import FAMILIES, TINY
from tests.engine.test_engine import TINY as YOLO
from tinyyolo.assigners.points import FoveaAssigner, InsideAssigner, NearestAssigner
from tinyyolo.boxes.anchors import AnchorGrid
from tinyyolo.config import load_model_yaml
from tinyyolo.detectors.build import build_model

GPU = torch.cuda.is_available()
cuda = pytest.mark.skipif(not GPU, reason="no GPU")
SIDE, CLASSES = 256, 3
GRID = AnchorGrid(strides=(4, 8, 16), scales=(2, 4), ratios=(0.5, 1))
POINTS = AnchorGrid(strides=(4, 8, 16), sizes=[[(s, s)] for s in (4, 8, 16)], center_offset=0.5)
SQUARES = AnchorGrid(strides=(4, 8, 16), sizes=[[(12, 12)], [(24, 24)], [(48, 48)]], center_offset=0.5)
RANGES = [[0, 16], [16, 32], [32, 1e8]]
RULES = {name: (assigner, SQUARES if name == "cells" else GRID) for name, assigner in BY_NAME.items()}
RULES |= {"inside": (InsideAssigner(RANGES), POINTS), "nearest": (NearestAssigner(), POINTS)}
RULES |= {"centre": (InsideAssigner(RANGES, 1.5), POINTS), "fovea": (FoveaAssigner(RANGES), POINTS)}
MODELS = {"tinyyolo-n": YOLO, **{name: TINY[name] for name in FAMILIES}}
# What makes the CPU wait for a device: a number, or a shape that depends on values.
WAITING = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "item")
DENSE = ("tinyyolo-n", "retinanet-r18-nwdrka", "yolov3-slim", "ssd-slim")
CLOSE = 0.05  # px


def objects(count, seed=0):
    """Boxes (M, 4) of 3 to 20 px."""
    rng = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(count, 2, generator=rng) * (SIDE - 24), 3 + 17 * torch.rand(count, 2, generator=rng)
    return torch.cat((corner, corner + size), 1)


def batch(count, device, images=2):
    """As the dataset collates it, `count` objects an image."""
    torch.manual_seed(1)
    boxes = torch.cat([objects(count, i) for i in range(images)]) / SIDE
    middles, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    out = {
        "img": torch.rand(images, 3, SIDE, SIDE),
        "bboxes": torch.cat((middles, sizes), 1),
        "cls": torch.arange(len(boxes)).remainder(CLASSES).float()[:, None],
        "batch_idx": torch.arange(images).repeat_interleave(count).float(),
    }
    return {key: value.to(device) for key, value in out.items()}


def detector(name, device="cpu"):
    torch.manual_seed(0)
    return build_model(load_model_yaml(name, MODELS[name]), CLASSES).to(device)


class Waits(TorchDispatchMode):
    """Counts the operations within this context for which a GPU would be waited for."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in WAITING:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


# ---- on any machine


@pytest.mark.parametrize("name", RULES)
def test_an_assigner_waits_as_often_for_many_objects_as_for_few(name):
    assigner, grid = RULES[name]
    found = []
    for count in (5, 40):
        given = [objects(count, i) for i in range(2)]
        assigner.on_grid_batch(grid, (SIDE, SIDE), given)  # what is remembered of the lattice
        with Waits() as waits:
            assigner.on_grid_batch(grid, (SIDE, SIDE), given)
        found.append(sum(waits.counts.values()))
    assert found[1] <= found[0] + 4, found  # slices of a matrix that would be too large, not objects


# ---- with a GPU


@pytest.fixture(autouse=True)
def whole_floats():
    """Without TF32, whose products have ten bits."""
    if GPU:
        before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        yield
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    else:
        yield


@cuda
@pytest.mark.parametrize("name", RULES)
def test_an_assigner_says_the_same_index_by_index(name):
    assigner, grid = RULES[name]
    given, regions = [objects(60, i) for i in range(3)], [objects(3, 9 + i) for i in range(3)]
    expected = assigner.on_grid_batch(grid, (SIDE, SIDE), given, regions)
    there = [[boxes.cuda() for boxes in some] for some in (given, regions)]
    for one, other in zip(assigner.on_grid_batch(grid, (SIDE, SIDE), *there), expected, strict=True):
        assert one.gt_index.is_cuda
        torch.testing.assert_close(one.gt_index.cpu(), other.gt_index, rtol=0, atol=0)


@cuda
@pytest.mark.parametrize("precision", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_a_step_has_finite_losses_and_the_gradients_of_the_cpu(name, precision, record_property):
    here, there = detector(name).train(), detector(name, "cuda").train()
    here.loss(batch(20, "cpu"))[0].backward()
    torch.cuda.reset_peak_memory_stats()
    with torch.autocast("cuda", precision, enabled=precision != torch.float32):
        loss, items = there.loss(batch(20, "cuda"))
    (loss * (1024 if precision == torch.float16 else 1)).backward()
    record_property("MiB", torch.cuda.max_memory_allocated() / 2**20)
    assert torch.isfinite(loss) and all(torch.isfinite(value) for value in items.values())
    for (key, one), other in zip(there.named_parameters(), here.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), key
        assert one.grad is None or torch.isfinite(one.grad).all(), key


@cuda
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", DENSE)
def test_boxes_are_those_of_the_cpu(name, half):
    here, there, images = detector(name).eval(), detector(name, "cuda").eval(), batch(1, "cpu")["img"]
    with torch.no_grad(), torch.autocast("cuda", torch.float16, enabled=half):
        found, expected = there(images.cuda())[0].float().cpu(), here(images)[0]
    limits = (CLOSE, 2e-2) if half else (CLOSE, 1e-4)
    for part, limit in zip((slice(0, 4), slice(4, None)), limits, strict=True):
        torch.testing.assert_close(found[:, part], expected[:, part], rtol=0, atol=limit)


@cuda
@pytest.mark.parametrize("name", [name for name in MODELS if name not in DENSE])
def test_the_best_regions_are_those_of_the_cpu(name):
    here, there, images = detector(name).eval(), detector(name, "cuda").eval(), batch(1, "cpu")["img"]
    with torch.no_grad():
        found = there.detect(there.features(images.cuda()), (SIDE, SIDE))
        expected = here.detect(here.features(images), (SIDE, SIDE))
    for (boxes, *_), (own, *_) in zip(found, expected, strict=True):
        far = (own[:20, None] - boxes.cpu()[None]).abs().amax(-1)
        assert len(own) == 0 or (far.amin(1) < CLOSE).float().mean() > 0.9  # of equal scores the order is chance


@cuda
@pytest.mark.parametrize("name", MODELS)
def test_a_step_waits_as_often_for_many_objects_as_for_few(name):
    from torch.profiler import ProfilerActivity, profile

    model, counts = detector(name, "cuda").train(), []
    for count in (5, 5, 60):
        given = batch(count, "cuda")
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            model.loss(given)[0].backward()
        names = Counter(event.name for event in profiler.events())
        counts.append(sum(names[name] for name in ("cudaStreamSynchronize", "cudaDeviceSynchronize")))
    assert counts[2] <= counts[1] + 20, counts
