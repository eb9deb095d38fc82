"""The `tinyyolo` command. Imports nothing heavy: torch is loaded by the command that needs it."""

from __future__ import annotations

import errno
import inspect
import io
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from tinyyolo import __version__, ranks
from tinyyolo.config import NO_TUNER, UserError, check_kind, classes_in, parse_value, path_of, suggest
from tinyyolo.io import printable


class Command(NamedTuple):
    """A "module:function", imported when it is called, and what it does in a few words."""

    place: str
    text: str


Table = Mapping[str, "Command | Table"]

DATA: Table = {
    "check": Command("datasets.audit.check:check", "everything that is wrong with a data set, by name"),
    "stats": Command("analysis.stats:stats", "objects by class, split and size, and advice"),
    "convert": Command("datasets.convert.convert:convert", "to coco, yolo, visdrone or dota; cut scenes"),
    "split": Command("datasets.convert.split:split", "cut a COCO JSON into train, val and test, by group"),
    "build-aitod": Command("datasets.convert.aitod:build_aitod", "AI-TOD's images from xView's scenes"),
}
COMMANDS: Table = {
    "train": Command("engine.commands:train", "train a model; alone: the smallest on a drawn toy set"),
    "val": Command("engine.commands:val", "validate a checkpoint: AP, AP50, AP by size, AR, per class"),
    "predict": Command("engine.commands:predict", "detect objects in images, folders or videos"),
    "track": Command("engine.commands:track", "follow objects through a video or a folder of frames"),
    "merge": Command("engine.predict.merge:merge", "join the shards of a prediction: runs/predict.shards"),
    "export": Command("engine.commands:export", "write a checkpoint as ONNX, OpenVINO, TorchScript or safetensors"),
    "benchmark": Command("engine.commands:benchmark", "a checkpoint beside its exports: AP, time, size, memory"),
    "info": Command("engine.commands:info", "size and cost of a model"),
    "table": Command("engine.history.table:table", "several runs and seeds in one table: Markdown, LaTeX, CSV"),
    "ablate": Command("engine.ablate.command:ablate", "train the rows of a spec; the paper's Tables 6-11 come along"),
    "models": Command("detectors.catalogue:models", "the models, their sizes and published figures"),
    "data": DATA,
    "analyze": Command("analysis.command:analyze", "which anchors learn which objects, before any training"),
    "evaluate": Command("evaluation.commands:evaluate_command", "score any detector's results: gt= dt="),
    "report": Command("analysis.report:report", "what went wrong, as a page: gt= dt= images="),
    "compare": Command("analysis.compare:compare", "agreement of two or three sets: a.json b.json"),
    "completion": Command("completion:completion", "for your shell: source <(tinyyolo completion bash)"),
}
KEY = Command("engine.keys:describe", "what a key does")
FLAGS = {"--help", "-h"}
HELP = {"help", *FLAGS}  # asked for as one of the first two words, or behind a command with a dash
# Faults of the machine, not of the program: told in one line, without a traceback.
NOT_OURS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST}
NOT_OURS |= {errno.ENOENT}  # a folder that went, or one that the system does not make
NOT_OURS |= {errno.EFBIG, errno.EIO, errno.EISDIR, errno.ELOOP, errno.EMFILE, errno.ENAMETOOLONG, errno.ESTALE}
USAGE = """\
tinyyolo {version}: detects tiny objects (2-16 px) in aerial images

  tinyyolo COMMAND [key=value ...]

{commands}

Keys are ultralytics' own (epochs, imgsz, batch, conf, ...), see docs/keys.md; dotted keys change the model's YAML:
  tinyyolo train model=tinyyolo-n.yaml data=my.yaml imgsz=640 head.assigner.topk=3
  tinyyolo val model=runs/train/weights/best.pt data=my.yaml
  tinyyolo predict model=runs/train/weights/best.pt source=images/

  tinyyolo help COMMAND, tinyyolo help KEY, tinyyolo --version
"""
MISTAKE = 2  # exit code of a user's mistake


def leaves(table: Table, before: str = "") -> Iterator[tuple[str, Command]]:
    """Every command of a table with all its words: ("data check", ...)."""
    for word, entry in table.items():
        if isinstance(entry, Command):
            yield before + word, entry
        else:
            yield from leaves(entry, f"{before}{word} ")


def usage(table: Table, before: str = "") -> str:
    """The help text of all commands, or of those behind a word."""
    rows = dict(leaves(table, before))
    width = max(map(len, rows))
    lines = "\n".join(f"  {words:<{width}}  {command.text}" for words, command in rows.items())
    return lines if before else USAGE.format(version=__version__, commands=lines)


def describe(words: str, function: Callable[..., Any]) -> str:
    """A command's help: how it is called, with the defaults of its keys, and its docstring.

    Examples:
        >>> def count(data: str, *, start=0, only=None, loud=False, sizes=(8, 16)) -> None: "Count things."
        >>> print(describe("count", count))
        tinyyolo count DATA start=0 only=null loud=false sizes=[8,16]
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
    """A value as one writes it on the command line."""
    text = f"[{','.join(map(as_typed, value))}]" if isinstance(value, tuple) else str(value)
    return {"None": "null", "True": "true", "False": "false"}.get(text, text)


def parse(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Positional words and key=value pairs as typed; UserError for an empty key or value, or one given twice.

    Examples:
        >>> parse(["a.json", "epochs=3", "resume"])
        (['a.json', 'resume'], {'epochs': '3'})
    """
    positional: list[str] = []
    pairs: dict[str, str] = {}
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not (value if equals else word).strip():
            raise UserError(f"{word.strip() or repr(word)}: empty, as by a shell variable that is not set")
        if not equals:
            positional.append(word)
        elif not key:
            raise UserError(f"{word}: no key before '='")
        elif key in pairs:
            raise UserError(f"{key}: given twice")
        else:
            pairs[key] = value
    return positional, pairs


