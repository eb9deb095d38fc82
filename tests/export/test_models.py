"""Every kind of detector as ONNX and OpenVINO: what it finds there is what its checkpoint finds."""

import pytest
import torch

from benchmarks.exports import built, exported, row_of
from tinyyolo.config import UserError
from tinyyolo.export.compare import difference

MODELS = {  # the small ones of each kind; benchmarks/exports.py looks at all
    "tinyyolo-n": ["onnx", "openvino", "torchscript", "safetensors"],
    "retinanet-r18-nwdrka": ["onnx"],
    "fcos-r18": ["onnx"],
    "ssd-slim": ["onnx", "openvino"],
    "yolov3-slim": ["onnx"],
    "faster-rcnn-r18-rfla": ["onnx", "openvino"],
    "cascade-rcnn-r18-nwdrka": ["onnx"],
    "detectors-slim-rfla": ["onnx"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_it_finds_what_its_checkpoint_finds(name):
    """Boxes, scores, AP, thresholds, and nothing where there is nothing; one image, and three of another size."""
    model = built(name)
    rows = {form: row_of(form, model) for form in MODELS[name]}
    assert all(row.right for row in rows.values()), rows


@pytest.mark.slow
def test_heatmaps_of_grid_points(tmp_path):
    """Grid R-CNN. Untrained heatmaps are so flat that which cell is highest hangs on the last bit; here not."""
    model = built("grid-rcnn-r18-nwdrka")
    last = model.roi_head.grid_head.deconv2
    with torch.no_grad():
        last.weight.mul_(10)
        last.bias.fill_(0)
    batches = [torch.rand(3, 3, 96, 64, generator=torch.Generator().manual_seed(0)), torch.full((1, 3, 96, 96), 0.5)]
    seen = difference(model, exported(model, "onnx", tmp_path)[0], batches, 1e-4)
    assert seen.seen > 100 and not seen.alone and seen.boxes < 1e-2 and seen.scores < 1e-4, seen.words


@pytest.mark.slow
def test_what_is_not_offered_is_refused():
    with pytest.raises(UserError, match="no deformable convolution; format=onnx runs by onnxruntime"):
        row_of("openvino", built("detectors-slim-rfla"))
