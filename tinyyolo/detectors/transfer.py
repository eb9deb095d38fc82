"""Starting weights: what a model takes of another's tensors, by name, class by class, and by role."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tinyyolo.config import UserError

IN_BLOCKS = {"cv1", "cv2", "cv3", "m"}  # names inside the blocks of ultralytics' networks, which are ours too
OF_ONE_LAYER = {"conv", "bn"}
COUNTER = "num_batches_tracked"
BODY = ("backbone.", "neck.")
MOST_NAMED = 5  # classes in a line

Unit = dict[str, Tensor]  # tensors of a convolution and its norm, by the end of their names


class Start(NamedTuple):
    """Weights to start from.

    Attributes:
        source: the file they are from, for the report.
        state: {name: tensor}.
        names: its classes; None: not known, then class scores go over as they are where the shape is the same.
        foreign: of another network: what is not there by name is looked for by role.
    """

    source: str
    state: Mapping[str, Tensor]
    names: Mapping[int, str] | None = None
    foreign: bool = False


@dataclass(frozen=True)
class Carried:
    """What a model took, as one line by `str`.

    Attributes:
        source: the file.
        loaded: names of the model's tensors that were taken over, wholly or in some classes.
        total: how many tensors the model has.
        by_role: how many of them have other names in the file.
        other: of the same name and another shape: "name (theirs), here (ours)".
        absent: names that the file does not have.
        known, fresh: classes whose scores were taken over by name, and the others; empty where names are not known.
    """

    source: str
    loaded: tuple[str, ...]
    total: int
    by_role: int = 0
    other: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"starts from {self.source}: {len(self.loaded)} of {self.total} tensors carried over"]
        if self.by_role:
            parts[0] += f", {self.by_role} of them by role and shape"
        if self.fresh:
            taken = f"scores of {_some(self.known)} by name, those of" if self.known else "no class by name, scores of"
            parts.append(f"{taken} {_some(self.fresh)} from scratch")
        if self.other:
            parts.append(f"{len(self.other)} from scratch, of another shape there (such as {self.other[0]})")
        if self.absent:
            parts.append(f"{len(self.absent)} from scratch, not in it (such as {self.absent[0]})")
        return "; ".join(parts)


def carry_over(model: nn.Module, start: Start) -> Carried:
    """Copy into a model what fits of other weights; the rest stays as it was built.

    A tensor goes where its name and shape are. Of an anchor YOLO's class scores those of a class go where a class of
    the same name is (in any case, with any spaces and hyphens). Weights of another network go by role as well: a
    convolution and its norm together, in the order of both files, where the place in a block and all shapes are the
    same.

    Raises:
        UserError: nothing fits, or values that are not finite.
    """
    own = model.state_dict()
    per_cell = _class_tensors(model) if start.names is not None else {}
    pairs = {} if start.names is None else _same_classes(_names_of(model), start.names)
    fit: dict[str, Tensor] = {}
    other = []
    for name, ours in own.items():
        theirs = start.state.get(name)
        if theirs is None:
            continue
        if name in per_cell:
            rows = _class_rows(ours, theirs, per_cell[name], pairs, len(start.names or ()))
            if rows is not None:
                fit[name] = rows
            elif pairs:
                other.append(f"{name} {tuple(theirs.shape)}, here {tuple(ours.shape)}")
        elif theirs.shape == ours.shape:
            fit[name] = theirs
        else:
            other.append(f"{name} {tuple(theirs.shape)}, here {tuple(ours.shape)}")
    by_role = _by_role(own, start.state, fit) if start.foreign else {}
    fit |= by_role
    if not fit:
        raise UserError(f"{start.source}: none of its {len(start.state)} tensors fits this model")
    for name, tensor in fit.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"{start.source}: {name} would get values that are not finite")
    model.load_state_dict(fit, strict=False)
    classes = _names_of(model) if per_cell else {}
    taken = any(name in fit for name in per_cell)
    known = {i: name for i, name in classes.items() if i in pairs and taken}
    return Carried(
        start.source,
        loaded=tuple(fit),
        total=len(own),
        by_role=len(by_role),
        other=tuple(other),
        absent=tuple(name for name in own if name not in start.state and name not in fit),
        known=tuple(known.values()),
        fresh=tuple(name for i, name in classes.items() if i not in known),
    )


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


# ---- classes


def _names_of(model: Any) -> dict[int, str]:
    return {int(i): str(name) for i, name in model.names.items()}


def _class_tensors(model: Any) -> dict[str, int]:
    """Names of the tensors that have rows for each class -> anchors a cell of theirs."""
    head: Any = getattr(model, "bbox_head", None)
    found = head.class_tensors() if hasattr(head, "class_tensors") else {}
    return {f"bbox_head.{name}": anchors for name, anchors in found.items()}


def plain_name(name: str) -> str:
    """A class name without what differs between sets.

    Examples:
        >>> plain_name("Storage-Tank"), plain_name("storage tank")
        ('storagetank', 'storagetank')
    """
    return re.sub(r"[\s_-]+", "", name).casefold()


def _same_classes(ours: Mapping[int, str], theirs: Mapping[int, str]) -> dict[int, int]:
    """Index of a class -> that of the class of the same name."""
    known = {plain_name(name): i for i, name in theirs.items()}
    return {i: known[plain_name(name)] for i, name in ours.items() if plain_name(name) in known}


def _class_rows(ours: Tensor, theirs: Tensor, anchors: int, pairs: Mapping[int, int], classes: int) -> Tensor | None:
    """Rows (A C, ...) of a class layer with those of the same classes from `theirs` (A C', ...); None if none can be.

    A row of anchor a and class c is a C + c, as `heads.dense.flat` reads them.
    """
    if not pairs or len(theirs) != anchors * classes or theirs.shape[1:] != ours.shape[1:]:
        return None
    out = ours.clone().view(anchors, -1, *ours.shape[1:])
    given = theirs.to(out).view(anchors, classes, *theirs.shape[1:])
    out[:, list(pairs)] = given[:, list(pairs.values())]
    return out.view_as(ours)


# ---- other networks


def _by_role(own: Mapping[str, Tensor], state: Mapping[str, Tensor], fit: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors for the model's backbone and neck from layers of other names, in the order of both."""
    left = {name: x for name, x in own.items() if name.startswith(BODY) and name not in fit}
    ours = units(left)
    theirs = units({name: x for name, x in state.items() if name not in fit})
    a, b = ([_signature(at, unit) for at, unit in some] for some in (ours, theirs))
    out: dict[str, Tensor] = {}
    for block in SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks():
        for (at, unit), (_, found) in zip(
            ours[block.a : block.a + block.size], theirs[block.b : block.b + block.size], strict=True
        ):
            out |= {f"{at}.{leaf}": found[leaf] for leaf in unit if leaf in found}
    return out


def units(state: Mapping[str, Tensor]) -> list[tuple[str, Unit]]:
    """Layers of a state dict: where they stand, and their tensors; a convolution and its norm are one.

    Numbers in names count: layer 2 comes before layer 10, though some files are sorted by name.

    Examples:
        >>> [(at, list(unit)) for at, unit in units({"m.10.bn.bias": 1, "m.2.conv.weight": 2, "m.2.bn.bias": 3})]
        [('m.2', ['conv.weight', 'bn.bias']), ('m.10', ['bn.bias'])]
    """
    out: dict[str, Unit] = {}
    for name, tensor in state.items():
        at, _, leaf = name.rpartition(".")
        before, _, last = at.rpartition(".")
        if last in OF_ONE_LAYER:
            at, leaf = before, f"{last}.{leaf}"
        out.setdefault(at, {})[leaf] = tensor
    rank: dict[str, int] = {}
    for at in out:
        for word in at.split("."):
            rank.setdefault(word, int(word) if word.isdecimal() else len(rank))
    return sorted(out.items(), key=lambda item: [(word.isdecimal(), rank[word]) for word in item[0].split(".")])


def _signature(at: str, unit: Unit) -> tuple[Any, ...]:
    """What two layers of one role have in common: the place in a block, and their tensors' names and shapes."""
    shapes = frozenset((leaf, tuple(x.shape)) for leaf, x in unit.items() if not leaf.endswith(COUNTER))
    return tuple(word for word in at.split(".") if word in IN_BLOCKS), shapes
