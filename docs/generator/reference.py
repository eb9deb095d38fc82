"""The reference pages that are written from the code when the site is built: place in the site -> its Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from tinyyolo.analysis.schema import Row, rows
from tinyyolo.cli import COMMANDS, describe, leaves, resolve
from tinyyolo.datasets.spec import KINDS, MEANINGS

PACKAGE = Path(__file__).parent.parent.parent / "tinyyolo"
# Who reads these first; the other folders of the package follow by name.
FIRST = ("engine", "evaluation", "datasets", "scenes")


def pages() -> dict[str, str]:
    """All of them."""
    return {
        "reference/commands.md": commands(),
        "reference/model-keys.md": model_keys(),
        "reference/data-keys.md": data_keys(),
        "reference/api.md": first_page(),
        **{f"reference/api/{folder}.md": api(folder) for folder in folders()},
    }


def commands() -> str:
    """Every command with its keys and help."""
    parts = [
        f"## {words}\n\n```text\n{describe(words, resolve(command))}\n```\n" for words, command in leaves(COMMANDS)
    ]
    return "\n".join(["# Commands\n\nWhat `tinyyolo help COMMAND` prints.\n", *parts])


def model_keys() -> str:
    """Every key of a model YAML, section by section."""
    lines = [
        "# Keys of a model YAML",
        "",
        "On the command line they are dotted: `rpn.assigner.topk=3`, `head.assigner.type=atss`. Another `type` replaces"
        " its section. `base: other.yaml` takes the keys of another model YAML to start from. Where no default stands"
        " the key must be given. Words and defaults are those of the classes that check them.",
    ]
    for (section, kind), found in groupby(rows(), lambda row: (row.section, row.type)):
        title = f"{section}: {kind}" if kind else section or "At the top"
        lines += ["", f"## {title}", "", *table(("key", "value", "default", "what it does"), map(cells, found))]
    return "\n".join(lines) + "\n"


def cells(row: Row) -> Sequence[str]:
    return f"`{row.key}`", row.kind, f"`{row.default}`" if row.default else "", row.text


def data_keys() -> str:
    """Every key of a data YAML."""
    lines = ["# Keys of a data YAML", "", "How they go together stands in [Data](../data.md#a-data-yaml).", ""]
    given = [(f"`{key}`", KINDS[key][1], text) for key, text in MEANINGS.items()]
    rest = ", ".join(f"`{key}`" for key in KINDS if key not in MEANINGS)
    lines += [*table(("key", "value", "what it does"), given), "", f"Taken from other tools' YAMLs, not used: {rest}."]
    return "\n".join(lines) + "\n"


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [line(head), "|---" * len(head) + "|", *map(line, body)]


def line(row: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def folders() -> list[str]:
    """The folders of the package that hold code, and "" for the files beside them."""
    found = sorted({path.relative_to(PACKAGE).parts[0] for path in PACKAGE.glob("*/**/*.py")})
    return [*FIRST, *(name for name in found if name not in FIRST), "package"]


def modules(folder: str) -> list[str]:
    """Dotted names of the modules of a folder, its own folders' too."""
    root, pattern = (PACKAGE, "*.py") if folder == "package" else (PACKAGE / folder, "**/*.py")
    return sorted(
        ".".join(("tinyyolo", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in root.glob(pattern)
        if path != PACKAGE / "__init__.py" and path.stat().st_size
    )


def api(folder: str) -> str:
    """All public names of a folder's modules, from their docstrings."""
    parts = [f"::: {name}\n    options: {{members_order: source}}\n" for name in modules(folder)]
    return f"# {'tinyyolo' if folder == 'package' else f'tinyyolo.{folder}'}\n\n" + "\n".join(parts)


def first_page() -> str:
    """`Model`, and where the modules are described."""
    links = "".join(f"- [{folder}](api/{folder}.md)\n" for folder in folders())
    return f"# The API\n\n`from tinyyolo import Model`\n\n::: tinyyolo.engine.model.Model\n\n## Modules\n\n{links}"
