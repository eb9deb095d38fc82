"""Load the authors' checkpoints and ImageNet weights: everything matches, or nothing is touched."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tinyyolo.config import UserError
from tinyyolo.detectors import tensor_files

# Older checkpoints lack the first; convolutions with standardised weights derive the others from the weights they get.
OPTIONAL_LEAVES = ("num_batches_tracked", "weight_gamma", "weight_beta")
# Where a ResNet lies in a detector; two-stage ones without a pyramid have its last stage in the box head.
INSIDE = ("backbone.", "roi_head.shared_head.")
# What classification networks have on top of the backbone.
CLASSIFIER_PREFIXES = ("fc.", "classifier.", "final_layer.", "incre_modules.", "downsamp_modules.")

DIGITS = 8  # of the SHA-256 of torchvision's files, in their names
PUBLISHED = "IMAGENET1K_V1"  # the published rows start from it; V2 came later, from another training


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint gave.

    Attributes:
        source: the file, or "state dict".
        loaded: names of the tensors that were taken over.
        kept: names in the model that the checkpoint need not have, left as they were or derived.
        unused: names in the checkpoint that the model has no place for.
    """

    source: str
    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.kept)
        unused = f", {len(self.unused)} of the file unused (such as {self.unused[0]})" if self.unused else ""
        return f"{self.source}: {len(self.loaded)} of {total} tensors loaded{unused}"


def load_reference(
    detector: nn.Module, checkpoint: str | Path | Mapping[str, Any], source: str = "state dict"
) -> LoadReport:
    """Load a checkpoint of the authors' code, whose names are this project's names, into a detector.

    Args:
        detector: changed in place, unless the checkpoint is refused.
        checkpoint: a file (.pth, .pt, .safetensors) or what it holds: {"state_dict": {name: tensor}, ...} or {name:
            tensor}. Files are read as tensors and plain values only.
        source: where what is held is from, for the report.

    Raises:
        UserError: unreadable, or the checkpoint of another model: a tensor too many, too few or of another shape.
    """
    source, state = _read(checkpoint, source)
    return _load(detector, state, source, OPTIONAL_LEAVES)


def load_backbone(backbone: nn.Module, checkpoint: str | Path | Mapping[str, Any]) -> LoadReport:
    """Load ImageNet weights (torchvision's names for a ResNet), or the backbone out of a detector's checkpoint.

    A classifier in the file is left out, and what the backbone's attribute `elsewhere` says (beginnings of names).
    Parts that no ImageNet network has are named by its attribute `not_pretrained` (parts of names) and keep their
    initial values.

    Args:
        backbone: changed in place, unless the checkpoint is refused.
        checkpoint: see `load_reference`.

    Raises:
        UserError: unreadable, or weights of another backbone.
    """
    source, state = _read(checkpoint)
    inner = {name.removeprefix(p): x for p in INSIDE for name, x in state.items() if name.startswith(p)}
    optional = OPTIONAL_LEAVES + tuple(getattr(backbone, "not_pretrained", ()))
    unused = (() if inner else CLASSIFIER_PREFIXES) + tuple(getattr(backbone, "elsewhere", ()))
    return _load(backbone, inner or state, source, optional, unused)


def class_names(checkpoint: Any) -> list[str]:
    """The classes that a checkpoint of mmdetection names, in the order of its logits; [] where it names none.

    Examples:
        >>> class_names({"meta": {"CLASSES": ("ship", "person")}, "state_dict": {}}), class_names({"state_dict": {}})
        (['ship', 'person'], [])
    """
    meta = checkpoint.get("meta") if isinstance(checkpoint, Mapping) else None
    names = meta.get("CLASSES") if isinstance(meta, Mapping) else None
    known = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return list(names) if known and names else []


def imagenet_note(path: Path, known: Mapping[str, str] | None = None) -> str:
    """What a user of the published models should know of a file of ImageNet weights, or ''.

    Args:
        path: of the file.
        known: file name -> what it is; by default torchvision's ResNets, whose names end in digits of their SHA-256.

    Raises:
        UserError: it has the name of one of these and is another file.
    """
    known = _torchvision_files() if known is None else known
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if path.name in known and not digest.startswith(_digits(path.name)):
        raise UserError(
            f"{path}: damaged or another file: by its name its SHA-256 begins with {_digits(path.name)}, "
            f"it begins with {digest[:DIGITS]}"
        )
    found = next(((name, what) for name, what in known.items() if digest.startswith(_digits(name))), None)
    if found is None or found[1].endswith(PUBLISHED):
        return ""
    kind = found[1].rpartition(".")[0]
    wanted = next((name for name, what in known.items() if what == f"{kind}.{PUBLISHED}"), PUBLISHED)
    return f"{path}: these are {found[1]}; the published figures start from {PUBLISHED}, {wanted}"


def _digits(name: str) -> str:
    return Path(name).stem.rpartition("-")[2]


def _torchvision_files() -> dict[str, str]:
    """File names of torchvision's weights of the ResNets that are backbones here -> their names."""
    from torchvision import models  # a second, and needed only with such a file

    kinds = (models.ResNet18_Weights, models.ResNet34_Weights, models.ResNet50_Weights, models.ResNet101_Weights)
    return {one.url.rpartition("/")[2]: str(one) for kind in kinds for one in kind}


def _read(checkpoint: Any, source: str = "state dict") -> tuple[str, dict[str, Tensor]]:
    if isinstance(checkpoint, str | Path):
        return state_in(tensor_files.read(checkpoint), str(checkpoint))
    return state_in(checkpoint, source)


def state_in(content: Any, source: str) -> tuple[str, dict[str, Tensor]]:
    """`source` and the state dict in what a file holds, bare or under "state_dict" or "model".

    Raises:
        UserError: there is none.
    """
    state = content
    for key in ("state_dict", "model"):  # theirs, and a checkpoint of ours
        state = state.get(key, state) if isinstance(state, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(x, Tensor) for x in state.values()):
        raise UserError(f"{source}: holds no state dict (name -> tensor)")
    return source, dict(state)


def _load(
    module: nn.Module, state: Mapping[str, Tensor], source: str, optional: tuple[str, ...], unused: tuple[str, ...] = ()
) -> LoadReport:
    own = module.state_dict()
    left = [name for name in state if name not in own and name.startswith(unused)] if unused else []
    shapes = {name: (tuple(state[name].shape), tuple(own[name].shape)) for name in own if name in state}
    other = [f"{name}: {theirs}, expected {ours}" for name, (theirs, ours) in shapes.items() if theirs != ours]
    problems = {
        "missing": [name for name in own if name not in state and not any(part in name for part in optional)],
        "unknown": [name for name in state if name not in own and name not in left],
        "of another shape": other,
    }
    if any(problems.values()):
        said = [f"{len(x)} tensor{'s' * (len(x) > 1)} {kind} (such as {x[0]})" for kind, x in problems.items() if x]
        raise UserError(f"{source}: not the weights of this model: {', '.join(said)}")
    # Names were compared above; modules may derive what is optional.
    module.load_state_dict({name: state[name] for name in shapes}, strict=False)
    return LoadReport(source, tuple(shapes), tuple(name for name in own if name not in shapes), tuple(left))
