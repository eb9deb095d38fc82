"""Values as people type them: names that look like numbers and dates, and shell variables that are not set."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.data_sets import clean_set, coco
from tests.test_cli import ALL, call
from tinyyolo.cli import resolve
from tinyyolo.config import UserError
from tinyyolo.engine import arguments
from tinyyolo.engine.keys import KEYS, parsed

NAMES = ["2024", "0123", "1e3", "12:30", "2026-11-25", "2024_11_25", "no", "1.50", "[a]", "'x'"]


@pytest.fixture
def files(tmp_path):
    clean_set(tmp_path)
    coco(tmp_path / "gt.json", [(1, "t0.png", 64, 48)], [(1, 1, 1, [2, 3, 4, 5])], [(1, "no"), (2, "1e3")])
    (tmp_path / "dt.json").write_text(
        json.dumps([{"image_id": 1, "category_id": 1, "bbox": [2, 3, 4, 5], "score": 0.5}])
    )
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("words", "writes"),
    [
        (["evaluate", "gt=gt.json", "dt=dt.json", "out="], "metrics.json"),
        (["report", "gt=gt.json", "dt=dt.json", "pngs=0", "out="], "report.html"),
        (["compare", "gt.json", "gt.json", "out="], "compare.json"),
        (["data", "check", "set.yaml", "runs="], "set.json"),
        (["data", "stats", "set.yaml", "figure=false", "runs="], "set.json"),
        (["data", "convert", "set.yaml", "to=yolo", "out="], "data.yaml"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_folder_is_what_was_typed(words, writes, name, files, capsys):
    before = {path.name for path in files.iterdir()}
    code, _, err = call(*words[:-1], words[-1] + name, capsys=capsys)
    assert code == 0, err
    assert {path.name for path in files.iterdir()} - before == {name} and (files / name / writes).is_file()


@pytest.mark.parametrize("name", NAMES)
def test_images_and_data_are_what_was_typed(name, files, capsys):
    (files / "images").rename(files / name)
    code, _, err = call("report", "gt=gt.json", "dt=dt.json", "pngs=0", f"images={name}", capsys=capsys)
    assert code == 0, err
    assert quote(f"{name}/t0.png") in (files / "runs" / "report" / "report.html").read_text()
    (files / f"{name}.yaml").write_text("train: '" + name.replace("'", "''") + "'\nannotations: {train: train.json}\n")
    assert call("data", "check", f"{name}.yaml", capsys=capsys)[0] == 0
    (files / name).rename(files / "images")
    (files / f"{name}.yaml").write_text((files / "set.yaml").read_text())
    (files / f"{name}.yaml").rename(files / name)
    assert call("data", "check", f"data={name}", capsys=capsys)[0] == 0


def test_a_home_folder_behind_an_equals_sign(files, monkeypatch, capsys):
    """Shells leave `out=~/x` as it is; it once made a folder called ~."""
    monkeypatch.setenv("HOME", str(files / "home"))
    assert call("compare", "gt.json", "gt.json", "out=~/x", capsys=capsys)[0] == 0
    assert (files / "home" / "x" / "compare.json").is_file() and not (files / "~").exists()


def test_classes_are_what_was_typed(files, capsys):
    code, out, err = call("evaluate", "gt=gt.json", "dt=dt.json", "ignore=1e3", capsys=capsys)
    assert code == 0 and "\nno " in out and "1e3" not in out, err
    code, _, err = call("evaluate", "gt=gt.json", "dt=dt.json", "ignore=[no,1e3]", capsys=capsys)
    assert "no class" not in err
    assert call("report", "gt=gt.json", "dt=dt.json", "pngs=0", "threshold={no: 0.4, 1e3: 0.5}", capsys=capsys)[0] == 0
    assert json.loads((files / "runs/report/errors.json").read_text())["thresholds"] == {"no": 0.4, "1e3": 0.5}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["name", "project", "save_dir", "data", "model", "split", "cfg", "resume", "source"])
def test_keys_of_text_are_what_was_typed(key, name):
    assert parsed({key: name}) == {key: name}
    assert KEYS[key].kind.holds(name)


def test_numbers_in_python_and_in_a_file_of_keys(tmp_path):
    assert parsed({"name": 2024, "project": 1, "epochs": "3"}) == {"name": "2024", "project": "1", "epochs": 3}
    (tmp_path / "run.yaml").write_text("name: 1e3\nproject: 0123\nepochs: 3\nclasses: no\n")
    found = arguments.resolve("train", {}, {"cfg": str(tmp_path / "run.yaml")})
    assert (found["name"], found["epochs"], found["classes"]) == ("1e3", 3, "no")
    assert found["project"] == str(Path("0123").absolute())
    for value in (True, ["a"], {"a": 1}, ""):
        with pytest.raises(UserError, match=r"name=.*: expected text"):
            arguments.resolve("train", {}, {"name": value})


def test_true_false_and_null_where_they_mean_something():
    assert parsed({"resume": "true", "pretrained": "False", "name": "true"}) == {
        "resume": True,
        "pretrained": False,
        "name": "true",
    }
    assert parsed({"name": "null", "device": "None", "source": 0}) == {"name": None, "device": None, "source": 0}


EMPTY = [(words, key) for words in sorted(ALL) for key in ("model", "data", "source", "resume", "out", "gt", "name")]


@pytest.mark.parametrize(("words", "key"), EMPTY, ids=lambda value: value)
@pytest.mark.parametrize("blank", ["", "  "])
def test_an_empty_value_starts_nothing(words, key, blank, tmp_path, capsys):
    code, out, err = call(*words.split(), f"{key}={blank}", capsys=capsys)
    assert (code, out) == (2, "") and err == f"tinyyolo: {key}=: empty, as by a shell variable that is not set\n"
    assert not list(tmp_path.iterdir())


def test_an_empty_word_starts_nothing(tmp_path, capsys):
    for words in (["data", "check", ""], ["train", ""], ["compare", "a.json", " "]):
        code, _, err = call(*words, capsys=capsys)
        assert code == 2 and "empty, as by a shell variable" in err
    assert not list(tmp_path.iterdir())


WRONG = [
    ("evaluate", "lrp=maybe", "lrp=maybe: expected true or false, found a word"),
    ("report", "limit=many", "limit=many: expected a whole number or null, found a word"),
    ("report", "limit=-1", "limit=-1: expected a whole number of at least 0"),
    ("report", "pngs=1e400", "pngs=1e400: expected a whole number"),
    ("report", "pngs=null", "pngs=null: expected a whole number, found null"),
    ("compare", "score=[", "score=[: expected a number, found a word"),
    ("data convert", "tile=[1]", "tile=[1]: expected a whole number or null, found a list"),
    ("data stats", "imgsz=1e400", "imgsz=1e400: expected a whole number"),
    ("evaluate", "max_dets={a: 1}", "max_dets={'a': 1}: expected"),
    ("evaluate", "sizes=[[]]", "sizes=[[]]: Choices: aitod, coco"),
]


@pytest.mark.parametrize(("words", "word", "says"), WRONG, ids=[word for _, word, _ in WRONG])
def test_another_kind_of_value_is_one_line(words, word, says, files, capsys):
    given = {
        "evaluate": ["gt=gt.json", "dt=dt.json"],
        "report": ["gt=gt.json", "dt=dt.json"],
        "compare": ["gt.json"] * 2,
    }
    code, _, err = call(*words.split(), *given.get(words, ["set.yaml"]), word, capsys=capsys)
    assert code == 2 and says in err and len(err.splitlines()) == 1, err


@pytest.mark.parametrize("words", sorted(ALL))
def test_every_command_says_the_type_of_its_keys(words):
    """The command line reads a key by its type hint, which therefore must be one that it can."""
    import inspect

    for parameter in inspect.signature(resolve(ALL[words]), eval_str=True).parameters.values():
        assert parameter.annotation is not parameter.empty, parameter
