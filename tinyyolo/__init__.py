"""tinyyolo: detection of tiny objects (2-16 px) in aerial images by normalised Wasserstein distance ranking.

`Model` is imported on first use, so that `tinyyolo.boxes` and `tinyyolo --help` stay light.
"""

import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyyolo.engine.model import Model

# Read by ultralytics when it is first imported: no DNS probe, telemetry, font or weight download, no pip install at run
# time. Set a variable yourself to decide otherwise.
os.environ.setdefault("YOLO_OFFLINE", "1")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
# What ultralytics says on a new machine is of settings that are its own command's.
logging.getLogger("ultralytics").addFilter(lambda said: "Creating new Ultralytics Settings" not in str(said.msg))

__version__ = "0.1.0"
__all__ = ["Model"]


def __getattr__(name: str) -> object:
    if name == "Model":
        from tinyyolo.engine.model import Model

        return Model
    raise AttributeError(f"module 'tinyyolo' has no attribute {name!r}")
