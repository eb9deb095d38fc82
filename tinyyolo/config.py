"""Find a YAML by its name, load it, apply `base:` and dotted overrides, check keys, and build objects from dicts.

The only places that see dicts are this file and `detectors/build.py`.
"""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

PACKAGE = Path(__file__).resolve().parent
# A wheel carries cfg/ and data/ inside the package; an editable install finds them beside it.
ROOTS = (PACKAGE, PACKAGE.parent)


class UserError(ValueError):
    """A mistake of the caller. Its text is one line that names the value and the choices; the command exits with 2."""


def suggest(word: object, choices: Iterable[object]) -> str:
    """'did you mean ...' for a near miss, otherwise the list of choices.

    Examples:
        >>> suggest("nvd", ["nwd", "iou"])
        "did you mean 'nwd'? Choices: iou, nwd"
    """
    names = sorted(map(str, choices))
    near = difflib.get_close_matches(str(word), names, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + "Choices: " + (", ".join(names) or "none")


def find_yaml(name: str | Path, folder: str) -> Path:
    """The absolute path of a YAML: as it is given, else by its name in `folder` ("cfg/models" or "data").

    Raises:
        UserError: no such file; the line lists the names there are.
    """
    given = Path(name).expanduser()
    if given.is_file():
        return given.resolve()
    wanted = given.name if given.suffix in {".yaml", ".yml"} else f"{given.name}.yaml"
    for root in ROOTS:
        if given.parent == Path() and (root / folder / wanted).is_file():
            return root / folder / wanted
    raise UserError(f"{name!s}: no such file, nor a name in {folder}; {suggest(wanted, yaml_names(folder))}")


def yaml_names(folder: str) -> list[str]:
    """Names of the YAMLs that come with the package in `folder`."""
    return sorted({p.name for root in ROOTS for p in (root / folder).glob("*.yaml")})


def load_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        UserError: unreadable, no valid YAML, or not a mapping at the top.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a YAML mapping at the top, found {type(content).__name__}")
    return content


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, mapping by mapping; a mapping with another `type` replaces its twin whole.

    Examples:
        >>> merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}})
        {'a': {'x': 1, 'y': 3}}
    """
    out = copy.deepcopy(dict(base))
    for key, value in over.items():
        old = out.get(key)
        same = (
            isinstance(old, dict)
            and isinstance(value, Mapping)
            and value.get("type", old.get("type")) == old.get("type")
        )
        out[key] = merge(old, value) if same else copy.deepcopy(value)
    return out


def load_model_yaml(name: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The resolved dict of a model YAML: `base:` applied, then dotted overrides.

    Args:
        name: a path, or a name in cfg/models such as "tinyyolo-n.yaml".
        overrides: dotted key -> value, e.g. {"rpn.assigner.topk": 3}; strings are parsed as YAML.

    Raises:
        UserError: no such YAML, or an override whose parents do not exist.
    """
    path = find_yaml(name, "cfg/models")
    spec = load_yaml(path)
    if "base" in spec:
        base = spec.pop("base")
        beside = path.parent / str(base)
        spec = merge(load_model_yaml(beside if beside.is_file() else base), spec)
    if "detector" not in spec:
        raise UserError(f"{path}: not a model YAML: it has no key 'detector'")
    return apply_overrides(spec, overrides or {}, source=path.name)


def apply_overrides(spec: Mapping[str, Any], overrides: Mapping[str, Any], source: str = "model") -> dict[str, Any]:
    """A copy of `spec` with dotted keys set. A last key may be new (its constructor checks it), its parents may not.

    Examples:
        >>> apply_overrides({"rpn": {"assigner": {"topk": 2}}}, {"rpn.assigner.topk": "3"})
        {'rpn': {'assigner': {'topk': 3}}}
    """
    out = copy.deepcopy(dict(spec))
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        node = out
        for i, part in enumerate(parents):
            if not isinstance(node.get(part), dict):
                at = ".".join(parents[:i]) or source
                raise UserError(f"{dotted}: {at} has no section {part!r}; {suggest(part, sections(node))}")
            node = node[part]
        if not parents and last not in node:
            raise UserError(f"{dotted}: {source} has no key {last!r}; {suggest(last, node)}")
        node[last] = parse_value(value)
        if isinstance(node[last], str) and last != "type" and isinstance(spec.get(last), dict):
            raise UserError(f"{dotted}={value}: {last!r} is a section; set one of its keys, such as {last}.type")
    return out


def sections(node: Mapping[str, Any]) -> list[str]:
    """Keys of `node` that hold a mapping."""
    return [key for key, value in node.items() if isinstance(value, dict)]


def parse_value(value: Any) -> Any:
    """A string as YAML would read it; anything else as it is. `1e-3` is a number here, as people expect.

    Examples:
        >>> parse_value("3"), parse_value("null"), parse_value("[1, 2]"), parse_value("1e-3"), parse_value("nwd")
        (3, None, [1, 2], 0.001, 'nwd')
    """
    if not isinstance(value, str):
        return value
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    if isinstance(parsed, str):
        if parsed == "None":
            return None
        try:
            return float(parsed)
        except ValueError:
            return parsed
    return parsed


def build(table: Mapping[str, Callable[..., Any]], spec: Mapping[str, Any], where: str, **given: Any) -> Any:
    """Call the entry of `table` that `spec["type"]` names with the other keys of `spec` and with `given`.

    Raises:
        UserError: unknown type, unknown or missing key, or a value that the constructor refuses; names `where`.
    """
    if not isinstance(spec, Mapping):
        raise UserError(f"{where}: expected a mapping with a 'type', found {spec!r}")
    options = {key: value for key, value in spec.items() if key != "type"}
    kind = spec.get("type")
    if kind not in table:
        raise UserError(f"{where}.type={kind}: unknown; {suggest(kind, table)}")
    parameters = inspect.signature(table[kind]).parameters
    allowed = [key for key in parameters if key not in given]
    for key in options:
        if key not in allowed:
            raise UserError(f"{where}.{key}: {kind} has no such key; {suggest(key, allowed)}")
    missing = [k for k in allowed if parameters[k].default is inspect.Parameter.empty and k not in options]
    if missing:
        raise UserError(f"{where}: {kind} needs {', '.join(missing)}")
    try:
        return table[kind](**options, **{k: v for k, v in given.items() if k in parameters})
    except UserError:
        raise
    except (TypeError, ValueError) as error:  # a list where a number belongs, or the other way round
        raise UserError(f"{where}: {error}") from error
