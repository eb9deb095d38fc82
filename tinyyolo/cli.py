"""The `tinyyolo` command. Imports nothing heavy: torch is loaded by the command that needs it."""

from __future__ import annotations

import errno
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from tinyyolo import __version__
from tinyyolo.config import UserError, parse_value, suggest

COMMANDS = {  # word -> (module:function, help)
    "train": ("tinyyolo.engine.commands:train", "train a model; without arguments: the smallest on a drawn toy set"),
    "val": ("tinyyolo.engine.commands:val", "validate a checkpoint: AP, AP50, AP by size, AR, per class"),
    "predict": ("tinyyolo.engine.commands:predict", "detect objects in images, folders or videos"),
    "export": ("tinyyolo.engine.commands:export", "write a checkpoint as TorchScript"),
    "info": ("tinyyolo.engine.commands:info", "size and cost of a model"),
    "data": ("tinyyolo.datasets.command:data", "check, stats, convert or build-aitod: get the data right"),
    "analyze": ("tinyyolo.analysis.command:analyze", "which anchors learn which objects, before any training"),
    "evaluate": ("tinyyolo.evaluation.commands:evaluate_command", "score any detector's results: gt=a.json dt=b.json"),
    "report": ("tinyyolo.evaluation.commands:report_command", "what went wrong: gt=a.json dt=b.json images=dir"),
    "compare": ("tinyyolo.evaluation.commands:compare_command", "agreement of two annotation sets: a.json b.json"),
}
# Faults of the machine, not of the program: told in one line, without a traceback.
NOT_OURS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST}
USAGE = """\
tinyyolo {version}: detects tiny objects (2-16 px) in aerial images

  tinyyolo COMMAND [key=value ...]

{commands}

Keys are ultralytics' own (epochs, imgsz, batch, conf, ...); dotted keys change the model's YAML:
  tinyyolo train model=tinyyolo-n.yaml data=my.yaml imgsz=640 head.assigner.topk=3
  tinyyolo val model=runs/train/weights/best.pt data=my.yaml
  tinyyolo predict model=runs/train/weights/best.pt source=images/

  tinyyolo --help, --version
"""
MISTAKE = 2  # exit code of a user's mistake


def usage() -> str:
    """The help text."""
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {word:<{width}}  {text}" for word, (_, text) in COMMANDS.items())
    return USAGE.format(version=__version__, commands=lines)


def parse(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Positional words and key=value pairs, values read as YAML.

    Raises:
        UserError: an empty key, or the same key twice.

    Examples:
        >>> parse(["a.json", "epochs=3", "resume"])
        (['a.json', 'resume'], {'epochs': 3})
    """
    positional, pairs = [], {}
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


def resolve(reference: str) -> Callable[..., Any]:
    """The function of a "module:function" reference."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def check_call(word: str, function: Callable[..., Any], positional: Sequence[str], pairs: dict[str, Any]) -> None:
    """Raise UserError for a key or word that the command does not take."""
    parameters = inspect.signature(function).parameters.values()
    keys = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for key in pairs:
            if key not in keys:
                raise UserError(f"{word}: unknown key {key!r}; {suggest(key, keys)}")
    if positional and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise UserError(f"{word}: expected key=value, found {positional[0]!r}")


def run(words: Sequence[str]) -> int:
    """Run one command line; returns its exit code.

    Raises:
        UserError: a mistake of the user.
    """
    if not words or words[0] in {"--help", "-h", "help"}:
        print(usage())
        return 0
    if words[0] in {"--version", "-v", "version"}:
        print(__version__)
        return 0
    word, *rest = words
    if word not in COMMANDS:
        raise UserError(f"unknown command {word!r}; {suggest(word, COMMANDS)}")
    if set(rest) & {"--help", "-h"}:
        print(inspect.getdoc(resolve(COMMANDS[word][0])))
        return 0
    positional, pairs = parse(rest)
    function = resolve(COMMANDS[word][0])
    check_call(word, function, positional, pairs)
    return function(*positional, **pairs) or 0


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
