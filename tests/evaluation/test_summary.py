"""Several detectors in one table, and its three forms."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from tests.support.sets import box
from tests.test_cli import call
from tinyyolo.evaluation.summary.rows import sheet_of
from tinyyolo.evaluation.summary.sheet import Line, Sheet, Spread, as_csv, latex, markdown

HOSTILE = r"50% & $x$ #1_{a} ~ ^ \ <b> | é ±"


@pytest.fixture
def found(tmp_path):
    """Two objects of two classes; `all.json` finds both, `one/dt.json` and `two/dt.json` the first."""
    images = [{"id": 1, "file_name": "a.png", "width": 96, "height": 96}]
    objects = [box(1, 1, 3, [10, 10, 10, 10]), box(2, 1, 7, [40, 40, 10, 10])]
    names = [{"id": 3, "name": "ship"}, {"id": 7, "name": "car_van"}]
    (tmp_path / "gt.json").write_text(json.dumps({"images": images, "annotations": objects, "categories": names}))
    rows = [{key: one[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9} for one in objects]
    for name, some in {"all.json": rows, "one/dt.json": rows[:1], "two/dt.json": rows[:1]}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(some))


def test_several_detectors_are_rows_of_one_table(found, capsys):
    code, out, err = call("evaluate", "gt=gt.json", "dt=[all.json,one/dt.json]", "out=o", capsys=capsys)
    assert code == 0 and out.splitlines() == [
        "|  | AP | AP50 | AP75 | AP_vt | AP_t | AP_s | AP_m | AR1500 |",
        "|---|---|---|---|---|---|---|---|---|",
        "| all | 100.0 | 100.0 | 100.0 | - | 100.0 | - | - | 100.0 |",
        "| dt | 50.0 | 50.0 | 50.0 | - | 50.0 | - | - | 50.0 |",
    ]
    assert err == "Saved o/table.md, and metrics.json and metrics.csv in o/all, o/dt\n"
    assert Path("o/table.md").read_text() == out
    assert json.loads(Path("o/dt/metrics.json").read_text())["AP"] == pytest.approx(0.5)
    _, again, _ = call("table", "o/all", "o/dt", capsys=capsys)
    assert "| dt | - | 50.0 |" in again, "each folder is a run to `table`"


def test_names_and_classes(found, capsys):
    files = "dt=[all.json,one/dt.json,two/dt.json]"
    _, out, _ = call("evaluate", "gt=gt.json", files, "per_class=true", capsys=capsys)
    assert out.splitlines()[0] == "|  | ship | car_van | AP50 |" and "| two/dt | 100.0 | 0.0 | 50.0 |" in out
    words = ["evaluate", "gt=gt.json", files, "names=[a,b,b]", "format=csv", "sizes=coco"]
    _, out, _ = call(*words, capsys=capsys)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["row"] for row in rows] == ["a", "b"] and rows[1]["AP std"] == "0.0" and rows[0]["AP std"] == ""
    assert Path("runs/evaluate/table.csv").read_text() == out
    assert {path.name for path in Path("runs/evaluate").iterdir() if path.is_dir()} >= {"a", "b_1", "b_2"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["dt=all.json", "format=csv"], "format=: it is for several detectors' results: dt=[a.json,b.json]"),
        (["dt=[all.json,one/dt.json]", "names=[a]"], "1 names for 2 files"),
        (["dt=[all.json,one/dt.json]", "format=html"], "format=html: Choices: csv, latex, markdown"),
        (["dt=[]"], "dt= is missing"),
        (["dt=[all.json,gone.json]"], "gone.json: no such"),
    ],
)
def test_mistakes_are_one_line(found, words, says, capsys):
    code, _, err = call("evaluate", "gt=gt.json", *words, capsys=capsys)
    assert code == 2 and says in err and err.count("\n") == 1
    assert not Path("runs/evaluate/table.md").exists()


def balanced(text):
    """Whether every brace and every dollar has its other; escaped ones are text."""
    plain = re.sub(r"\\[{}$&%#_]", "", text)
    depth = 0
    for sign in plain:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    return depth == 0 and plain.count("$") % 2 == 0


def test_latex_holds_together_whatever_the_names_are():
    lines = [
        Line([HOSTILE, "0, 1", Spread(21.44, 0.25), None], (HOSTILE, "two")),
        Line(["published, X", "", Spread(21.4), Spread(3.0)], quoted=True),
        Line(["c", None, Spread(0.04), Spread(99.96)], ("two",)),
    ]
    text = latex(Sheet(["", "seeds", "AP_" + HOSTILE, "AP50"], lines))
    assert balanced(text)
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    cells = [re.sub(r"\\&", "", line).count("&") for line in body]
    assert cells == [3, 3, 3, 3, 0, 0] and text.count(r"\multicolumn{4}{l}") == 2
    sides = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1]
    assert sides == "llrr" and text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert r"$21.4 \pm 0.2$" in text and r"AP$_{\mathrm{50}}$" in text
    assert r"50\% \& \$x\$ \#1\_\{a\} \textasciitilde{} \textasciicircum{} \textbackslash{}" in text
    assert r"\textit{published, X} & " in text and r"c\textsuperscript{b} & - & 0.0 & 100.0 \\" in text


def test_markdown_and_csv_of_the_same():
    sheet = Sheet(["", "AP"], [Line(["a|b", Spread(21.44, 0.25)], ("why",)), Line(["c", None])])
    assert r"| a\|b <sup>a</sup> | 21.4 ± 0.2 |" in markdown(sheet) and "| c | - |" in markdown(sheet)
    assert list(csv.reader(io.StringIO(as_csv(sheet)))) == [
        ["row", "AP", "AP std", "note"],
        ["a|b", "21.44", "0.25", "why"],
        ["c", "", "", ""],
    ]


def test_a_seed_without_a_figure_leaves_the_row_without_one():
    records = [
        {"row": 1, "label": "x", "seed": 0, "metrics": {"AP": 0.1, "AR1500": 0.5}, "params": 1000000},
        {"row": 1, "label": "x", "seed": 1, "metrics": {"AP": 0.3}, "params": 2000000},
    ]
    (line,) = sheet_of(records, behind=("M parameters",)).lines
    assert line.cells[1] == "0, 1" and line.cells[2].mean == pytest.approx(20.0)
    assert len(line.cells) == 4 and line.cells[3] == "1.00, 2.00", "AR1500 is not known of both"
