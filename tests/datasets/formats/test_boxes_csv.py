"""A CSV of boxes for all images, as DeepForest has it."""

import pytest

from tests.support.command import command
from tests.support.data_sets import data_yaml, picture
from tests.test_cli import call
from tinyyolo.config import UserError
from tinyyolo.datasets import spec
from tinyyolo.datasets.formats.table import FORMATS

HEADER = "image_path,xmin,ymin,xmax,ymax,label"


def csv_set(root, text, **content):
    for i, name in enumerate("abc"):
        picture(root / "images" / f"{name}.png", 64, 48, seed=i)
    (root / "l.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return data_yaml(root / "d.yaml", train="images", annotations={"train": "l.csv"}, **content)


def test_by_hand(tmp_path):
    rows = [
        "b.png,1,2,11,22,Tree",
        "a.png,3.5,4,5.5,9,Bush",
        "b.png,0,0,6,6,Tree",
        "c.png,0,0,0,0,",
        "z.png,1,1,2,2,Tree",
    ]
    found = spec.load(csv_set(tmp_path, "\n".join([HEADER, *rows]))).read("train", strict=True)
    assert found.names == {0: "Bush", 1: "Tree"} and found.file_names == ["a.png", "b.png", "c.png"]
    assert found.boxes.tolist() == [[3.5, 4, 5.5, 9], [1, 2, 11, 22], [0, 0, 6, 6]]
    assert found.labels.tolist() == [0, 1, 1] and found.image_index.tolist() == [0, 1, 1]
    assert list(map(str, found.problems)) == ["z.png: 1 objects of l.csv lie in it"]


def test_predictions_other_names_of_columns_and_numbers_of_classes(tmp_path):
    text = "\ufeffScene,X1,Y1,X2,Y2,Scores,Class\r\na.png,1,2,11,22,.9,1\r\na.png,1,2,11,12,.9,0\r\n"
    found = spec.load(csv_set(tmp_path, text, names=["ship", "car"])).read("train")
    assert found.labels.tolist() == [1, 0] and [problem.kind for problem in found.problems] == ["scores", "class field"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column image_path, xmin, ymin, xmax, ymax, label; expected the header image_path,xmin"),
        ("a.png,1,2,3,4,Tree", "no column image_path"),
        (f"{HEADER}\na.png,1,2,3,4,Boat", "1 objects: class 'Boat' is not in names; Choices: Tree"),
        (f"{HEADER}\na.png,1,2,x,4,Tree", r"l\.csv:2: expected numbers `xmin ymin xmax ymax`"),
        (f'{HEADER}\na.png,1,2,3,4,"Tree', r"l\.csv: not readable as CSV: unexpected end of data"),
        (b"\xff\xfe\x00", r"l\.csv: not readable"),
        (b"image_path,xmin\xe9", r"l\.csv: not readable as CSV"),
    ],
)
def test_malformed(tmp_path, capsys, text, message):
    file = csv_set(tmp_path, text, names=["Tree"])
    with pytest.raises(UserError, match=message) as error:
        spec.load(file).read("train", strict=True)
    assert "\n" not in str(error.value)
    code, _, err = call("data", "stats", str(file), f"runs={tmp_path}", capsys=capsys)
    assert code == 2 and len(err.splitlines()) == 1, err


@pytest.mark.parametrize(
    ("row", "kind"),
    [("a.png,nan,2,3,4,Tree", "not a number"), ("a.png,9,2,3,4,Tree", "empty box"), ("a.png,1,2,3,4,", "no class")],
)
def test_left_out(tmp_path, row, kind):
    found = spec.load(csv_set(tmp_path, f"{HEADER}\n{row}", names=["Tree"])).read("train", strict=True)
    assert not len(found.labels) and [problem.kind for problem in found.problems] == [kind]
    assert "l.csv:2: " in found.problems[0]


def test_commas_and_quotes_come_back(tmp_path):
    file = csv_set(tmp_path, f'{HEADER}\na.png,1,2,3,4.25,"oak, ""old"""\n')
    assert command("data", "convert", file, to="csv", out=tmp_path / "out") == 0
    text = (tmp_path / "out" / "annotations" / "train.csv").read_text()
    assert text == f'{HEADER}\na.png,1,2,3,4.25,"oak, ""old"""\n'
    assert spec.load(tmp_path / "out" / "data.yaml").read("train", strict=True).names == {0: 'oak, "old"'}


def test_without_a_file_it_is_asked_for(tmp_path):
    picture(tmp_path / "a.png", 9, 9)
    with pytest.raises(UserError, match="give the CSV"):
        FORMATS["csv"].read(tmp_path)
