"""Imports only go down, and ultralytics stands only where CONTRIBUTING.md says."""

import ast
from pathlib import Path

import pytest

import tinyyolo

PACKAGE = Path(tinyyolo.__file__).parent
LAYERS = [
    ["__init__", "config", "compat", "sampling"],
    ["boxes"],
    ["assigners", "losses", "layers"],
    ["backbones"],
    ["necks"],
    ["heads"],
    ["detectors"],
    ["datasets", "evaluation", "plots", "plots_assign", "report"],
    ["analysis"],
    ["engine"],
    ["cli", "__main__"],
]
RANK = {name: i for i, names in enumerate(LAYERS) for name in names}
MAY_USE_ULTRALYTICS = {"compat.py", "engine", "detectors/base.py", "datasets"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """Top-level modules' dotted names, and (name, line) of every import wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module, node.lineno


def top_level(path):
    """Imports at module level: those inside functions are lazy and may look up."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def part(dotted):
    """'tinyyolo.boxes.nms' -> 'boxes'."""
    words = dotted.split(".")
    return words[1] if len(words) > 1 else "__init__"


def own_part(path):
    """The layer name of a file."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    assert own_part(path) in RANK, f"{path}: name its layer in tests/test_layers.py"
    for name in top_level(path):
        if name and name.split(".")[0] == "tinyyolo":
            assert RANK[part(name)] <= RANK[own_part(path)], f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_ultralytics_stands_in_few_places(path):
    where = str(path.relative_to(PACKAGE))
    allowed = where in MAY_USE_ULTRALYTICS or own_part(path) in MAY_USE_ULTRALYTICS
    for name, line in imports(path):
        assert allowed or name.split(".")[0] != "ultralytics", f"{path}:{line} imports {name}"


def test_rule_catches_an_upward_import(tmp_path):
    upward = tmp_path / "x.py"
    upward.write_text("from tinyyolo.engine import model\n")
    assert [RANK[part(name)] for name in top_level(upward)] == [RANK["engine"]]
    assert RANK["engine"] > RANK["boxes"]
