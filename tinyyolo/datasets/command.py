"""`tinyyolo data WORD ...`: the words and their functions, each imported when it is called."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import yaml

from tinyyolo.config import UserError, suggest

COMMANDS = {
    "check": "tinyyolo.datasets.audit.check:check",
    "stats": "tinyyolo.datasets.stats.numbers:stats",
    "convert": "tinyyolo.datasets.convert.convert:convert",
    "build-aitod": "tinyyolo.datasets.convert.aitod:build_aitod",
}


def data(*words: str, **options: Any) -> int:
    """Check, describe, convert and build data sets: data check|stats|convert DATA, data build-aitod.

    Args:
        words: the command's word, then the data YAML; `help` and a word for its keys.
        options: the command's keys.

    Returns:
        Its exit code.

    Raises:
        UserError: no or an unknown word, an unknown key, or no data.
    """
    if words and words[0] == "help":
        print("\n\n".join(usage(word) for word in words[1:] or COMMANDS if word in COMMANDS))
        return 0
    if not words or words[0] not in COMMANDS:
        raise UserError(f"data {' '.join(words)}: expected a word; {suggest(words[0] if words else '', COMMANDS)}")
    word, *rest = words
    module, _, name = COMMANDS[word].partition(":")
    function = getattr(import_module(module), name)
    parameters = inspect.signature(function).parameters
    for key in options:
        if key not in parameters:
            raise UserError(f"data {word}: unknown key {key!r}; {suggest(key, parameters)}")
    places = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    given = dict(zip(places, rest, strict=False))
    if len(rest) > len(places) or given.keys() & options.keys():
        raise UserError(f"data {word}: too many words: {' '.join(rest)}")
    missing = [place for place in places if place not in given and place not in options]
    if missing:
        raise UserError(f"data {word}: give a data YAML: tinyyolo data {word} DATA")
    return function(**given, **options) or 0


def usage(word: str) -> str:
    """One command's help: its first line and its keys with their defaults.

    Examples:
        >>> usage("stats").splitlines()[0]
        'tinyyolo data stats DATA path=null split=null imgsz=null figure=true runs=runs/data-stats'
    """
    module, _, name = COMMANDS[word].partition(":")
    function = getattr(import_module(module), name)
    parameters = inspect.signature(function).parameters.values()
    places = [p.name.upper() for p in parameters if p.default is p.empty]
    keys = [f"{p.name}={yaml.safe_dump(p.default).split(chr(10))[0]}" for p in parameters if p.default is not p.empty]
    line = " ".join(["tinyyolo data", word, *places, *keys])
    return f"{line}\n{inspect.getdoc(function)}"