def value_of(text: str, hint: Any, where: str) -> Any:
    """What is typed for a key, by the key's type hint: text as it stands there, or YAML; of Any the command reads it.

    Raises:
        UserError: another kind of value, or a path that no file can have.

    Examples:
        >>> value_of("2024_11_25", str, "out"), value_of("1e3", float | None, "iou"), value_of("null", str | None, "a")
        ('2024_11_25', 1000.0, None)
        >>> value_of("[no, 1e3]", str | Sequence[str], "ignore"), value_of("0123", str | Sequence[str], "ignore")
        (['no', '1e3'], '0123')
    """
    kinds = set(classes_in(hint))
    if hint in (Any, inspect.Parameter.empty):
        return text
    if type(None) in kinds and parse_value(text, as_text=True) is None:
        return None
    if hint in (str, str | None) or Path in kinds:
        return str(path_of(text, f"{where}=")) if Path in kinds else text
    value = parse_value(text, as_text=kinds <= {str, type(None)})
    if str in kinds and not isinstance(value, (int, float, list, dict)):
        return text
    try:
        return check_kind(value, hint, where)
    except UserError:
        if str in kinds:
            return text
        raise


def resolve(command: Command) -> Callable[..., Any]:
    """The function of a command."""
    module, _, name = command.place.partition(":")
    function: Callable[..., Any] = getattr(import_module(f"tinyyolo.{module}"), name)
    return function


def find(words: Sequence[str], table: Table = COMMANDS, before: str = "") -> tuple[str, Command | Table, list[str]]:
    """The command that the first words name, or the table where they end in one, and the words that are left.

    Examples:
        >>> find(["data", "check", "my.yaml"])[::2]
        ('data check', ['my.yaml'])
    """
    if not words:
        return before.rstrip(), table, []
    word, *rest = words
    if before + word == "tune":
        raise UserError(NO_TUNER)
    if word not in table:
        raise UserError(f"unknown command {before + word!r}; {suggest(word, table)}")
    entry = table[word]
    return (before + word, entry, rest) if isinstance(entry, Command) else find(rest, entry, f"{before}{word} ")


def call(words: str, function: Callable[..., Any], given: Sequence[str]) -> int:
    """Call a command's function with the words given to it; UserError for one too many, or one that is missing."""
    positional, pairs = parse(given)
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    kinds = {p.kind: p.annotation for p in parameters}
    keys = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
    if inspect.Parameter.VAR_KEYWORD not in kinds and (unknown := [key for key in pairs if key not in keys]):
        raise UserError(f"{words}: unknown key {unknown[0]!r}; {suggest(unknown[0], keys)}")
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        places = [name for name in needed if name not in pairs]
        if len(positional) > len(places):
            raise UserError(f"{words}: expected key=value, found {positional[len(places)]!r}")
        pairs |= dict(zip(places, positional, strict=False))
        positional = []
    if missing := [name for name in needed if name not in pairs]:
        raise UserError(f"{words}: {missing[0]}= is missing: tinyyolo {words} {' '.join(map(str.upper, needed))}")
    hints = {p.name: p.annotation for p in parameters}
    others = kinds.get(inspect.Parameter.VAR_KEYWORD, Any)
    many = [value_of(word, kinds[inspect.Parameter.VAR_POSITIONAL], words) for word in positional]
    return function(*many, **{key: value_of(text, hints.get(key, others), key) for key, text in pairs.items()}) or 0


def run(words: Sequence[str]) -> int:
    """Run one command line; returns its exit code. UserError for a mistake of the user."""
    if words and words[0] in {"--version", "-v", "version"}:
        print(__version__)
        return 0
    asked = bool(HELP & set(words[:2]))
    others = [word for word in words if word not in HELP]
    if asked and len(others) == 1 and others[0] not in COMMANDS:
        print(resolve(KEY)(others[0], COMMANDS))
        return 0
    name, entry, rest = find([*(word for word in words[:2] if word not in HELP), *words[2:]])
    if isinstance(entry, Command):
        function = resolve(entry)
        if not asked and not FLAGS & set(rest):
            return call(name, function, rest)
        print(describe(name, function))
    elif name and not asked:
        raise UserError(f"{name}: expected a word; {suggest('', entry)}")
    else:
        print(usage(entry, f"{name} " if name else ""))
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """Entry point: a user's mistake or a full or closed disk is one line on stderr and exit code 2."""
    code, line = MISTAKE, ""
    logging.raiseExceptions = False  # a log on a full disk: the line below says it, not a traceback a message
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is shown as an escape
            stream.reconfigure(errors="backslashreplace")
    try:
        code = run(sys.argv[1:] if words is None else words)
    except UserError as error:
        line = str(error).rpartition("tinyyolo.config.UserError: ")[2].strip()  # a worker process sends its traceback
    except KeyboardInterrupt as error:
        code, line = 130, str(error) or "interrupted"
    except BrokenPipeError:
        code = 0
    except OSError as error:
        if error.errno not in NOT_OURS:
            raise
        line = f"{error.filename or 'output'}: {error.strerror}"
    if line and ranks.first_to_tell():
        print(f"tinyyolo: {printable(line)}", file=sys.stderr)
    if words is None:
        sys.exit(code)
    return code


if __name__ == "__main__":
    main()
