"""Find a YAML by its name, load it, apply `base:` and dotted overrides, and build objects from its sections.

The only places that see dicts are this file and `detectors/build.py`. `build` is the one door: it checks the type, the
keys and the kind of every value by the constructor's own signature. What a value may be beyond its kind is said in the
constructor, by `whole`, `within` and `above`.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import inspect
import json
import math
import re
import typing
from collections.abc import Callable, Container, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import msgspec

from tinyyolo.resources import roots

ROOTS = roots()
LARGEST_YAML = 2_000_000  # bytes
MOST_BASES = 20  # of one YAML
LONGEST = 60  # characters of a value in an error
NO_TUNER = (
    "tune: not offered: Ultralytics' tuner starts its own trainer, which knows neither these detectors nor their keys; "
    "`tinyyolo ablate` compares values of keys over seeds"
)
# What msgspec calls the kinds of values, in YAML's words.
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word", "array": "a list"}
KINDS |= {"object": "a mapping", "null": "null"}

Table = Mapping[str, Callable[..., Any]]


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


def path_of(given: str | Path, what: str = "") -> Path:
    """A path that a user gave, `~` replaced; it need not exist. `what` is what a message says before it.

    Raises:
        UserError: no file can have it: a name too long or a null byte in it, a user who is not there.
    """
    try:
        path = Path(given).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.lstat()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:LONGEST]
        raise UserError(f"{what}{shown(repr(str(given))[1:-1])}: no path: {reason}") from error
    return path


def find_yaml(name: str | Path, folder: str) -> Path:
    """The absolute path of a YAML: as it is given, else by its name in `folder` ("cfg/models" or "data").

    Raises:
        UserError: no such file; the line lists the names there are.
    """
    given = path_of(name)
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


def shipped_weights() -> dict[str, Path]:
    """The starting weights that come with the package: file name -> path."""
    return {path.name: path for root in reversed(ROOTS) for path in sorted((root / "weights").glob("*.pt"))}


def load_yaml(path: Path, as_text: Container[str] = ()) -> dict[str, Any]:
    """Read one YAML mapping by `plain_yaml`; words under the keys of `as_text` are text as they stand there.

    Raises:
        UserError: unreadable, too large, no valid YAML, or not a mapping at the top.
    """
    import yaml  # a tenth of the time of a small evaluation, which needs none

    from tinyyolo.plain_yaml import read

    try:
        if (size := path.stat().st_size) > LARGEST_YAML:
            raise UserError(f"{path}: {size:,} bytes; a YAML here has at most {LARGEST_YAML:,}")
        content = read(path.read_bytes(), as_text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        where, what = f":{mark.line + 1}" if mark else "", getattr(error, "problem", None) or error
        raise UserError(f"{path}{where}: not readable as YAML: {' '.join(str(what).split())}") from error
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
        if isinstance(old, dict) and isinstance(value, Mapping) and value.get("type") in (None, old.get("type")):
            out[key] = merge(old, value)
        else:
            out[key] = copy.deepcopy(value)
    return out


def load_model_yaml(name: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The resolved dict of a model YAML: `base:` applied, then dotted overrides.

    Args:
        name: a path, or a name in cfg/models such as "tinyyolo-n.yaml".
        overrides: dotted key -> value, e.g. {"rpn.assigner.topk": 3}; strings are parsed as YAML.

    Raises:
        UserError: no such YAML, one without `detector`, a `base` that is no YAML or leads back to itself, or an
            override of a key that there is not.
    """
    path = find_yaml(name, "cfg/models")
    spec = with_base(path, "cfg/models")
    if "detector" not in spec:
        raise UserError(f"{path}: not a model YAML: it has no key 'detector'")
    return apply_overrides(spec, overrides or {}, source=path.name)


def with_base(
    path: Path, folder: str, above: tuple[Path, ...] = (), as_text: Container[str] = ("base",)
) -> dict[str, Any]:
    """A YAML on top of the one that its `base:` names, a file beside it or a name in `folder`; see `load_yaml`.

    Raises:
        UserError: one of them cannot be read, or `base` is no YAML or leads back to itself.
    """
    if path in above:
        raise UserError(f"{above[-1]}: base={path.name} leads back to itself")
    if len(above) > MOST_BASES:
        raise UserError(f"{above[0]}: more than {MOST_BASES} files, each the base of the next")
    spec = load_yaml(path, as_text)
    if "base" not in spec:
        return spec
    base = spec.pop("base")
    if not isinstance(base, str):
        raise UserError(f"{path}: base={shown(base)}: expected the name of a YAML")
    try:
        beside = path_of(path.parent / base)
        found = find_yaml(beside if beside.is_file() else base, folder)
    except UserError as error:
        raise UserError(f"{path}: base={error}") from error
    return merge(with_base(found, folder, (*above, path), as_text), spec)


