"""Every kind of detector as ONNX: what it finds there is what its checkpoint finds."""

import numpy as np
import pytest
import torch

from tests.support.checkpoints import lively
from tinyyolo.config import UserError, load_model_yaml
from tinyyolo.detectors.build import build_model
from tinyyolo.export.compare import difference
from tinyyolo.export.metadata import describe
from tinyyolo.export.onnx import OnnxRuntime, onnx_model
from tinyyolo.export.openvino import openvino_files

SHAPES = ((1, 3, 128, 160), (3, 3, 96, 64))
MODELS = [
    "retinanet-r18-nwdrka.yaml",
    "fcos-r18.yaml",
    "ssd-slim.yaml",
    "faster-rcnn-r18-rfla.yaml",
    "cascade-rcnn-r18-nwdrka.yaml",
]


def built(name):
    torch.manual_seed(0)
    model = build_model(load_model_yaml(name), 3)
    lively(model)
    return model


def runtime_of(model, path):
    said = describe(model, [128, 160], "a", dynamic=True, nms=True, precision="float32")
    return OnnxRuntime(path, onnx_model(model, said).SerializeToString())


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_it_finds_what_its_checkpoint_finds(name, tmp_path):
    model = built(name)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.rand(*shape, generator=generator) for shape in SHAPES] + [torch.full((1, 3, 96, 96), 0.5)]
    seen = difference(model, runtime_of(model, tmp_path / "a.onnx").detect, batches, 1e-4)
    assert seen.seen > 100 and not seen.alone and seen.boxes < 1e-2 and seen.scores < 1e-4, seen.words


@pytest.mark.slow
def test_deformable_convolutions(tmp_path):
    """DetectoRS. In an image of one colour proposals score alike to the last bit, and either of two may go on."""
    model = built("detectors-slim-rfla.yaml")
    batches = [torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))]
    seen = difference(model, runtime_of(model, tmp_path / "a.onnx").detect, batches, 1e-4)
    assert seen.seen > 100 and seen.alone < 0.02 * seen.seen and np.float32(seen.boxes) < 1e-2 and seen.scores < 1e-3
    with pytest.raises(UserError, match="no deformable convolution; format=onnx runs by onnxruntime"):
        openvino_files(model, {}, tmp_path, True, False)


@pytest.mark.slow
def test_heatmaps_of_grid_points(tmp_path):
    """Grid R-CNN. Untrained heatmaps are so flat that which cell is highest hangs on the last bit; here not."""
    model = built("grid-rcnn-r18-nwdrka.yaml")
    last = model.roi_head.grid_head.deconv2
    with torch.no_grad():
        last.weight.mul_(10)
        last.bias.fill_(0)
    batches = [torch.rand(*SHAPES[1], generator=torch.Generator().manual_seed(0)), torch.full((1, 3, 96, 96), 0.5)]
    seen = difference(model, runtime_of(model, tmp_path / "a.onnx").detect, batches, 1e-4)
    assert seen.seen > 100 and not seen.alone and seen.boxes < 1e-2 and seen.scores < 1e-4, seen.words
