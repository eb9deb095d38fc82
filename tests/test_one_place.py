"""A rule stands once: what may stand in one place only is looked for in the whole package."""

import ast
import re
from pathlib import Path

import pytest

import tinyyolo

PACKAGE = Path(tinyyolo.__file__).parent
SIDES = r"\[(?:\.\.\.|:), ?2:4?\] ?- ?\S*\[(?:\.\.\.|:), ?:2\]"
SUMS = r"\[(?:\.\.\.|:), ?:2\] ?\+ ?\S*\[(?:\.\.\.|:), ?2:4?\]"
HALVES = r"\[(?:\.\.\.|:), ?:2\] ?[-+] ?\S*\[(?:\.\.\.|:), ?2:4?\] ?[/*]"
# What is looked for -> the files where it may stand; drawn scenes have a world of their own.
PLACES = {
    "arithmetic of box forms": (f"{SIDES}|{SUMS}|{HALVES}", {"boxes/convert.py"}),
    "bounds of sizes": (r"\b8(?:\.0)?, ?16(?:\.0)?, ?32(?:\.0)?, ?64\b|\"very tiny\"|\(0, 8\)", {"sizes.py"}),
    "a parser of JSON": (r"json\.loads?\(|msgspec\.json\.", {"datasets/formats/", "detectors/tensor_files.py"}),
    "a parser of YAML": (r"\byaml\.(?:safe_)?load|SafeLoader", {"plain_yaml.py"}),
    "decoding of images": (r"cv2\.im(?:read|decode)|Image\.open\(", {"datasets/images.py", "datasets/pixels.py"}),
    "a file renamed into place": (r"os\.replace|mkstemp", {"io.py"}),
    "suppression": (r"(?<!\w)nms\(", {"boxes/nms.py"}),
    "overlap of boxes": (r"\bbox_iou\b|minimum\(.*2:\].*maximum\(", {"boxes/similarity.py"}),
    "messages of exit code 2": (r"sys\.exit\(", {"cli.py"}),
}
DRAWN = "datasets/drawn/"


def code_of(path):
    """The lines of a file, docstrings and comments made empty."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return [line.split("  # ")[0] if not line.lstrip().startswith("#") else "" for line in lines]


def places(pattern):
    """(file, line number, line) of every match in code."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for number, line in enumerate(code_of(path), 1):
            if re.search(pattern, line):
                yield path.relative_to(PACKAGE).as_posix(), number, line.strip()


@pytest.mark.parametrize("what", PLACES)
def test_it_stands_in_one_place(what):
    pattern, allowed = PLACES[what]
    found = list(places(pattern))
    assert any(name.startswith(tuple(allowed)) for name, *_ in found), "the pattern finds the place itself"
    assert not [row for row in found if not row[0].startswith((*allowed, DRAWN))]


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("arithmetic of box forms", "sides = boxes[:, 2:] - boxes[:, :2]"),
        ("arithmetic of box forms", "centre = (b[..., :2] + b[..., 2:]) / 2"),
        ("arithmetic of box forms", "torch.cat([c[:, :2] - c[:, 2:] / 2, c[:, :2] + c[:, 2:] / 2])"),
        ("bounds of sizes", "BOUNDS = (0, 8, 16, 32, 64)"),
        ("bounds of sizes", 'AITOD = {"vt": (0, 8)}'),
        ("decoding of images", "image = cv2.imread(str(path))"),
        ("suppression", "keep = nms(boxes, scores, iou)"),
    ],
)
def test_the_patterns_catch_a_second_copy(what, line):
    assert re.search(PLACES[what][0], line)