def apply_overrides(spec: Mapping[str, Any], overrides: Mapping[str, Any], source: str = "model") -> dict[str, Any]:
    """A copy of `spec` with dotted keys set, whose first word must exist; `build` checks the others.

    Another `type` replaces its section: the old type's keys go, and those that other dotted keys set stay, in whatever
    order they come.

    Raises:
        UserError: no such section or key, or something below a value that is no section.

    Examples:
        >>> apply_overrides({"rpn": {"assigner": {"topk": 2}}}, {"rpn.assigner.topk": "3"})
        {'rpn': {'assigner': {'topk': 3}}}
        >>> apply_overrides({"head": {"type": "a", "old": 1}}, {"head.new": 2, "head.type": "b"})
        {'head': {'type': 'b', 'new': 2}}
    """
    out = copy.deepcopy(dict(spec))
    for dotted in sorted(overrides, key=lambda key: (not key.endswith(".type"), key.count("."))):
        value = parse_value(overrides[dotted])
        *parents, last = dotted.split(".")
        first = dotted.partition(".")[0]
        if first not in out:
            kind, choices = ("section", [k for k in out if isinstance(out[k], dict)]) if parents else ("key", list(out))
            raise UserError(f"{dotted}: {source} has no {kind} {first!r}; {suggest(first, choices)}")
        node = out
        for i, part in enumerate(parents):
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                at = ".".join(parents[: i + 1])
                raise UserError(f"{dotted}={shown(value)}: {at}={shown(node)} is no section; set {at} whole")
        if last == "type" and parents and value != node.get("type", value):
            node.clear()
        node[last] = value
    return out


def parse_value(value: Any, as_text: bool = False) -> Any:
    """A string as YAML, see `plain_yaml`; anything else, and what is no YAML, as it is.

    Examples:
        >>> parse_value("3"), parse_value("null"), parse_value("[1, 2]"), parse_value("1e-3"), parse_value("nwd")
        (3, None, [1, 2], 0.001, 'nwd')
        >>> parse_value("2024_11_25"), parse_value("no"), parse_value("[no, 1e3]", as_text=True)
        ('2024_11_25', 'no', ['no', '1e3'])
    """
    import yaml

    from tinyyolo.plain_yaml import read

    if not isinstance(value, str) or value == "None":
        return None if value == "None" else value
    try:
        return read(value, as_text)
    except yaml.YAMLError:
        return value


def build(table: Table, spec: Any, where: str, parts: Mapping[type, Table] | None = None, /, **given: Any) -> Any:
    """Call the entry of `table` that `spec["type"]` names with the other keys of `spec` and with `given`.

    Args:
        table: constructors by type; of a single one the type may be left out.
        spec: the section, a mapping.
        where: its dotted place in the YAML, for the errors; "" is the top.
        parts: class of a parameter -> table from which its section is built first.
        given: built objects; what the constructor does not take is left out.

    Raises:
        UserError: no section, unknown type, or what `construct` raises.

    Examples:
        >>> build({"range": slice}, {"type": "rang"}, "roi.sampler")
        Traceback (most recent call last):
        tinyyolo.config.UserError: roi.sampler.type=rang: unknown; did you mean 'range'? Choices: range
    """
    if not isinstance(spec, Mapping):
        if isinstance(spec, str) and spec in table:
            raise UserError(f"{where}={spec}: this is a section; write {where}.type={spec}")
        raise UserError(f"{where}={shown(spec)}: expected a section, such as {where}.type=NAME; {suggest(spec, table)}")
    kind = spec.get("type", next(iter(table)) if len(table) == 1 else None)
    if not isinstance(kind, str) or kind not in table:
        raise UserError(f"{where}.type={shown(kind)}: unknown; {suggest(kind, table)}")
    options = {key: value for key, value in spec.items() if key != "type"}
    return construct(table[kind], options, where, parts, **given)


def construct(
    make: Callable[..., Any], options: Any, where: str, parts: Mapping[type, Table] | None = None, /, **given: Any
) -> Any:
    """Call `make` with `options`, checked by its signature and type hints, and with `given`; see `build`.

    Raises:
        UserError: an unknown or missing key, a value of the wrong kind, or one that `make` refuses; names the place.

    Examples:
        >>> def grid(stride: int): ...
        >>> construct(grid, {"stride": 1.5}, "rpn.anchors")
        Traceback (most recent call last):
        tinyyolo.config.UserError: rpn.anchors.stride=1.5: expected a whole number, found a number
    """
    check_kind(options, Mapping[Any, Any], where)
    inside = f"{where}." if where else ""
    parameters = inspect.signature(make, eval_str=True).parameters
    allowed = [key for key in parameters if key not in given]
    for key in options:
        if key not in allowed:
            raise UserError(f"{inside}{key}: unknown; {suggest(key, allowed)}")
    missing = [k for k in allowed if parameters[k].default is inspect.Parameter.empty and k not in options]
    if missing:
        raise UserError(f"{where}: it needs {', '.join(missing)}")
    values = {k: _option(v, parameters[k].annotation, f"{inside}{k}", parts or {}) for k, v in options.items()}
    try:
        return make(**values, **{k: v for k, v in given.items() if k in parameters})
    except UserError:
        raise
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:  # RuntimeError: torch's, of sizes
        line = " ".join(str(error).split())
        named = re.split(r"\W", line, maxsplit=1)[0] in parameters
        raise UserError(f"{inside}{line}" if named else f"{where}: {line}") from error


