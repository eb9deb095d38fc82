"""docs/published.md: up to date, with every row of Table 4, saying of a row only what its own file says."""

from pathlib import Path

import pytest

from tinyyolo.config import yaml_names
from tinyyolo.detectors import published
from tinyyolo.detectors.published import CLASSES, FIGURES, TABLE_4, own, resolved, rows_there

PAGE = Path(__file__).parent.parent.parent / "docs" / "published.md"
THERE = [name for name in (*TABLE_4, *rows_there()[1]) if resolved(name)]


def test_the_page_is_up_to_date():
    """If not: python -m tinyyolo.detectors.published docs/published.md."""
    assert PAGE.read_text(encoding="utf-8") == published.markdown()


def test_the_page_has_the_rows_of_table_4():
    """15 baselines and 6 of ours, each in the table of figures and in that of what was verified."""
    assert len(TABLE_4) == len(set(TABLE_4)) == 21 and sum("nwdrka" in name for name in TABLE_4) == 6
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for name in TABLE_4:
        there = f"{name}.yaml" in yaml_names("cfg/models")
        first = f"| [{name}](../cfg/models/{name}.yaml) |" if there else f"| {name} (no YAML yet) |"
        assert sum(line.startswith(first) for line in lines) == 1
        assert sum(line.startswith(f"| {name} |") for line in lines) >= 1


@pytest.mark.parametrize("name", THERE)
def test_a_row_says_its_figures_and_what_was_verified_of_it(name):
    figures, data = resolved(name)["published"], "AI-TOD" if name == "retinanet-r50-rfla" else published.DATA
    assert set(FIGURES) <= set(figures) and figures["data"] == data
    said = own(name)
    assert set(said) <= {"data", *FIGURES, "classes", "checked", "differs"}
    assert said["checked"]["golden"] and set(said["checked"]) <= {"golden", "regression"}
    if name in TABLE_4:
        assert tuple(said["classes"]) == CLASSES


def test_a_base_speaks_for_itself_alone():
    """cascade-rcnn-r50-nwdrka has its base's figures' keys, not what was verified of the base."""
    base, row = own("faster-rcnn-r50"), own("faster-rcnn-r101")
    assert base["differs"] and "differs" not in row and row["checked"] != base["checked"]
    assert published.own("nothing-of-this-name") == {}


def test_settings_beside_the_text_of_the_paper():
    said = published.beside_text(resolved("retinanet-r50-nwdrka"))
    assert said == ["lr0 0.005 (text: 0.01)", "k 3 (text: 2)"]
    assert published.beside_text(resolved("faster-rcnn-r50-nwdrka")) == ["positives of the RPN 0.5 (text: 1/3)"]
