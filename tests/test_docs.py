"""What the documentation says exists: commands, keys, files, functions, links; and what exists is documented."""

import ast
import importlib.util
import inspect
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import tinyyolo
from tinyyolo.cli import COMMANDS, Command, find, leaves, parse, resolve
from tinyyolo.config import load_model_yaml, yaml_names

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECORDS = {"results", "lab"}  # folders of pages that tell what was run, at which commit
LINE = re.compile(r"^\s*(?:\$ )?(tinyyolo [^#|\n]+)|`(tinyyolo [^`|\n]+)`", re.MULTILINE)


def command_lines():
    """(page, line) of everything in code that begins with `tinyyolo `."""
    for page in PAGES:
        if page.parent.name in RECORDS:
            continue
        for found in LINE.finditer(page.read_text(encoding="utf-8")):
            yield page.name, (found[1] or found[2]).strip()


LINES = sorted(set(command_lines()))


def test_there_are_lines_to_check():
    assert len(LINES) >= 15 and {page for page, _ in LINES} >= {"README.md", "data.md", "evaluation.md"}


@pytest.mark.parametrize(("page", "line"), LINES, ids=[line for _, line in LINES])
def test_documented_command_lines_are_taken(page, line):
    words = [
        word
        for word in shlex.split(line.replace("[-nwdrka]", "").replace("$SLURM_ARRAY_TASK_ID", "1"))[1:]
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
    if name in {"train", "val", "predict", "track", "export"}:
        from tinyyolo.engine.keys import check_keys, parsed

        check_keys(name, parsed(plain))
    else:
        takes = inspect.signature(function).parameters
        others = {key: value for key, value in plain.items() if key not in takes}
        if name == "ablate":  # in place of a spec's own keys
            from tinyyolo.engine.keys import check_keys, parsed

            check_keys("train", parsed(others))
        else:
            assert not others, f"{page}: {line}"
    assert not positional or name.startswith(("data", "analyze", "compare", "table", "ablate", "merge")), (
        f"{page}: {line}"
    )
    if pairs.get("model") in yaml_names("cfg/models") and name in {"train", "val"}:
        from tinyyolo.detectors.build import build_model

        dotted = {key: value for key, value in pairs.items() if "." in key and key != "backbone.weights"}
        with torch.device("meta"):  # no tensor is filled
            build_model(load_model_yaml(pairs["model"], dotted))


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


FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NOT_TEXT = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}


