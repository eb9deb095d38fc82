"""What is wrong with a whole set is told in one line with counts and the likely cause, in every format."""

import json

import numpy as np
import pytest

from tests.support.data_sets import annotation, coco, data_yaml, picture
from tests.test_cli import call
from tinyyolo import io
from tinyyolo.config import UserError
from tinyyolo.datasets import spec
from tinyyolo.datasets.audit.faults import astray
from tinyyolo.datasets.formats import doubts
from tinyyolo.datasets.formats.table import FORMATS

W, H = 64, 32
CORNERS = [(4 * i, i, 4 * i + 3, i + 2) for i in range(1, 13)]  # x1 y1 x2 y2 of a dozen objects of 3 x 2 px


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    monkeypatch.setattr(io, "TOLD", set())


def write(root, texts, folder="labels", more=""):
    """Pictures and label files, `texts` by the label's file name; returns the YAML."""
    for i in range(2):
        picture(root / "images" / f"{i}.png", W, H, seed=i)
    (root / folder).mkdir()
    for name, text in texts.items():
        (root / folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    (root / "data.yaml").write_text(f"train: images\nval: images\nnames: [ship, car]\n{more}")
    return root / "data.yaml"


def lines(form, key="0"):
    """The dozen objects as lines of a YOLO label, `form` of x1 y1 x2 y2."""
    return "".join(f"{key} {' '.join(f'{v:.6g}' for v in form(*box))}\n" for box in CORNERS)


def fractions(x1, y1, x2, y2):
    return (x1 + x2) / 2 / W, (y1 + y2) / 2 / H, (x2 - x1) / W, (y2 - y1) / H


WHOLE = {  # what the labels say -> kind of the problem, a part of its line, and whether training stops
    "pixels": (lambda *b: ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2, 3, 2), "not fractions", "they look like pixels", True),
    "corners in pixels": (lambda *b: b, "not fractions", "they look like pixels", True),
    "corners": (lambda *b: (b[0] / W, b[1] / H, b[2] / W, b[3] / H), "corners", "look like corners", False),
    "twice as far": (lambda *b: [2 * v for v in fractions(*b)], "not fractions", "should be fractions", False),
    "outlines": (
        lambda x1, y1, x2, y2: (x1 / W, y1 / H, x2 / W, y1 / H, x2 / W, y2 / H, x1 / W, y2 / H),
        "outlines",
        "24 objects are outlines",
        False,
    ),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_yolo_labels_of_another_kind(tmp_path, kind, capsys):
    form, problem, words, stops = WHOLE[kind]
    data = spec.load(write(tmp_path, {"0.txt": lines(form), "1.txt": lines(form)}))
    (found,) = [p for p in data.read("train").problems if p.kind == problem]
    assert words in found and found.where == str(tmp_path / "labels") and "\n" not in found
    if stops:
        with pytest.raises(UserError, match=r"2[24] of 24 boxes lie outside their images.*they look like pixels"):
            astray(data.read("train"))
    code, out, err = call("data", "check", str(data.file), capsys=capsys)
    assert code == (kind != "outlines") and words in out
    for command in (("data", "stats", "figure=false"), ("data", "convert", f"out={tmp_path / 'new'}")):
        io.TOLD.clear()
        code, _, err = call(*command[:2], str(data.file), *command[2:], capsys=capsys)
        assert code == 0 and words in err, command


def test_sound_labels_leave_no_doubt(tmp_path):
    notes = spec.load(write(tmp_path, {"0.txt": lines(fractions), "1.txt": ""})).read("train")
    assert not notes.problems and not astray(notes)
    np.testing.assert_allclose(notes.boxes, CORNERS, atol=1e-3)


def test_classes_from_one(tmp_path):
    file = write(tmp_path, {"0.txt": lines(fractions, "1") + lines(fractions, "2"), "1.txt": ""})
    with pytest.raises(UserError, match="the classes seem to be numbered from 1 to 2, as there is no 0"):
        spec.load(file).read("train")
    (tmp_path / "labels" / "1.txt").write_text(lines(fractions, "0"))
    with pytest.raises(UserError, match=r"0\.txt:13: class 2 is not in names"):
        spec.load(file).read("train")


@pytest.mark.parametrize("key", ["bbox", "xywh"])
def test_corners_and_fractions_where_pixels_should_be(tmp_path, key):
    picture(tmp_path / "images" / "a.png", W, H)
    boxes = {"corners": [list(b) for b in CORNERS], "not pixels": [list(fractions(*b)) for b in CORNERS]}
    for kind, rows in boxes.items():
        if key == "bbox":
            records = [annotation(i, 1, 1, row) for i, row in enumerate(rows, 1)]
            path = coco(tmp_path / "a.json", [(1, "a.png", W, H)], records, [(1, "ship")])
            file = data_yaml(tmp_path / "c.yaml", train="images", annotations={"train": path.name})
        else:
            (tmp_path / "annotations").mkdir(exist_ok=True)
            text = "".join(f"{','.join(map(str, row))},1,1,0,0\n" for row in rows)
            (tmp_path / "annotations" / "a.txt").write_text(text)
            file = data_yaml(tmp_path / "v.yaml", train="images", format="visdrone", names=["ship"])
        assert kind in {p.kind for p in spec.load(file).read("train").problems}


@pytest.mark.parametrize("stem", ["{}.png.txt", "{}.TXT", "scene_{}.txt", "train/{}.txt"])
def test_label_files_that_belong_to_no_image(tmp_path, capsys, stem):
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels").rename(tmp_path / "kept")
    file = write(tmp_path, {})
    (tmp_path / "labels").rmdir()
    (tmp_path / "kept").rename(tmp_path / "labels")
    for i in range(2):
        (tmp_path / "labels" / stem.format(i)).write_text(lines(fractions))
    (tmp_path / "labels" / "classes.txt").write_text("ship\ncar\n")
    (found,) = spec.load(file).read("train").problems
    first = stem.format(0).rpartition("/")[2]
    assert found.kind == "label without image" and f"2 label files belong to no image, such as {first}" in found
    assert "2 of 2 images have no label file (that of 0.png would be 0.txt)" in found
    for command in (["train", f"data={file}", "epochs=1", "imgsz=64"], ["data", "check", str(file)]):
        code, out, err = call(*command, capsys=capsys)
        assert code == 2 - (command[0] == "data") and "2 label files belong to no image" in out + err
    assert "no object to train on in 2 images" in call("train", f"data={file}", capsys=capsys)[2]


def test_label_files_may_be_missing_or_of_other_images(tmp_path):
    """An image without objects needs none; a list names some images of many."""
    file = write(tmp_path, {"0.txt": lines(fractions)})
    assert not spec.load(file).read("train").problems
    (tmp_path / "labels" / "other.txt").write_text("")
    assert [p.kind for p in spec.load(file).read("train").problems] == ["label without image"]
    (tmp_path / "list.txt").write_text("images/0.png\nimages/1.png\n")
    file.write_text("train: list.txt\nval: images\nnames: [ship, car]\n")
    assert not spec.load(file).read("train").problems


def test_where_labels_are_looked_for(tmp_path):
    file = write(tmp_path, {}, folder="Labels")
    with pytest.raises(UserError, match=r"no such YOLO label folder .* has the folders Labels, images"):
        spec.load(file).read("train")
    (tmp_path / "images" / "0.txt").write_text(lines(fractions))
    with pytest.raises(UserError, match=r"1 images have a \.txt beside them: annotations: \{SPLIT: .*images\}"):
        spec.load(file).read("train")
    file.write_text(file.read_text() + "annotations: {train: images, val: images}\n")
    assert len(spec.load(file).read("train").labels) == len(CORNERS)


BYTES = {
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "two bytes a letter": lambda text: text.encode("utf-16"),
    "two bytes a letter, high first": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "Windows' lines": lambda text: text.replace("\n", "\r\n").encode(),
    "old Mac's lines": lambda text: text.replace("\n", "\r").encode(),
    "blanks at the end": lambda text: text.replace("\n", "  \t\n").encode(),
    "comments and empty lines": lambda text: f"# made by hand\n\n{text}\n   \n".encode(),
    "a comment behind": lambda text: text.replace("\n", "  # sure\n").encode(),
    "tabs": lambda text: text.replace(" ", "\t").replace(",", ",\t").encode(),
    "several blanks": lambda text: text.replace(" ", "   ").replace(",", " , ").encode(),
}
OBJECT = {
    "yolo": ("labels", "0 0.5 0.5 0.25 0.25\n1 0.25 0.25 0.125 0.125\n", [[24, 12, 40, 20], [12, 6, 20, 10]]),
    "visdrone": ("annotations", "24,12,16,8,1,1,0,0\n12,6,8,4,1,2,0,0\n", [[24, 12, 40, 20], [12, 6, 20, 10]]),
    "dota": ("labelTxt", "gsd:1\n1 2 5 2 5 9 1 9 ship 0\n2 2 5 2 5 9 2 9 car 1\n", [[1, 2, 5, 9], [2, 2, 5, 9]]),
}


@pytest.mark.parametrize("how", BYTES)
@pytest.mark.parametrize("reader", OBJECT)
def test_texts_as_editors_save_them(tmp_path, reader, how):
    folder, text, expected = OBJECT[reader]
    write(tmp_path, {"0.txt": BYTES[how](text)}, folder=folder)
    found = FORMATS[reader].read(tmp_path / "images", ["ship", "car"])
    assert found.boxes.tolist() == expected and found.labels.tolist() == [0, 1] and not found.problems


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_json_as_editors_save_it(tmp_path, encoding):
    picture(tmp_path / "a.png", W, H)
    path = coco(tmp_path / "a.json", [(1, "a.png", W, H)], [(1, 1, 1, [1, 2, 3, 4])], [(1, "straße")])
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False), encoding=encoding)
    found = spec.load(data_yaml(tmp_path / "d.yaml", train=".", annotations={"train": "a.json"})).read("train")
    assert found.names == {0: "straße"} and found.boxes.tolist() == [[1, 2, 4, 6]]


def test_what_is_no_number_or_no_text(tmp_path):
    file = write(tmp_path, {"0.txt": "0 0,5 0,5 0,25 0,25\n"})
    with pytest.raises(UserError, match=r"0\.txt:1: .*'0,5'; a decimal sign is a point, not a comma"):
        spec.load(file).read("train")
    (tmp_path / "labels" / "0.txt").write_bytes(b"# sch\xf6n\n0 0.5 0.5 0.25 0.25\n")
    with pytest.raises(UserError, match=r"0\.txt: not readable as text in UTF-8"):
        spec.load(file).read("train")


def test_few_boxes_are_not_doubted():
    few = np.array([[1.0, 1, 4, 4]] * (doubts.LEAST_BOXES - 1))
    assert not doubts.corners(few, "a", "x") and doubts.corners(np.tile(few, (2, 1)), "a", "x")
    assert not doubts.not_pixels(few / 8, "a") and doubts.not_pixels(np.tile(few / 8, (2, 1)), "a")
    assert not doubts.not_fractions(np.array([[0.5, 0.5, 1.0, 1.0005]]), "a")
    half = np.concatenate([few, few[:, [2, 3, 0, 1]]])
    assert not doubts.corners(half, "a", "x"), "half of them may be large and near the edge"
