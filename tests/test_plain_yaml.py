"""YAML as people mean it, and what is refused: depth, references that multiply, keys given twice, odd tags."""

import pytest
import yaml

from tinyyolo.config import UserError, load_yaml, parse_value, path_of, with_base
from tinyyolo.plain_yaml import DEEPEST, MOST_COPIED, read

# By YAML 1.1 these are True, False, 83, 750, 20241125, a date, 31 and an error of PyYAML.
TEXTS = [
    "yes",
    "off",
    "0123",
    "12:30",
    "2024_11_25",
    "2024-11-25",
    "0x1f",
    "0x_",
    "9" * 19,
    "1e999",
    "1_000",
    "=",
    "None",
]
VALUES = {"1e-3": 0.001, "1e3": 1000.0, ".5": 0.5, "5.": 5.0, "-2": -2, "+3": 3, "0": 0, "true": True, "FALSE": False}
VALUES |= {"~": None, "": None, "null": None, "'1'": "1", "!!str 0123": "0123", "!!int 7": 7, "[1, a]": [1, "a"]}
VALUES |= {"{7: 1, no: 2, null: 3}": {"7": 1, "no": 2, "null": 3}, "999999999999999999": 10**18 - 1}


@pytest.mark.parametrize("word", TEXTS)
def test_what_is_text(word):
    assert read(word) == word and parse_value(word) == (None if word == "None" else word)
    assert read(f"a: [{word}]") == {"a": [word]}


@pytest.mark.parametrize("word", VALUES)
def test_what_is_a_value(word):
    assert read(word) == VALUES[word] and type(read(word)) is type(VALUES[word])


def test_words_under_some_keys_are_text():
    text = "names: {0: 1e3, 1: no, 2: '3', 3: ~}\nnc: 4\npath: 007"
    found = {"names": {"0": "1e3", "1": "no", "2": "3", "3": None}, "nc": 4, "path": "007"}
    assert read(text, as_text={"names", "path"}) == found
    assert read("[1, true, 1.50, {a: 2}]", as_text=True) == ["1", "true", "1.50", {"a": "2"}]


WRONG = {
    "[" * DEEPEST + "1" + "]" * DEEPEST: "levels deep",
    "{a: " * 900: "levels deep",
    "- " * 900: "levels deep",
    "&a [*a]": "refers to itself",
    "a: &x {b: *x}": "refers to itself",
    "a: 1\nb: 2\na: 3": "'a' stands twice",
    "{? [a] : b}": "expected a key",
    "!!int ''": "no int",
    "!!float x": "no float",
    "!!bool 1": "no bool",
    "!!timestamp 2001-01-01": "constructor",
    "!!python/name:os.system x": "constructor",
    "!!set {a}": "constructor",
    '"\\ud800"': "no text has",
    '"\\0"': "no text has",
    "--- 1\n--- 2": "document",
}


@pytest.mark.parametrize("text", WRONG, ids=list(WRONG.values()))
def test_what_is_refused(text, tmp_path):
    with pytest.raises(yaml.YAMLError, match=WRONG[text]):
        read(text)
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=WRONG[text]) as caught:
        load_yaml(tmp_path / "a.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'a.yaml'}") and len(str(caught.value).splitlines()) == 1


def test_the_deepest_that_is_read():
    deep = DEEPEST - 1
    assert str(read("[" * deep + "1" + "]" * deep)) == "[" * deep + "1" + "]" * deep


def test_references_that_multiply():
    """Ten values nine times over, and those nine times over: the fourth line would be over the limit."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]  # 10 values, the list one of them
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 4)]
    assert len(read("\n".join(lines))["a3"]) == 9  # copied: 90 + 9 * 91 + 9 * 820 = 8,289
    with pytest.raises(yaml.YAMLError, match=f"more than {MOST_COPIED:,}"):
        read("\n".join([*lines, "b: *a3"]))  # and 9 * 820 + 1 more
    with pytest.raises(yaml.YAMLError, match="more than"):
        read("a: &a {" + ", ".join(f"k{i}: 1" for i in range(200)) + "}\nb: [" + "{<<: *a}, " * 60 + "]")
    assert read("a: &a {x: 1}\nb: {<<: *a, y: 2}")["b"] == {"x": 1, "y": 2}


def test_a_file_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyyolo.config.LARGEST_YAML", 10)
    (tmp_path / "a.yaml").write_text("a: 1234567\n")
    with pytest.raises(UserError, match=r"a\.yaml: 11 bytes; a YAML here has at most 10"):
        load_yaml(tmp_path / "a.yaml")


def test_bases_without_end(tmp_path):
    for i in range(30):
        (tmp_path / f"{i}.yaml").write_text(f"base: {i + 1}.yaml\nk{i}: 1")
    (tmp_path / "30.yaml").write_text("a: 1")
    assert len(with_base(tmp_path / "12.yaml", "data")) == 19
    with pytest.raises(UserError, match=r"0\.yaml: more than 20 files"):
        with_base(tmp_path / "0.yaml", "data")


@pytest.mark.parametrize("word", ["~nosuchuser/x", "a" * 300, "a\0b", "\ud800"])
def test_paths_that_no_file_can_have(word):
    with pytest.raises(UserError, match=r"^out=.*: no path: ") as caught:
        path_of(word, "out=")
    assert str(caught.value).isprintable()


def test_a_path_need_not_exist(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_of("~/new/x") == tmp_path / "new" / "x" and str(path_of("2024")) == "2024"
