"""PASCAL VOC's XML, as LabelImg writes it."""

import pytest

from tests.support.command import command
from tests.support.data_sets import data_yaml, picture
from tinyyolo.config import UserError
from tinyyolo.datasets import spec
from tinyyolo.datasets.formats.table import FORMATS

BOX = "<bndbox><xmin>3</xmin><ymin>4.5</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
LABELIMG = f"""<annotation>
    <folder>RGB</folder><filename>a.png</filename>
    <size><width>64</width><height>48</height><depth>3</depth></size><segmented>0</segmented>
    <object>
    <name>small ship</name><pose>Unspecified</pose><truncated>1</truncated><difficult>0</difficult>{BOX}</object>
    <object><name>DontCare</name>{BOX}</object>
</annotation>
"""


def voc_set(root, text, labels="Annotations"):
    picture(root / "JPEGImages" / "a.png", 64, 48)
    (root / labels).mkdir(exist_ok=True)
    (root / labels / "a.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return data_yaml(
        root / "d.yaml", train="JPEGImages", format="voc", names=["car", "small ship"], ignore=["DontCare"]
    )


def test_by_hand(tmp_path):
    found = spec.load(voc_set(tmp_path, LABELIMG)).read("train", strict=True)
    assert found.boxes.tolist() == [[3, 4.5, 9, 8]] * 2 and found.labels.tolist() == [1, -1] and not found.problems
    assert {name: column.tolist() for name, column in found.extra.items()} == {
        "difficult": [0, 0],
        "truncation": [1, 0],
        "occlusion": [0, 0],
    }


def test_beside_the_images_as_labelimg_puts_them(tmp_path):
    voc_set(tmp_path, LABELIMG, "JPEGImages")
    with pytest.raises(UserError, match=r"1 images have a \.xml beside them: annotations: \{SPLIT: .*JPEGImages\}"):
        spec.load(tmp_path / "d.yaml").read("train")
    data_yaml(tmp_path / "e.yaml", base="d.yaml", annotations={"train": "JPEGImages"})
    assert len(spec.load(tmp_path / "e.yaml").read("train").labels) == 2


def test_there_and_back_keeps_marks_and_names(tmp_path):
    file = voc_set(tmp_path, LABELIMG.replace("small ship", "R&amp;D &lt;1&gt;"))
    data_yaml(file, train="JPEGImages", format="voc", names=["R&D <1>"], ignore=["DontCare"])
    assert command("data", "convert", file, to="voc", out=tmp_path / "out") == 0
    first, again = spec.load(file).read("train"), spec.load(tmp_path / "out" / "data.yaml").read("train", strict=True)
    assert again.boxes.tolist() == first.boxes[:1].tolist() and again.names == {0: "R&D <1>"}
    assert again.extra["truncation"].tolist() == [1]


LAUGHS = """<?xml version="1.0"?>
<!DOCTYPE annotation [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotation><object><name>&b;</name></object></annotation>"""


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("", "bad record", "a.xml: not readable as XML: no element found"),
        ("hello", "bad record", "a.xml: not readable as XML: syntax error"),
        (LABELIMG[:200], "bad record", "a.xml: not readable as XML"),
        (LAUGHS, "bad record", "a.xml: <!DOCTYPE in it: not read"),
        (b"\xff\xfe" + LAUGHS.encode("utf-16-le"), "bad record", "<!DOCTYPE in it: not read"),
        ("<html/>", "bad record", "expected <annotation>, found <html>"),
        (LABELIMG.replace("<name>small ship</name>", ""), "bad record", "a.xml:1: an object without a name"),
        (LABELIMG.replace("<xmin>3</xmin>", ""), "bad record", "a.xml:1: no bndbox with xmin"),
        (LABELIMG.replace("<xmin>3<", "<xmin>x<"), "bad record", "expected numbers `xmin ymin xmax ymax`"),
        (LABELIMG.replace("<xmin>3<", "<xmin>nan<"), "not a number", "not a number: nan 4.5 9 8"),
        (LABELIMG.replace("<xmin>3<", "<xmin>30<"), "empty box", "empty box: 30 4.5 9 8"),
        (LABELIMG.replace("small ship", "boat"), "unknown class", "class boat is not in names; there are: 1 car"),
        (b"\xe9" + LABELIMG.encode(), "bad record", "not readable as text in UTF-8"),
    ],
)
def test_malformed(tmp_path, text, kind, message):
    found = spec.load(voc_set(tmp_path, text)).read("train", strict=False)
    assert {problem.kind for problem in found.problems} == {kind} and message in found.problems[0]
    assert "\n" not in found.problems[0]


def test_files_that_belong_to_no_image_are_told(tmp_path):
    voc_set(tmp_path, LABELIMG)
    (tmp_path / "Annotations" / "a.xml").rename(tmp_path / "Annotations" / "b.xml")
    found = FORMATS["voc"].read(tmp_path / "JPEGImages", ["small ship"], ["DontCare"])
    assert "1 label files belong to no image, such as b.xml" in found.problems[0]