def _option(value: Any, hint: Any, where: str, parts: Mapping[type, Table]) -> Any:
    """A value for a parameter of this type hint: built, if the hint is one of `parts` or a sequence of it."""
    classes = classes_in(hint)
    part = next((kind for kind in classes if kind in parts), None)
    if part is None or (value is None and type(None) in classes):
        check_kind(value, hint, where)
        try:
            json.dumps(value, allow_nan=False, default=str)
        except ValueError as error:
            raise UserError(f"{where}={shown(value)}: expected finite numbers") from error
        return value
    if typing.get_origin(hint) is None or type(None) in classes:
        return build(parts[part], value, where, parts)
    check_kind(value, list[Any], where)
    return [build(parts[part], entry, f"{where}.{i}", parts) for i, entry in enumerate(value)]


def classes_in(hint: Any) -> list[Any]:
    """The classes that a type hint names."""
    return [kind for argument in typing.get_args(hint) for kind in classes_in(argument)] or [hint]


def check_kind(value: Any, hint: Any, where: str) -> Any:
    """The value as the type hint has it: a whole float as an int, a tuple for a sequence.

    Raises:
        UserError: it is of another kind; says which.
    """
    said, inner = kind_fault(value, hint)
    if said:
        at = f" at {where.rpartition('.')[2]}{inner}" if inner.startswith("[") else ""
        raise UserError(f"{where}={shown(value)}: {said}{at}")
    return msgspec.convert(value, hint)


def kind_fault(value: Any, hint: Any) -> tuple[str, str]:
    """What is wrong with the kind of a value, and where in it, such as ".names[0]"; two empty words if nothing is.

    Examples:
        >>> kind_fault([1, "2"], list[int])
        ('expected a whole number, found a word', '[1]')
    """
    try:
        msgspec.convert(value, hint)
    except UnicodeEncodeError:
        return "a character that no text has", ""
    except msgspec.ValidationError as error:
        said, _, path = str(error).partition(" - at ")
        said = re.sub(r"`([^`]*)`", lambda kinds: " or ".join(KINDS.get(k, k) for k in kinds[1].split(" | ")), said)
        return said[:1].lower() + said[1:].replace(", got ", ", found "), path.strip("`").removeprefix("$")
    return "", ""


def shown(value: Any) -> str:
    """A value in one line, as YAML says it, cut where it is long.

    Examples:
        >>> shown(None), shown(True), shown([1, 2])
        ('null', 'true', '[1, 2]')
    """
    text = {"None": "null", "True": "true", "False": "false"}.get(str(value)) or " ".join(str(value).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def whole(least: int, /, **values: Any) -> None:
    """Check that each value, or each entry of a list of some, is a whole number of at least `least`.

    Raises:
        ValueError: names the value.

    Examples:
        >>> whole(1, topk=2, channels=[16, 0])
        Traceback (most recent call last):
        ValueError: channels=[16, 0]: expected whole numbers of at least 1
    """
    _each(values, lambda x: isinstance(x, Integral) and int(x) >= least, "whole number", f"of at least {least}")


def within(low: float, high: float, /, **values: Any) -> None:
    """Check that each value, or each entry of a list of some, is a finite number from `low` to `high`.

    Raises:
        ValueError: names the value.
    """
    bounds = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
    _each(values, lambda x: low <= x <= high, "number", bounds)


def above(low: float, /, **values: Any) -> None:
    """Check that each value, or each entry of a list of some, is a finite number greater than `low`.

    Raises:
        ValueError: names the value.
    """
    _each(values, lambda x: x > low, "number", f"above {low:g}")


def _each(values: Mapping[str, Any], holds: Callable[[Any], bool], kind: str, bounds: str) -> None:
    for name, value in values.items():
        many = isinstance(value, (list, tuple))
        entries = (tuple(value) or (None,)) if many else (value,)  # an empty list is none of these
        if not all(isinstance(x, Real) and not isinstance(x, bool) and math.isfinite(x) and holds(x) for x in entries):
            raise ValueError(f"{name}={shown(value)}: expected {f'{kind}s' if many else f'a {kind}'} {bounds}")
