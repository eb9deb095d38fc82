"""The losses of processes that share a batch add up: every head divides by what the whole batch has."""

import pytest
import torch
from torch.testing import assert_close

from tests.test_cuda import MODELS, batch, detector
from tinyyolo import together

SUMS = ("yolov3-slim",)  # without a normaliser, as in the official code


@pytest.mark.parametrize("name", MODELS)
def test_of_two_processes_with_the_same_images_each_has_half(name, monkeypatch):
    model, given = detector(name).train(), batch(6, "cpu")
    with torch.no_grad():
        torch.manual_seed(3)
        alone = model.loss(given)[1]
        monkeypatch.setattr(together, "summed", lambda value: 2 * value)
        token = together.SHARING.set(True)
        torch.manual_seed(3)
        part = model.loss(given)[1]
        together.SHARING.reset(token)
    assert set(part) == set(alone)
    for key, value in alone.items():
        assert_close(part[key] * (1 if name in SUMS else 2), value, rtol=1e-5, atol=1e-6, msg=f"{key}: {{}}".format)


@pytest.mark.parametrize(("count", "least", "whole"), [(3, 1, 6), (0, 1, 1), (0.25, 0, 0.5)])
def test_the_least_counts_once_for_all(count, least, whole, monkeypatch):
    assert together.of_batch(count, least) == max(count, least)
    monkeypatch.setattr(together, "summed", lambda value: 2 * value)
    token = together.SHARING.set(True)
    assert together.of_batch(count, least) == whole
    assert together.of_batch(torch.tensor(float(count)), least).item() == whole
    together.SHARING.reset(token)
