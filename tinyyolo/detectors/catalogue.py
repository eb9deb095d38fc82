"""`tinyyolo models`: what comes with the package, its size and its published figures."""

from __future__ import annotations

import torch

from tinyyolo.config import load_model_yaml, yaml_names
from tinyyolo.detectors.build import build_model
from tinyyolo.io import table

FIGURES = ("AP", "AP50", "AP75", "AP_vt", "AP_t", "AP_s", "AP_m")  # percent, as printed in the paper


def models() -> None:
    """List the models that come with the package: parameters in millions, published figures on AI-TOD-v2 test.

    The figures are the paper's (percent), not reruns; a model without them is ours, or a slim one for tests.
    """
    rows = [["model", "M params", *FIGURES]]
    for name in yaml_names("cfg/models"):
        spec = load_model_yaml(name)
        with torch.device("meta"):  # without memory for the weights
            count = sum(parameter.numel() for parameter in build_model(spec).parameters())
        published = spec.get("published") or {}
        figures = [f"{published[key]:.1f}" if key in published else "-" for key in FIGURES]
        rows.append([name.removesuffix(".yaml"), f"{count / 1e6:.2f}", *figures])
    print(table(rows))
