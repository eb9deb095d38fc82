"""Whatever hypothesis thinks of: each reader gives a value, a counted fault or a UserError, and nothing else."""

import json
import math

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.data_sets import picture
from tests.support.maps import scene
from tinyyolo import plain_yaml
from tinyyolo.config import UserError, load_model_yaml, load_yaml
from tinyyolo.datasets.formats import coco, dota, text, visdrone, voc, yolo
from tinyyolo.datasets.formats.gis import read as gis
from tinyyolo.datasets.formats.tables import boxes_csv
from tinyyolo.detectors.build import build_model
from tinyyolo.engine import checkpoint
from tinyyolo.evaluation import evaluate

EXAMPLES = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
FEW = settings(EXAMPLES, max_examples=30)
WORDS = [
    "a: ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "&x ",
    "*x",
    "!!int ",
    "!!float ",
    "<<: ",
    "\n",
    "  ",
    "'",
    '"',
    "? ",
    ": ",
    "|",
]
WORDS += ["0x_", "1e3", "2001-99-99", "12:30", "~", "null", "#", "%", "@", "base", "\t", "...", "---", "\\ud800", ", "]
YAML_TEXT = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=3)), max_size=30).map("".join)
LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([2**63, -(2**63), 10**400]),
)
VALUE = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
RECORD = st.fixed_dictionaries(
    {},
    optional={
        key: st.one_of(VALUE, st.just(1), st.just([1, 2, 3, 4]))
        for key in (
            "id",
            "image_id",
            "category_id",
            "bbox",
            "area",
            "iscrowd",
            "ignore",
            "file_name",
            "width",
            "height",
            "name",
            "score",
        )
    },
)
PLAIN = (str, int, float, bool, type(None))


