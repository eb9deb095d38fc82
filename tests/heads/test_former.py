"""Models of a seed give the numbers they gave before their heads shared one base, and have the tensors they had."""

import zlib

import pytest
import torch

from tinyyolo.config import load_model_yaml
from tinyyolo.detectors.build import build_model

HW = (64, 96)
TARGETS = [
    {
        "boxes": torch.tensor([[10.0, 10, 18, 17], [40, 20, 70, 46]]),
        "labels": torch.tensor([1, 0]),
        "ignore": torch.zeros(0, 4),
    },
    {
        "boxes": torch.tensor([[5.0, 40, 14, 47]]),
        "labels": torch.tensor([2]),
        "ignore": torch.tensor([[40.0, 0, 90, 60]]),
    },
]
EXPECTED = {
    "tinyyolo-n-p5": {"names": 2170963584, "losses": [3.039252, 10.26915], "means": [40.00001, 3.561172e-05]},
    "retinanet-r18-nwdrka": {"names": 1910927945, "losses": [38.88684, 7.930168], "means": [40.2865, 0.05963677]},
    "faster-rcnn-r18": {
        "names": 1195827233,
        "losses": [0.6800445, 0.005439005, 0.8824077, 0.08965398],
        "means": [29.76638, 0.04150209],
    },
    "cascade-rcnn-r18-nwdrka": {
        "names": 2367082116,
        "losses": [1.192842, 0.154922, 5.661327, 0.06346051, 0.4004819, 0.00703632, 0.8832443, 0.0060339],
        "means": [28.60718, 0.211429],
    },
}


def numbers_of(name):
    """(crc32 of names and shapes, losses, sums of boxes and scores)."""
    torch.manual_seed(0)
    model = build_model(load_model_yaml(name), 3)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "head" in key and p.dim() > 1:  # away from the tiny initial values, so that boxes differ
                p.normal_(std=0.05)
    names = "\n".join(f"{key} {list(value.shape)}" for key, value in model.state_dict().items())
    images = torch.rand(2, 3, *HW)
    maps = model.eval().features(images)
    losses = model.losses(maps, TARGETS, HW, sample=False)
    boxes, scores = model.candidates(maps, HW)
    total = boxes.sum().item() / boxes.numel(), scores.sum().item() / scores.numel()
    return zlib.crc32(names.encode()), [value.item() for value in losses.values()], total


@pytest.mark.parametrize("name", EXPECTED)
def test_numbers_of_a_seed(name):
    names, losses, (box, score) = numbers_of(name)
    expected = EXPECTED[name]
    assert names == expected["names"]
    torch.testing.assert_close(losses, expected["losses"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close([box, score], expected["means"], rtol=1e-4, atol=1e-6)
