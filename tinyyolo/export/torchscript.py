"""TorchScript: a file that runs without this package, and what it says of the model."""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tinyyolo.config import UserError
from tinyyolo.detectors.archives import checked_records, in_one_line
from tinyyolo.detectors.base import Detector
from tinyyolo.detectors.tensor_files import json_of, start
from tinyyolo.export.graph import frozen, sides
from tinyyolo.export.metadata import checked, describe
from tinyyolo.io import whole_file

METADATA = "config.txt"  # where ultralytics' AutoBackend looks for names, stride and image size
OWN: set[str] = set()  # digests of what this process has written: it knows what is in there


def torchscript(detector: Detector, path: str | Path, imgsz: int | Sequence[int], title: str = "") -> None:
    """Trace a detector at a fixed image size and write it with its classes, test settings and scores of the classes.

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
    size, network = sides(imgsz), frozen(detector)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sizes become constants is intended; that torch has newer exporters too
        image = torch.zeros(1, 3, *size)
        traced = torch.jit.trace(network, image, strict=False, check_trace=False)
    content = describe(detector, size, title)
    with whole_file(path) as file:
        torch.jit.save(traced, file, _extra_files={METADATA: json.dumps(content)})
    OWN.add(digest(path))


def digest(path: str | Path) -> str:
    """SHA-256 of a file."""
    with Path(path).open("rb") as file:
        value = hashlib.sha256()
        while part := file.read(2**20):
            value.update(part)
        return value.hexdigest()


def check_trust(path: Path, trust: bool) -> None:
    """Check that an export may run: TorchScript is a program, which can read and write files.

    Raises:
        UserError: nobody has said so, and this process has not written it; or torch cannot open it.
    """
    if not trust and digest(path) not in OWN:
        raise UserError(
            f"{path}: TorchScript is code that can write files: not run unless you know who made it; then "
            "trust=true, Model(path, trust=True) in Python"
        )
    try:
        torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: torch cannot open it: {in_one_line(error)}") from error


def metadata(path: str | Path) -> dict[str, Any]:
    """What an export says of itself: names, imgsz [H, W], test (the model YAML's section), version, and
    thresholds, scores of the classes or null, which older ones lack.

    Nothing of it runs; every record is read once against its checksum.

    Raises:
        UserError: no such file, no export of this version, or a damaged one.
    """
    path, *_ = start(path)
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(f"/extra/{METADATA}"))
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a TorchScript export of tinyyolo, or a damaged one") from error
    checked_records(path)
    with zipfile.ZipFile(path) as archive:
        content = json_of(archive.read(name).decode(errors="replace"), path)
    return checked(content, path, METADATA)
