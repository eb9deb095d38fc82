"""What the documentation says exists: every command line in it is one that the program takes."""

import inspect
import re
import shlex
from pathlib import Path

import pytest

from tinyyolo.cli import Command, find, parse, resolve

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
LINE = re.compile(r"^\s*(?:\$ )?(tinyyolo [^#|\n]+)|`(tinyyolo [^`|\n]+)`", re.MULTILINE)


def command_lines():
    """(page, line) of everything in code that begins with `tinyyolo `."""
    for page in PAGES:
        for found in LINE.finditer(page.read_text(encoding="utf-8")):
            yield page.name, (found[1] or found[2]).strip()


LINES = sorted(set(command_lines()))


def test_there_are_lines_to_check():
    assert len(LINES) >= 15 and {page for page, _ in LINES} >= {"README.md", "data.md", "evaluation.md"}


@pytest.mark.parametrize(("page", "line"), LINES, ids=[line for _, line in LINES])
def test_documented_command_lines_are_taken(page, line):
    words = [
        word
        for word in shlex.split(line.replace("[-nwdrka]", ""))[1:]
        if word not in {"help", "--help", "...", "COMMAND", "KEY"}
    ]
    if "|" in words or words == ["--version"]:
        return
    name, entry, rest = find(words)
    if not isinstance(entry, Command):
        return
    function = resolve(entry)
    positional, pairs = parse(rest)
    plain = {key: value for key, value in pairs.items() if "." not in key}  # dotted keys are the model's
    if name in {"train", "val", "predict", "export"}:
        from tinyyolo.engine.keys import check_keys, parsed

        check_keys(name, parsed(plain))
    else:
        takes = inspect.signature(function).parameters
        assert set(plain) <= set(takes), f"{page}: {line}"
    assert not positional or name.startswith(("data", "analyze", "compare")), f"{page}: {line}"


def test_files_that_contributing_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/]+\.(?:py|yaml|md)\b", text))
    there = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.suffix in {".py", ".yaml", ".md"}}
    for name in named - {"NAME.py", "tinyyolo/assigners/NAME.py"}:
        assert any(path == name or path.endswith(f"/{name}") for path in there), name
    stops = re.findall(r'\["[^"]+: ([\w/]+\.py)"\]', text)
    assert len(stops) >= 27 and all((ROOT / "tinyyolo" / stop).is_file() for stop in stops)
    routes = text.split("subgraph")[1:]
    assert [len(re.findall(r'\["', route)) for route in routes] == [10, 8, 9], "at most ten stops each"
