"""`tinyyolo models`: what comes with the package, its size and its published figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from tinyyolo.config import load_model_yaml, yaml_names
from tinyyolo.detectors.build import build_model

FIGURES = ("AP", "AP50", "AP75", "AP_vt", "AP_t", "AP_s", "AP_m")  # percent, as printed in the paper


class Row(NamedTuple):
    """One model YAML: its name, parameters with its default number of classes, and `published:`."""

    name: str
    parameters: int
    published: Mapping[str, Any]


def rows() -> Iterator[Row]:
    """Every model YAML; the models are built without memory for their weights."""
    for name in yaml_names("cfg/models"):
        spec = load_model_yaml(name)
        with torch.device("meta"):
            model = build_model(spec)
        count = sum(parameter.numel() for parameter in model.parameters())
        yield Row(name.removesuffix(".yaml"), count, spec.get("published") or {})


def models() -> None:
    """List the models that come with the package: parameters in millions, published figures on AI-TOD-v2 test.

    The figures are the paper's (percent), not reruns; a model without them is ours, or a slim one for tests.
    """
    table = [["model", "M params", *FIGURES]]
    for row in rows():
        figures = [row.published.get(key) for key in FIGURES]
        cells = ["-" if figure is None else f"{figure:.1f}" for figure in figures]
        table.append([row.name, f"{row.parameters / 1e6:.2f}", *cells])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for name, *cells in table:
        print("  ".join([name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, widths[1:], strict=True))]))
