"""Every kind of detector as ONNX and OpenVINO: what it finds there is what its checkpoint finds."""

import pytest

from benchmarks.exports import built, row_of
from tinyyolo.config import UserError

MODELS = {  # the small ones of each kind; benchmarks/exports.py looks at all
    "tinyyolo-n": ["onnx", "openvino", "torchscript", "safetensors"],
    "retinanet-r18-nwdrka": ["onnx"],
    "fcos-r18": ["onnx"],
    "ssd-slim": ["onnx", "openvino"],
    "yolov3-slim": ["onnx"],
    "faster-rcnn-r18-rfla": ["onnx", "openvino"],
    "cascade-rcnn-r18-nwdrka": ["onnx"],
    "grid-rcnn-r18-nwdrka": ["onnx"],
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
def test_what_is_not_offered_is_refused():
    with pytest.raises(UserError, match="no deformable convolution; format=onnx runs by onnxruntime"):
        row_of("openvino", built("detectors-slim-rfla"))
