"""The schema of model YAMLs is what `build_model` checks, and says what every key does."""

import inspect
import re

import pytest

from tinyyolo.analysis.schema import ELSEWHERE, place_of, rows, sections
from tinyyolo.config import UserError, load_model_yaml, yaml_names
from tinyyolo.detectors.build import DETECTORS, PARTS, build_model

ROWS = list(rows())
UNKNOWN = "zzz"
ONE, TWO = "tinyyolo-n.yaml", "faster-rcnn-r18.yaml"


def keys_of(section, kind=""):
    return {row.key for row in ROWS if (row.section, row.type) == (section, kind)}


def choices(model, section, kind):
    """The keys that `build_model` says a section of a type may have."""
    with pytest.raises(UserError, match=f"{UNKNOWN}: unknown") as error:
        build_model(load_model_yaml(model, {f"{section}.type": kind, f"{section}.{UNKNOWN}": 1}))
    return said(error)


def said(error):
    """The choices of a message; it says none where there are none."""
    return set(re.findall(r"\w+", str(error.value).partition("Choices: ")[2])) - {"none"}


def places():
    """(model, section in it, section, type) of every type."""
    heads = {name: ONE if kind == "one_stage" else TWO for kind, one in DETECTORS.items() for name in one.heads}
    inner = {place_of(part): (TWO, f"rpn.{place_of(part)}") for part in PARTS}
    for section, table in sections().items():
        model, place = inner.get(section, (heads.get(section, ONE), section))
        yield from ((model, place, section, kind) for kind in table)


@pytest.mark.parametrize(("model", "place", "section", "kind"), [*places()])
def test_rows_are_the_keys_that_are_checked(model, place, section, kind):
    assert choices(model, place, kind) == keys_of(section, kind)


def test_top_test_and_normalize_are_what_is_checked():
    spec = load_model_yaml(TWO)
    for section, place in (
        ("test", {"test": {UNKNOWN: 1}}),
        ("normalize", {"normalize": {UNKNOWN: 1}}),
        ("", {UNKNOWN: 1}),
    ):
        with pytest.raises(UserError) as error:
            build_model({**spec, **place})
        assert said(error) - set(DETECTORS["two_stage"].heads) == keys_of(section)


def test_every_key_of_every_model_has_a_row_that_says_what_it_does():
    assert all(row.text and row.kind and not ELSEWHERE.search(row.text) for row in ROWS)
    for name in yaml_names("cfg/models"):
        for section, content in load_model_yaml(name).items():
            if isinstance(content, dict) and "type" in content:
                keys = set(content) - {"type", *(("weights",) if section == "backbone" else ())}
                assert keys <= keys_of(section, content["type"]), (name, section)


def test_defaults_are_those_of_the_constructors():
    for section, table in sections().items():
        for kind, make in table.items():
            parameters = inspect.signature(make).parameters
            for row in ROWS:
                if (row.section, row.type) == (section, kind):
                    assert bool(row.default) == (parameters[row.key].default is not inspect.Parameter.empty), row
    found = {(row.section, row.type, row.key): row.default for row in ROWS}
    assert found["assigner", "ranking", "constant"] == "12.7"
    assert found["assigner", "hierarchical", "topk"] == "[3, 1]"
    assert found["assigner", "ranking", "positive_iou"] == "null"
