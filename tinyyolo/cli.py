"""The `tinyyolo` command. Imports nothing heavy: torch is loaded by the command that needs it."""

from __future__ import annotations

import errno
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from tinyyolo import __version__
from tinyyolo.config import UserError, parse_value, suggest


class Command(NamedTuple):
    """A "module:function", imported when it is called, and what it does in a few words."""

    place: str
    text: str


Table = Mapping[str, "Command | Table"]

DATA: Table = {
    "check": Command("tinyyolo.datasets.audit.check:check", "everything that is wrong with a data set, by name"),
    "stats": Command("tinyyolo.analysis.stats:stats", "objects by class, split and size, and advice"),
    "convert": Command("tinyyolo.datasets.convert.convert:convert", "to coco, yolo, visdrone or dota; cut scenes"),
    "build-aitod": Command("tinyyolo.datasets.convert.aitod:build_aitod", "AI-TOD's images from xView's scenes"),
}
COMMANDS: Table = {
    "train": Command("tinyyolo.engine.commands:train", "train a model; alone: the smallest on a drawn toy set"),
    "val": Command("tinyyolo.engine.commands:val", "validate a checkpoint: AP, AP50, AP by size, AR, per class"),
    "predict": Command("tinyyolo.engine.commands:predict", "detect objects in images, folders or videos"),
    "export": Command("tinyyolo.engine.commands:export", "write a checkpoint as TorchScript"),
    "info": Command("tinyyolo.engine.commands:info", "size and cost of a model"),
    "models": Command("tinyyolo.detectors.catalogue:models", "the models, their sizes and published figures"),
    "data": DATA,
    "analyze": Command("tinyyolo.analysis.command:analyze", "which anchors learn which objects, before any training"),
    "evaluate": Command("tinyyolo.evaluation.commands:evaluate_command", "score any detector's results: gt= dt="),
    "report": Command("tinyyolo.evaluation.commands:report_command", "what went wrong, as a page: gt= dt= images="),
    "compare": Command("tinyyolo.evaluation.commands:compare_command", "agreement of two sets: a.json b.json"),
}
HELP = {"help", "--help", "-h"}  # asked for as one of the first two words, or behind a command with a dash
# Faults of the machine, not of the program: told in one line, without a traceback.
NOT_OURS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST}
USAGE = """\
tinyyolo {version}: detects tiny objects (2-16 px) in aerial images

  tinyyolo COMMAND [key=value ...]

{commands}

Keys are ultralytics' own (epochs, imgsz, batch, conf, ...), see docs/keys.md; dotted keys change the model's YAML:
  tinyyolo train model=tinyyolo-n.yaml data=my.yaml imgsz=640 head.assigner.topk=3
  tinyyolo val model=runs/train/weights/best.pt data=my.yaml
  tinyyolo predict model=runs/train/weights/best.pt source=images/

  tinyyolo help COMMAND, tinyyolo --version
"""
MISTAKE = 2  # exit code of a user's mistake


def leaves(table: Table, before: str = "") -> Iterator[tuple[str, Command]]:
    """Every command of a table with all its words: ("data check", ...)."""
    for word, entry in table.items():
        if isinstance(entry, Command):
            yield before + word, entry
        else:
            yield from leaves(entry, f"{before}{word} ")


def usage(table: Table = COMMANDS, before: str = "") -> str:
    """The help text of all commands, or of those behind a word."""
    rows = list(leaves(table, before))
    width = max(len(words) for words, _ in rows)
    lines = "\n".join(f"  {words:<{width}}  {command.text}" for words, command in rows)
    return lines if before else USAGE.format(version=__version__, commands=lines)


def describe(words: str, function: Callable[..., Any]) -> str:
    """A command's help: how it is called, with the defaults of its keys, and its docstring.

    Examples:
        >>> def count(data: str, *, start: int = 0, loud: bool = False) -> None: "Count things."
        >>> print(describe("count", count))
        tinyyolo count DATA start=0 loud=false
        <BLANKLINE>
        Count things.
    """
    parts = ["tinyyolo", words]
    for p in inspect.signature(function).parameters.values():
        if p.kind is p.VAR_KEYWORD:
            parts.append("[key=value ...]")
        elif p.kind is p.VAR_POSITIONAL:
            parts.append(f"[{p.name.upper()} ...]")
        else:
            parts.append(p.name.upper() if p.default is p.empty else f"{p.name}={as_typed(p.default)}")
    return " ".join(parts) + f"\n\n{inspect.getdoc(function) or ''}"


