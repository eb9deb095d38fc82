"""`tinyyolo models`: what comes with the package, its size and its published figures."""

from __future__ import annotations

import torch

from tinyyolo.config import load_model_yaml, yaml_names
from tinyyolo.detectors.build import build_model
from tinyyolo.io import table

DATA = "AI-TOD-v2"
FIGURES = ("AP", "AP50", "AP75", "AP_vt", "AP_t", "AP_s", "AP_m")  # percent, as printed in the papers


def models() -> None:
    """List the models that come with the package: parameters in millions, published figures on AI-TOD-v2 test.

    The figures are those of the papers (percent), not reruns; a model without them is ours, a slim one for tests, or
    published on other data.
    """
    rows = [["model", "M params", *FIGURES]]
    for name in yaml_names("cfg/models"):
        spec = load_model_yaml(name)
        with torch.device("meta"):  # without memory for the weights
            count = sum(parameter.numel() for parameter in build_model(spec).parameters())
        published = spec.get("published") or {}
        found = [published.get(key) if published.get("data") == DATA else None for key in FIGURES]
        figures = ["-" if figure is None else f"{figure:.1f}" for figure in found]
        rows.append([name.removesuffix(".yaml"), f"{count / 1e6:.2f}", *figures])
    print(table(rows))
