"""What the engine is told of a data YAML."""

from __future__ import annotations

from typing import Any

from tinyyolo.datasets import spec as data_yaml
from tinyyolo.datasets.spec import DataSpec


def data_dict(name: str | DataSpec) -> dict[str, Any]:
    """What the engine wants to know of a data YAML; `spec` is what our datasets use.

    Raises:
        UserError: no such YAML, or a fault in it.
    """
    spec = data_yaml.load(name)
    return {
        **{split: split for split in spec.splits},
        "val": "val" if "val" in spec.splits else next(iter(spec.splits)),
        "names": spec.names,
        "nc": len(spec.names),
        "channels": 3,
        "path": spec.path,
        "yaml_file": str(spec.file),
        "spec": spec,
    }