def as_typed(value: object) -> str:
    """A value as one writes it on the command line.

    Examples:
        >>> as_typed(None), as_typed(True), as_typed(()), as_typed(.3)
        ('null', 'true', '[]', '0.3')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def parse(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Positional words and key=value pairs, values read as YAML.

    Raises:
        UserError: an empty key, or the same key twice.

    Examples:
        >>> parse(["a.json", "epochs=3", "resume"])
        (['a.json', 'resume'], {'epochs': 3})
    """
    positional: list[str] = []
    pairs: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not equals:
            positional.append(word)
            continue
        if not key:
            raise UserError(f"{word}: no key before '='")
        if key in pairs:
            raise UserError(f"{key}: given twice")
        pairs[key] = parse_value(value)
    return positional, pairs


def resolve(command: Command) -> Callable[..., Any]:
    """The function of a command."""
    module, _, name = command.place.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def find(words: Sequence[str], table: Table = COMMANDS, before: str = "") -> tuple[str, Command | Table, list[str]]:
    """The command that the first words name, or the table where they end in one, and the words that are left.

    Raises:
        UserError: no such command; names the choices.

    Examples:
        >>> find(["data", "check", "my.yaml"])[::2]
        ('data check', ['my.yaml'])
    """
    if not words:
        return before.rstrip(), table, []
    word, *rest = words
    if word not in table:
        raise UserError(f"unknown command {before + word!r}; {suggest(word, table)}")
    entry = table[word]
    return (before + word, entry, rest) if isinstance(entry, Command) else find(rest, entry, f"{before}{word} ")


def call(words: str, function: Callable[..., Any], given: Sequence[str]) -> int:
    """Call a command's function with the words given to it.

    Raises:
        UserError: a key or word that it does not take, or one that it needs and that is missing.
    """
    positional, pairs = parse(given)
    parameters = inspect.signature(function).parameters.values()
    keys = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for key in pairs:
            if key not in keys:
                raise UserError(f"{words}: unknown key {key!r}; {suggest(key, keys)}")
    needed = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
    if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        places = [name for name in needed if name not in pairs]
        if len(positional) > len(places):
            raise UserError(f"{words}: expected key=value, found {positional[len(places)]!r}")
        pairs |= dict(zip(places, positional, strict=False))
        positional = []
    if missing := [name for name in needed if name not in pairs]:
        raise UserError(f"{words}: {missing[0]}= is missing: tinyyolo {words} {' '.join(map(str.upper, needed))}")
    return function(*positional, **pairs) or 0


def run(words: Sequence[str]) -> int:
    """Run one command line; returns its exit code.

    Raises:
        UserError: a mistake of the user.
    """
    if words and words[0] in {"--version", "-v", "version"}:
        print(__version__)
        return 0
    asked = bool(HELP & set(words[:2]))
    name, entry, rest = find([*(word for word in words[:2] if word not in HELP), *words[2:]])
    if not isinstance(entry, Command):
        if name and not asked:
            raise UserError(f"{name}: expected a word; {suggest('', entry)}")
        print(usage(entry, f"{name} " if name else ""))
        return 0
    function = resolve(entry)
    if asked or {"--help", "-h"} & set(rest):
        print(describe(name, function))
        return 0
    return call(name, function, rest)


def main(words: Sequence[str] | None = None) -> int:
    """Entry point: a user's mistake or a full or closed disk is one line on stderr and exit code 2."""
    try:
        code = run(sys.argv[1:] if words is None else words)
    except UserError as error:
        line = str(error).rpartition("tinyyolo.config.UserError: ")[2].strip()  # a worker process sends its traceback
        print(f"tinyyolo: {line}", file=sys.stderr)
        code = MISTAKE
    except KeyboardInterrupt:
        print("tinyyolo: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        code = 0
    except OSError as error:
        if error.errno not in NOT_OURS:
            raise
        print(f"tinyyolo: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        code = MISTAKE
    if words is None:
        sys.exit(code)
    return code


if __name__ == "__main__":
    main()
