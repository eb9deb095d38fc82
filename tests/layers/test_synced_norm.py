"""Batch norm over the images of two processes, the other of which is an image of this one."""

from copy import deepcopy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing import assert_close

from tinyyolo import together
from tinyyolo.layers.synced_norm import SyncedNorm, sync


@pytest.fixture
def twin(monkeypatch):
    """A second process that holds what this one holds."""
    monkeypatch.setattr(dist, "all_reduce", lambda tensor, *_: tensor.mul_(2))
    token = together.SHARING.set(True)
    yield
    together.SHARING.reset(token)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_two_processes_equal_one_with_all_images(momentum, twin):
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(3, momentum=momentum)
    nn.init.normal_(plain.weight)
    shared = nn.Sequential(deepcopy(plain))
    sync(shared)
    x, slope = torch.randn(2, 3, 4, 5) * 3 + 7, torch.randn(2, 3, 4, 5)
    own, whole = x.clone().requires_grad_(), torch.cat((x, x)).requires_grad_()
    for _ in range(2):
        found, expected = shared(own), plain(whole)
        assert_close(found, expected[:2])
    (found * slope).sum().backward()
    (expected * torch.cat((slope, slope))).sum().backward()
    assert_close(own.grad, whole.grad[:2], rtol=1e-4, atol=1e-5)
    assert_close(2 * shared[0].weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-4)
    assert shared.state_dict().keys() == {f"0.{key}" for key in plain.state_dict()}
    for key, value in plain.state_dict().items():
        assert_close(shared.state_dict()[f"0.{key}"], value)


def test_a_plain_norm_outside_a_shared_step_and_in_evaluation():
    plain, shared, x = nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3)), torch.randn(2, 3, 4, 4)
    sync(shared)
    assert type(shared[0]) is SyncedNorm and isinstance(shared[0], nn.BatchNorm2d)
    assert_close(shared(x), plain(x), rtol=0, atol=0)
    assert_close(shared.eval()(x), plain.eval()(x), rtol=0, atol=0)