def plain(value):
    """Whether a value is plain through and through, finite in depth."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(one) for key, one in value.items())
    return all(map(plain, value)) if isinstance(value, list) else type(value) in PLAIN


@EXAMPLES
@given(YAML_TEXT)
@example("a: &x [*x]")
@example("!!int ''")
def test_yaml_is_plain_or_an_error_of_yaml(words):
    try:
        assert plain(plain_yaml.read(words))
    except yaml.YAMLError as error:
        assert str(error)


@EXAMPLES
@given(st.binary(max_size=60))
def test_a_yaml_of_any_bytes(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    try:
        assert plain(load_yaml(file))
    except UserError as error:
        assert str(error).startswith(str(file)) and len(str(error).splitlines()) == 1


@EXAMPLES
@given(st.lists(RECORD, max_size=3), st.lists(RECORD, max_size=3), st.lists(RECORD, max_size=3))
def test_objects_of_any_records(tmp_path_factory, images, boxes, kinds):
    file = tmp_path_factory.getbasetemp() / "any.json"
    sound = {"id": 1, "file_name": "a.png", "width": 8, "height": 8}, {"id": 1, "name": "ship"}
    content = {"images": [sound[0], *images], "annotations": boxes, "categories": [sound[1], *kinds]}
    file.write_text(json.dumps(content))
    for needed in (True, False):
        found = coco.read(file, strict=False, images=needed)
        assert np.isfinite(found.boxes).all() and len(found.boxes) <= len(boxes)
        assert len(boxes) - len(found.boxes) <= len(found.problems), "a box is lost without a word"
        (file.parent / "out.txt").write_text("\n".join(map(str, found.problems)), encoding="utf-8", errors="strict")


@EXAMPLES
@given(st.lists(RECORD, max_size=3))
def test_detections_of_any_records(records):
    truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "ship"}], "annotations": []}
    try:
        assert math.isfinite(evaluate(truth, records)["AP"])
    except UserError as error:
        assert str(error)


LINE = st.one_of(
    st.text(max_size=30),
    st.lists(st.one_of(st.floats().map(str), st.integers().map(str), st.just("ship")), max_size=11).map(" ".join),
)


@pytest.mark.parametrize("kind", [yolo, visdrone, dota])
def test_labels_of_any_lines(kind, tmp_path):
    picture(tmp_path / "images" / "a.png", 32, 32)
    reader: text.TextFormat = kind.TEXT
    (tmp_path / reader.folder).mkdir()

    @EXAMPLES
    @given(st.lists(LINE, max_size=4), st.sampled_from([" ", ","]), st.binary(max_size=4))
    def read(lines, comma, tail):
        content = "\n".join(lines).replace(" ", comma).encode("utf-8", "surrogatepass") + tail
        (tmp_path / reader.folder / "a.txt").write_bytes(content)
        found = reader.read(tmp_path / "images", ["ship"], strict=False)
        assert np.isfinite(found.boxes).all() and (found.boxes[:, 2:] > found.boxes[:, :2]).all()

    read()


CELL = st.one_of(st.text(max_size=6), st.floats().map(str), st.integers().map(str), st.sampled_from(["a.png", "ship"]))


@FEW
@given(st.lists(st.lists(CELL, max_size=7).map(",".join), max_size=4), st.booleans(), st.binary(max_size=4))
def test_a_table_of_any_cells(tmp_path_factory, rows, header, tail):
    folder = tmp_path_factory.getbasetemp() / "table"
    if not folder.is_dir():
        picture(folder / "a.png", 32, 32)
    lines = [",".join(boxes_csv.HEADER)] * header + rows
    (folder / "any.csv").write_bytes("\n".join(lines).encode("utf-8", "surrogatepass") + tail)
    for names in (["ship"], None):
        try:
            found = boxes_csv.read(folder, names, labels=folder / "any.csv", strict=False)
            assert np.isfinite(found.boxes).all() and (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        except UserError as error:
            assert str(error).startswith(str(folder)) and len(str(error).splitlines()) == 1


PART = st.sampled_from(
    ["<object>", "</object>", "<name>ship</name>", "<bndbox>", "</bndbox>", "<xmin>1</xmin>", "<a/>"]
)


@FEW
@given(st.lists(st.one_of(PART, st.text(max_size=4)), max_size=8).map("".join), st.booleans(), st.binary(max_size=4))
def test_an_xml_of_any_parts(tmp_path_factory, parts, whole, tail):
    folder = tmp_path_factory.getbasetemp() / "xml"
    if not folder.is_dir():
        picture(folder / "a.png", 32, 32)
    content = f"<annotation>{parts}</annotation>" if whole else parts
    (folder / "a.xml").write_bytes(content.encode("utf-8", "surrogatepass") + tail)
    found = voc.FORMAT.read(folder, ["ship"], labels=folder, strict=False)
    assert not len(found.labels) and all(len(problem.splitlines()) == 1 for problem in found.problems)


FEATURE = st.fixed_dictionaries(
    {"type": st.just("Feature"), "properties": st.one_of(VALUE, st.fixed_dictionaries({"class": LEAF}))},
    optional={"geometry": st.one_of(VALUE, st.fixed_dictionaries({"type": st.just("Polygon"), "coordinates": VALUE}))},
)


@FEW
@given(st.lists(st.one_of(FEATURE, VALUE), max_size=3))
def test_a_map_of_any_features(tmp_path_factory, features):
    folder = tmp_path_factory.getbasetemp() / "map"
    if not folder.is_dir():
        scene(folder / "a.tif")
    (folder / "any.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    for names in (["ship"], None):
        try:
            found = gis.read(folder, names, labels=folder / "any.geojson", strict=False)
            assert np.isfinite(found.boxes).all() and (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        except UserError as error:
            assert str(error).startswith(str(folder)) and len(str(error).splitlines()) == 1


def test_a_checkpoint_of_any_bytes(tmp_path):
    model = build_model(load_model_yaml("tinyyolo-n.yaml"))
    checkpoint.save(tmp_path / "sound.pt", checkpoint.of_model(model, {}))
    sound = (tmp_path / "sound.pt").read_bytes()

    @FEW
    @given(st.integers(0, len(sound)), st.binary(max_size=8), st.booleans())
    def read(place, content, cut):
        file = tmp_path / "any.pt"
        file.write_bytes(sound[:place] + content + (b"" if cut else sound[place + len(content) :]))
        try:
            assert set(checkpoint.load(file)) == set(checkpoint.load(tmp_path / "sound.pt"))
        except UserError as error:
            assert str(error).startswith(str(file)) and len(str(error).splitlines()) == 1

    read()
