"""TorchScript: a file that runs without this package, and what it says of the model."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from tinyyolo import __version__
from tinyyolo.config import UserError
from tinyyolo.detectors.base import ENGINE_STRIDE, Detector
from tinyyolo.io import whole_file

METADATA = "config.txt"  # where ultralytics' AutoBackend looks for names, stride and image size


def torchscript(detector: Detector, path: str | Path, imgsz: int | Sequence[int], title: str = "") -> None:
    """Trace a detector at a fixed image size and write it with its classes and test settings.

    The file takes RGB images (B, 3, H, W) in [0, 1] and gives (B, 4 + C, N): cx, cy, w, h in pixels and class scores
    before NMS.

    Args:
        detector: stays as it is.
        path: of the file, written whole or not at all.
        imgsz: H = W, or (H, W); rounded up to the stride.
        title: what the file calls the model.

    Raises:
        UserError: the file cannot be written.
    """
    sides = [imgsz, imgsz] if isinstance(imgsz, int) else list(imgsz)
    size = [-(-int(side) // ENGINE_STRIDE) * ENGINE_STRIDE for side in sides]
    network: Any = deepcopy(detector).cpu().float().eval()
    network = network.fuse(verbose=False)
    network.export = True
    for parameter in network.parameters():
        parameter.requires_grad = False
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sizes become constants is intended; that torch has newer exporters too
        image = torch.zeros(1, 3, *size)
        traced = torch.jit.trace(network, image, strict=False, check_trace=False)
    content: dict[str, Any] = {"description": f"tinyyolo {title}".strip(), "version": __version__, "task": "detect"}
    content |= {"batch": 1, "channels": 3, "imgsz": size, "stride": ENGINE_STRIDE, "args": {}}
    content |= {"names": detector.names, "test": detector.test}
    with whole_file(path) as file:
        torch.jit.save(traced, file, _extra_files={METADATA: json.dumps(content)})


def metadata(path: str | Path) -> dict[str, Any]:
    """What an export says of itself: names, imgsz [H, W], test (the model YAML's section), version.

    Raises:
        UserError: no such file, or no export of this version.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(f"/extra/{METADATA}"))
            content = dict(json.loads(archive.read(name)))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a TorchScript export of tinyyolo, or a damaged one") from error
    if not isinstance(content.get("test"), dict) or not isinstance(content.get("imgsz"), list):
        older = f"written by tinyyolo {content.get('version')}, which left out the test settings"
        raise UserError(f"{path}: {older}: export the checkpoint again")
    return content
