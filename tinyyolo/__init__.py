"""tinyyolo: detection of tiny objects (2-16 px) in aerial images by normalised Wasserstein distance ranking.

`Model` is imported on first use, so that `tinyyolo.boxes` and `tinyyolo --help` stay light.
"""

__version__ = "0.1.0"
__all__ = ["Model"]


def __getattr__(name: str):
    if name == "Model":
        from tinyyolo.engine.model import Model

        return Model
    raise AttributeError(f"module 'tinyyolo' has no attribute {name!r}")
