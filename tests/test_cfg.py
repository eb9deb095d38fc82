"""Every model YAML builds, runs, learns and accepts an image without objects."""

import pytest
import torch

from tinyyolo.config import UserError, load_model_yaml, yaml_names
from tinyyolo.detectors.build import build_model

BIG = ("r50", "r101", "w32")
SMALL_SIZE = 128
MODELS = yaml_names("cfg/models")
QUICK = [name for name in MODELS if not any(size in name for size in BIG)]


def batch_of(size, boxes):
    """An engine batch of two images; objects in the first only."""
    count = len(boxes)
    return {
        "img": torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)),
        "batch_idx": torch.zeros(count),
        "cls": torch.arange(count).view(-1, 1) % 2,
        "bboxes": torch.tensor(boxes).view(-1, 4),
        "ignore_bboxes": torch.tensor([[0.8, 0.8, 0.1, 0.1]]),
        "ignore_idx": torch.zeros(1),
    }


@pytest.mark.parametrize("name", MODELS)
def test_yaml_loads_and_says_what_it_is(name):
    spec = load_model_yaml(name)
    assert spec["detector"] in {"one_stage", "two_stage"}
    assert "base" not in spec


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name not in QUICK)]
)
def test_yaml_builds_runs_and_learns(name):
    torch.manual_seed(0)
    model = build_model(load_model_yaml(name), num_classes=3)
    model.train()
    total, parts = model.loss(
        batch_of(SMALL_SIZE, [[0.3, 0.3, 0.08, 0.06], [0.6, 0.5, 0.1, 0.12], [0.2, 0.7, 0.3, 0.3]])
    )
    assert torch.isfinite(total) and all(torch.isfinite(part) for part in parts.values())
    total.backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    empty, _ = model.loss(batch_of(SMALL_SIZE, []))
    assert torch.isfinite(empty)
    model.eval()
    with torch.no_grad():
        y, _ = model(torch.rand(2, 3, SMALL_SIZE, SMALL_SIZE))
    assert y.shape[:2] == (2, 4 + 3) and y.dtype == torch.float32
    assert torch.isfinite(y).all() and y[:, 4:].min() >= 0 and y[:, 4:].max() <= 1


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"head.assigner.topq": 3}, "did you mean 'topk'"),
        ({"head.assigner.type": "rankin"}, "did you mean 'ranking'"),
        ({"hed.assigner.topk": 3}, "did you mean 'head'"),
        ({"head.assigner.topk": 0}, "topk"),
        ({"head.box_loss": {"cious": 1.0}}, "cious"),
        ({"backbone.channels": [8, 8]}, "channels"),
        ({"detector": "three_stage"}, "one_stage"),
    ],
)
def test_mistakes_are_one_line_with_choices(overrides, says):
    with pytest.raises(UserError, match=says) as caught:
        build_model(load_model_yaml("tinyyolo-n.yaml", overrides))
    assert "\n" not in str(caught.value)
