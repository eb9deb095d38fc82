"""Imports only go down, in no circle, and ultralytics stands only where CONTRIBUTING.md says; lazy imports count."""

import ast
from pathlib import Path

import pytest

import tinyyolo

PACKAGE = Path(tinyyolo.__file__).parent
BASE = {"config", "io", "sizes", "ranks", "together"}
MODEL = {"boxes", "layers", "assigners", "backbones", "necks", "heads"}
# Folder or file -> what it may import besides itself. Nothing else may; folders of one rank do not know each other.
MAY_IMPORT = {
    "resources": set(),
    "plain_yaml": set(),
    "config": {"resources", "plain_yaml"},
    "io": {"config", "ranks"},
    "ranks": set(),
    "together": {"config", "ranks"},
    "sizes": set(),
    "compat": {"config", "ranks"},
    "boxes": BASE,
    "layers": BASE | {"compat", "boxes"},
    "assigners": BASE | {"boxes"},
    "backbones": BASE | {"compat", "boxes", "layers"},
    "necks": BASE | {"compat", "boxes", "layers", "backbones"},
    "heads": BASE | {"compat", "boxes", "layers", "assigners", "backbones"},
    "detectors": BASE | MODEL,
    "scenes": BASE | {"boxes"},
    "datasets": BASE | {"boxes", "scenes"},
    "datasets/dataset": {"datasets/train"},  # an old name, for scripts outside
    "datasets/train": BASE | {"compat", "boxes", "scenes", "datasets"},
    "evaluation": BASE | {"boxes", "datasets"},
    "plots": BASE | {"boxes", "datasets", "evaluation"},
    "analysis": BASE | MODEL | {"detectors", "datasets", "evaluation", "plots"},
    "export": BASE | MODEL | {"detectors", "scenes"},  # below the engine, whose Model.export calls it; scenes: `need`
    "engine": BASE
    | MODEL
    | {"compat", "detectors", "datasets", "datasets/train", "evaluation", "scenes", "plots", "export"},
    "cli": BASE,  # its table names the functions of all others
    "completion": BASE | {"cli", "engine"},
    "": {"engine"},  # the package itself: `Model`, on first use
    "__main__": {"cli"},
}
MAY_USE_ULTRALYTICS = {"compat", "engine", "datasets/train"}
MOST_FILES = 12  # in a folder
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path):
    """'.../tinyyolo/boxes/nms.py' -> 'tinyyolo.boxes.nms'."""
    return ".".join(("tinyyolo", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = set(map(module_of, FILES))
MODULES = {
    ".".join(("tinyyolo", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__") for p in FILES
}


def imported(source, where="a file"):
    """Dotted names of all imports, wherever they stand: at the top, in functions, under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where}:{node.lineno}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def part(dotted):
    """'tinyyolo.boxes.nms' -> 'boxes', 'tinyyolo.datasets.train.paste' -> 'datasets/train', 'tinyyolo' -> ''."""
    words = dotted.split(".")[1:]
    two = "/".join(words[:2])
    return two if two in MAY_IMPORT else words[0] if words else ""


def upward(module, source):
    """What of the imports in `source` the table does not allow to `module`."""
    own = part(module)
    for name in imported(source, module):
        if name.split(".")[0] == "tinyyolo" and name != "tinyyolo":  # __version__ is everybody's
            other = part(name)
            if other != own and other not in MAY_IMPORT[own]:
                yield name


def circles(edges):
    """Every circle found when walking `edges` (module -> modules) in depth; the package itself aside."""
    state, stack, found = {}, [], []

    def walk(name):
        state[name] = "open"
        stack.append(name)
        for other in sorted(edges.get(name, ())):
            if state.get(other) == "open":
                found.append([*stack[stack.index(other) :], other])
            elif other not in state:
                walk(other)
        stack.pop()
        state[name] = "done"

    for name in sorted(edges):
        if name not in state:
            walk(name)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    assert part(module_of(path)) in MAY_IMPORT, f"{path}: name its place in tests/test_layers.py"
    assert not list(upward(module_of(path), path.read_text()))


def test_no_circle():
    edges = {
        module_of(p): {n for n in imported(p.read_text()) if n in MODULES and n not in ("tinyyolo", module_of(p))}
        for p in FILES
    }
    assert not circles(edges)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_ultralytics_stands_in_few_places(path):
    where = module_of(path)
    allowed = part(where) in MAY_USE_ULTRALYTICS or where == "tinyyolo.detectors.base"
    names = [name for name in imported(path.read_text()) if name.split(".")[0] == "ultralytics"]
    assert allowed or not names


def test_a_folder_fits_into_one_look():
    for folder in {path.parent for path in FILES}:
        assert len([p for p in folder.glob("*.py") if p.name != "__init__.py"]) <= MOST_FILES, folder


def test_the_rules_catch_what_they_should():
    assert list(upward("tinyyolo.boxes.nms", "def f():\n    from tinyyolo.engine import model\n")) == [
        "tinyyolo.engine.model"
    ]
    assert list(upward("tinyyolo.heads.roi", "from tinyyolo.necks.fpn import FPN")) == ["tinyyolo.necks.fpn"]
    assert not list(upward("tinyyolo.heads.roi", "from tinyyolo.boxes import nms\nfrom tinyyolo import __version__"))
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == [["a", "b", "c", "a"]]
    assert not circles({"a": {"b", "c"}, "b": {"c"}})
