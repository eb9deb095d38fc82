"""Every key of a model YAML with its kind, default and meaning, as the constructors that check them say themselves.

`build_model` checks a section by the signature of the class that its `type` names; a row here is a parameter of it,
with what the class's docstring says of it.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

from tinyyolo.backbones import BACKBONES
from tinyyolo.config import KINDS, Table, classes_in
from tinyyolo.detectors.build import COMMON_KEYS, DETECTORS, GIVEN, PARTS, mean_and_std
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.necks import NECKS

ELSEWHERE = re.compile(r"^(?:of .*, )?see `([\w.]+)`\.$")  # how a docstring leaves a meaning to another
ENTRY = re.compile(r"^(\w+(?:, \w+)*): (.*(?:\n +.*|\n(?=\n? ))*)", re.MULTILINE)
PYTHON = {int: "int", float: "float", bool: "bool", str: "str", type(None): "null"}  # as keys of KINDS


class Row(NamedTuple):
    """One key: its section, the section's type, the key, what it may be, its default as YAML ("" where it must be
    given), and what it does."""

    section: str
    type: str
    key: str
    kind: str
    default: str
    text: str


def rows() -> Iterator[Row]:
    """Every key that a model YAML may have, section by section.

    Examples:
        >>> [row.kind for row in rows() if (row.section, row.type, row.key) == ("assigner", "ranking", "topk")]
        ['a whole number']
    """
    for key, (kind, default, text) in COMMON_KEYS.items():
        yield Row("", "", key, kind, default, text)
    yield from keys_of("test", "", Postprocess, ("classes", "agnostic"))
    yield from keys_of("normalize", "", mean_and_std)
    for section, table in sections().items():
        for name, make in table.items():
            yield from keys_of(section, name, make, GIVEN.get(section, ()))


def sections() -> dict[str, Table]:
    """The sections that have a type: of the model, then of its heads' sections."""
    heads = {name: table for kind in DETECTORS.values() for name, table in kind.heads.items()}
    parts = {place_of(part): table for part, table in PARTS.items()}
    return {"backbone": BACKBONES, "neck": NECKS, **heads, **parts}


def place_of(part: type) -> str:
    """The key under which heads have a part: `assigner` of `Assigner`, `anchors` of `AnchorGrid`."""
    makers = [make for kind in DETECTORS.values() for table in kind.heads.values() for make in table.values()]
    parameters = [one for make in makers for one in inspect.signature(make, eval_str=True).parameters.values()]
    return next(one.name for one in parameters if part in classes_in(one.annotation))


def keys_of(section: str, name: str, make: Callable[..., Any], given: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of one constructor, without the parameters that the builder gives."""
    for key, one in inspect.signature(make, eval_str=True).parameters.items():
        if key not in given:
            default = "" if one.default is one.empty else as_yaml(one.default)
            yield Row(section, name, key, words(one.annotation), default, meaning(make, key))


def meaning(make: Callable[..., Any], key: str) -> str:
    """What a docstring says of a parameter; where that is "see `Name`", what the one of that class or function says."""
    text = described(make).get(key, "")
    elsewhere = ELSEWHERE.search(text)
    return meaning(named(elsewhere[1], make.__module__), key) if elsewhere else text


def described(make: Callable[..., Any]) -> dict[str, str]:
    """What a docstring's `Args:` (of a dataclass `Attributes:`) say of each parameter, in one line each.

    Examples:
        >>> described(Postprocess)["iou"]
        'NMS threshold within a class.'
    """
    block = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", inspect.cleandoc(make.__doc__ or ""), re.MULTILINE)
    found = ENTRY.finditer(inspect.cleandoc(block[1]) if block else "")
    return {key: " ".join(entry[2].split()) for entry in found for key in entry[1].split(", ")}


def named(name: str, module: str) -> Any:
    """What a docstring of `module` calls `name`: of the module itself, else of the package."""
    first, *rest = name.split(".")
    modules = (sys.modules[module], *(one for place, one in sys.modules.items() if place.startswith("tinyyolo.")))
    return reduce(getattr, rest, next(getattr(one, first) for one in modules if hasattr(one, first)))


def words(hint: Any) -> str:
    """A type hint as a YAML says it.

    Examples:
        >>> words(int | None), words(Sequence[Sequence[float]]), words(Mapping[str, float])
        ('a whole number or null', 'a list of lists of numbers', 'a mapping of numbers')
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(words, inner))
    if origin is not None:
        kind = "a mapping" if issubclass(origin, Mapping) else "a list"
        return kind if inner[-1] is Any else f"{kind} of {many(words(inner[0] if inner[-1] is ... else inner[-1]))}"
    return KINDS.get(PYTHON.get(hint, ""), PYTHON.get(hint, "a section"))


def many(kind: str) -> str:
    """The words of a kind for several of it."""
    noun, *rest = kind.removeprefix("a ").split(" of ")
    return " of ".join([f"{noun}s", *rest])


def as_yaml(value: Any) -> str:
    """A default as a YAML has it.

    Examples:
        >>> as_yaml(None), as_yaml("nwd"), as_yaml((1, 0.5))
        ('null', 'nwd', '[1, 0.5]')
    """
    return value if isinstance(value, str) else json.dumps(value)