def anchors(page):
    """The names of a page's headings in addresses, as the site and git hosts make them."""
    titles = re.findall(r"^#+ (.*)$", NOT_TEXT.sub(lambda code: code[0].replace("#", ""), TEXTS[page]), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_links_lead_to_files_and_headings(page):
    for to in re.findall(r"\]\(([^)\s]+)\)", NOT_TEXT.sub("", TEXTS[page])):
        if ":" in to:
            continue
        file, _, anchor = to.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists() and there.is_relative_to(ROOT), to
        assert not anchor or anchor in anchors(there), to


def blocks(language):
    """(page, number, code) of the blocks in a language."""
    for page, text in TEXTS.items():
        for number, (kind, code) in enumerate(FENCE.findall(text)):
            if kind == language:
                yield page.relative_to(ROOT).as_posix(), number, code


def test_what_python_blocks_import_of_tinyyolo_is_there():
    assert len(list(blocks("python"))) >= 12
    for page, text in TEXTS.items():  # in no other way, or nothing checks it
        assert not re.search(r"^    (?:from|import) tinyyolo", FENCE.sub("", text), re.MULTILINE), page
    for page, number, code in blocks("python"):
        for node in ast.walk(ast.parse(code, f"{page}, block {number}")):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("tinyyolo"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}"), page


@pytest.mark.slow
def test_python_blocks_pass_the_type_check(tmp_path):
    files = []
    for page, number, code in blocks("python"):
        files.append(tmp_path / f"block_{re.sub(r'[^0-9a-z]', '_', page.lower())}_{number}.py")
        files[-1].write_text(code, encoding="utf-8")
    settings = tmp_path / "mypy.ini"  # this package's types; those of others cost minutes
    others = "mypy-" + ",".join(f"{name}.*" for name in ("torch", "torchvision", "ultralytics", "matplotlib"))
    settings.write_text(
        f"[mypy]\nignore_missing_imports = true\nfollow_imports = silent\n[{others}]\nfollow_imports = skip\n"
    )
    words = [f"--config-file={settings}", f"--cache-dir={tmp_path}/cache"]
    done = subprocess.run([sys.executable, "-m", "mypy", *words, *map(str, files)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_yaml_blocks_have_keys_that_there_are():
    from tinyyolo.datasets.spec import KINDS

    texts = [code for _, _, code in blocks("yaml")]
    texts += [
        code for text in TEXTS.values() for code in re.findall(r"^(?:    .*\n)*    val: .*\n(?:    .*\n)*", text, re.M)
    ]
    assert len(texts) >= 2
    for text in texts:
        assert set(yaml.safe_load(text)) <= set(KINDS), text


def test_files_and_functions_that_pages_name_exist():
    there = [
        path.relative_to(ROOT).as_posix()
        for folder in ("tinyyolo", "tests", "benchmarks", "cfg", "data")
        for path in (ROOT / folder).rglob("*.*")
    ]
    for page, text in TEXTS.items():
        for name in re.findall(r"`(?:python )?(?!tinyyolo/assigners/NAME)([\w-]+(?:/[\w-]+)+\.(?:py|yaml))\b", text):
            assert any(path == name or path.endswith(f"/{name}") for path in there), f"{page.name}: {name}"
        for name in re.findall(r"`(tinyyolo(?:\.\w+)+)`", text):
            assert pkgutil.resolve_name(name) is not None, f"{page.name}: {name}"
        for script in re.findall(r"python (benchmarks/\w+\.py)", text):
            assert (ROOT / script).is_file(), f"{page.name}: {script}"


def test_every_page_has_its_place_in_the_site():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    placed = set(re.findall(r"[\w/-]+\.md", str(site["nav"])))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    missing = {page for page in pages - placed if not page.startswith("results/")}
    assert not missing, f"mkdocs.yml: nav: {missing}"


def test_every_folder_of_results_is_told():
    """The folders to which commands write where `out=` or `runs=` say nothing else."""
    commands = [resolve(command) for _, command in leaves(COMMANDS)]
    defaults = [key.default for one in commands for key in inspect.signature(one).parameters.values()]
    folders = {text for text in map(str, defaults) if text.startswith("runs/")}
    assert len(folders) >= 8 and {name for name in folders if f"`{name}`" not in TEXTS[ROOT / "docs/runs.md"]} == set()


def test_the_demo_takes_as_long_everywhere():
    """In whole minutes, as measured last."""
    said = [
        TEXTS[ROOT / "README.md"],
        *((ROOT / name).read_text() for name in ("Dockerfile", "tinyyolo/engine/commands.py")),
    ]
    words = [re.findall(r"about (\w+)\s+minutes", text) for text in said]
    minutes, seconds = map(int, re.search(r"toy demo.*?(\d+) min (\d+) s", TEXTS[ROOT / "docs/measured.md"]).groups())
    number = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")[round(minutes + seconds / 60)]
    assert all(words) and {word for found in words for word in found} == {number}


def test_parameters_are_counted_alike_everywhere():
    """In millions, for the four classes of HIT-UAV and the ten of the starting weights."""
    from ultralytics.nn.tasks import DetectionModel

    from tinyyolo.detectors.build import build_model

    with torch.device("meta"):
        ours = [build_model(load_model_yaml("tinyyolo-n.yaml"), classes) for classes in (4, 10)]
    peers = [DetectionModel(f"{name}-p2.yaml", nc=4, verbose=False) for name in ("yolov8n", "yolo26n")]
    counts = {f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M" for model in (*ours, *peers)}
    said = {page.name: set(re.findall(r"\b\d\.\d\d M\b", text)) for page, text in TEXTS.items()}
    assert {"weights.md", "measured.md"} <= {page for page, found in said.items() if found}
    assert {page: found - counts for page, found in said.items() if found - counts} == {}


def test_figures_of_the_first_page_stand_where_it_links_to():
    rows = re.findall(r"^\| .+\| \[(.+?)\]\(([\w./-]+)#?[\w-]*\)", TEXTS[ROOT / "README.md"], re.MULTILINE)
    figures = [(figure, page) for words, page in rows for figure in re.findall(r"\d*\.?\d+", words)]
    assert len(rows) == 5 and len(figures) >= 13
    missing = [
        (figure, page)
        for figure, page in figures
        if not re.search(rf"(?<![\d.]){re.escape(figure)}\b", TEXTS[ROOT / page])
    ]
    assert missing == []


def test_the_picture_of_the_architecture_names_what_there_is():
    path = ROOT / "docs/generator/architecture.py"
    spec = importlib.util.spec_from_file_location("architecture", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs/architecture.svg").read_text(encoding="utf-8") == module.picture(), path
    beside = [box for _, boxes in module.STEPS for box in boxes]
    steps = [step for step, _ in module.STEPS] + [box for box in (*beside, *module.ENDS) if not box.added]
    named = [file for step in steps for file in step.lines]
    assert len(named) >= 15 and [file for file in named if not (ROOT / "tinyyolo" / file).exists()] == []


def public():
    """(dotted name, object) of every public class and function of the package, and of the members of classes."""
    for module in pkgutil.walk_packages(tinyyolo.__path__, "tinyyolo."):
        space = importlib.import_module(module.name)
        if Path(space.__file__).stat().st_size:
            yield module.name, space
        for name, one in vars(space).items():
            if name.startswith("_") or getattr(one, "__module__", "") != module.name or not callable(one):
                continue
            yield f"{module.name}.{name}", one
            for member in vars(one) if isinstance(one, type) else ():
                value = inspect.getattr_static(one, member)
                if not member.startswith("_") and isinstance(
                    value, (type(test_links_lead_to_files_and_headings), property)
                ):
                    yield f"{module.name}.{name}.{member}", getattr(one, member)


def test_everything_public_has_a_docstring():
    names = dict(public())
    assert len(names) > 500
    missing = [name for name, one in names.items() if not inspect.getdoc(one)]
    assert not missing, missing


def test_every_key_of_runs_and_data_has_a_meaning():
    from tinyyolo.datasets.places import EXPORTED
    from tinyyolo.datasets.spec import KINDS, MEANINGS
    from tinyyolo.engine.keys import KEYS

    assert all(row.text or not row.modes for row in KEYS.values())
    assert set(MEANINGS) == set(KINDS) - {*EXPORTED, "download"} and all(MEANINGS.values())


def test_the_table_of_shifts_is_what_the_code_gives():
    from tinyyolo.boxes.similarity import measure

    rows = re.findall(r"^\| (\d) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", TEXTS[ROOT / "docs/why-iou-fails.md"], re.M)
    assert len(rows) == 2
    for shift, *said in rows:
        boxes = [torch.tensor([[0.0, 0.0, side, side]]) for side in (6, 12, 36)]
        found = [float(measure("iou").aligned(box, box + int(shift))) for box in boxes]
        found.append(float(measure("nwd", 12.7).aligned(boxes[0], boxes[0] + int(shift))))
        assert [f"{value:.2f}".lstrip("0") for value in found] == said
