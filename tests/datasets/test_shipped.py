"""Every data YAML that comes along, read from a tiny copy of its set: its real folders, names and records."""

import json

import pytest

from tests.support.command import command
from tests.support.data_sets import AITOD_NAMES, annotation, coco, data_yaml, picture
from tinyyolo.config import ROOTS, UserError
from tinyyolo.datasets import spec
from tinyyolo.datasets.audit.check import inspect
from tinyyolo.datasets.formats.xview import CATEGORIES as XVIEW

DRAWN = {"toy", "toy-easy", "school"}
NAMES = sorted(file.stem for root in ROOTS for file in (root / "data").glob("*.yaml") if file.stem not in DRAWN)
BOX = [8, 6, 16, 20]  # xyxy, px, of the first object of each image; by hand in each writer below
XYWH = [8, 6, 8, 14]


def pictures(root, *names, size=(64, 48)):
    for i, name in enumerate(names):
        picture(root / name, *size, seed=i)


def records(root, file, folder, name, categories, *more, first=None, **image):
    """A COCO JSON of one image with an object of the first class and what else is given."""
    pictures(root, f"{folder}/{name}")
    key = (first or categories[0])["id"]
    rows = [annotation(1, 1, key, XYWH), *more]
    coco(root / file, [{"id": 1, "file_name": name, "width": 64, "height": 48, **image}], rows, categories)


def aitod(root, *jsons):
    kinds = [{"id": i, "name": name, "supercategory": name} for i, name in enumerate(AITOD_NAMES, 1)]
    for folder, file in jsons:
        records(root, f"annotations/{file}", f"images/{folder}", "1001__0_600.png", kinds)


def dota(root, *splits, name="P0003.png", kind="plane", images="{}/images", labels="{}/labelTxt"):
    """A square on its corner below two lines of header, which AI-TOD-R may not have."""
    lines = ["imagesource:GoogleEarth", "gsd:0.146343590398"] * (kind == "plane") + [f"8 13 12 6 16 13 12 20 {kind} 0"]
    for split in splits:
        pictures(root, f"{images.format(split)}/{name}")
        (root / labels.format(split)).mkdir(parents=True)
        (root / labels.format(split) / f"{name[:-4]}.txt").write_text("\n".join(lines) + "\n")


def visdrone(root):
    for split in ("train", "val", "test-dev"):
        folder = f"VisDrone2019-DET-{split}"
        pictures(root, f"{folder}/images/0000002_00005_d_0000014.jpg")
        (root / folder / "annotations").mkdir()
        text = "8,6,8,14,1,1,0,0\n0,0,9,9,0,0,0,0\n"
        (root / folder / "annotations" / "0000002_00005_d_0000014.txt").write_text(text)


def dior(root):
    folder = root / "Annotations" / "Horizontal Bounding Boxes"
    folder.mkdir(parents=True)
    for split, name in (("trainval", "00001"), ("test", "11726")):
        pictures(root, f"JPEGImages-{split}/{name}.jpg")
        box = "<bndbox><xmin>8</xmin><ymin>6</ymin><xmax>16</xmax><ymax>20</ymax></bndbox>"
        thing = f"<object><name>airplane</name><pose>Unspecified</pose>{box}</object>"
        (folder / f"{name}.xml").write_text(f"<annotation><filename>{name}.jpg</filename>{thing}</annotation>")


def xview(root):
    pictures(root, "train_images/2355.tif")
    rows = [(11, "8,6,16,20", "2355.tif"), (75, "1,1,9,9", "2355.tif"), (18, "1,1,5,5", "1395.tif")]
    kind = "{" + '"type": "Feature", "geometry": {"type": "Polygon", "coordinates": []}, "properties": {'
    features = [
        f'{kind}"bounds_imcoords": "{box}", "edited_by": "wwoscarbecerril", "cat_id": "1040", "type_id": {key},'
        f' "ingest_time": "2017/07/24", "index_right": 2356, "image_id": "{image}", "feature_id": {i}' + "}}"
        for i, (key, box, image) in enumerate(rows)
    ]
    text = '{"type": "FeatureCollection", "features": [' + ", ".join(features) + "]}"
    (root / "xView_train.geojson").write_text(text)


def hit_uav(root):
    """Its JSONs are its authors' own: `annotation`, `filename`, no `iscrowd`."""
    names = ["Person", "Car", "Bicycle", "OtherVehicle", "DontCare"]
    kinds = [{"supercategory": name, "id": i, "name": name} for i, name in enumerate(names)]
    rows = [
        {"segmentation": [[]], "area": 112, "image_id": 2029, "bbox": box, "category_id": kind, "id": 17628 + kind}
        for kind, box in ((0, XYWH), (4, [0, 0, 9, 9]))
    ]
    image = {"filename": "1_80_90_0_01343.jpg", "height": 48, "width": 64, "id": 2029, "date_captured": "20210114"}
    (root / "normal_json" / "annotations").mkdir(parents=True)
    for split in ("train", "val", "test"):
        pictures(root, f"normal_json/{split}/{image['filename']}")
        content = {"info": {}, "licenses": [], "images": [image], "categories": kinds, "annotation": rows}
        (root / "normal_json" / "annotations" / f"{split}.json").write_text(json.dumps(content))


def seadronessee(root):
    names = ["ignored", "swimmer", "boat", "jetski", "life_saving_appliances", "buoy"]
    kinds = [{"id": i, "name": name, "supercategory": "person"} for i, name in enumerate(names)]
    more = {"source": {"drone": "mavic", "frame_no": 7}, "meta": {"altitude(meters)": 8.6}, "date_time": "2020-08-27"}
    for split in ("train", "val"):
        file, region = f"annotations/instances_{split}.json", annotation(2, 1, 0, [0, 0, 9, 9])
        records(root, file, f"images/{split}", "3388.jpg", kinds, region, first=kinds[1], **more)


def soda_d(root):
    names = ["people", "rider", "bicycle", "motor", "vehicle", "traffic-sign", "traffic-light", "traffic-camera"]
    kinds = [{"id": i, "name": name} for i, name in enumerate([*names, "warning-cone", "ignore"], 1)]
    for i, split in enumerate(("train", "val", "test")):
        region = annotation(2, 1, 10, [0, 0, 9, 9])
        records(root, f"Annotations/{split}.json", "Images", f"0000{i}.jpg", kinds, region)


def tinyperson(root):
    """One person, one that may be none (`uncertain`), and a crowd (`ignore`), as the tutorial prints records."""
    kinds = [{"id": i, "name": f"{where}_person", "supercategory": "person"} for i, where in ((1, "sea"), (2, "earth"))]
    plain = {"ignore": False, "uncertain": False, "logo": False, "in_dense_image": False}
    doubt = annotation(2, 1, 2, [30, 6, 8, 8], **{**plain, "uncertain": True})
    crowd = annotation(3, 1, 1, [0, 30, 9, 9], **{**plain, "ignore": True, "logo": True})
    for split in ("train", "test"):
        name, file = "labeled_images/bb_V0032_I0001640.jpg", f"annotations/tiny_set_{split}.json"
        records(root, file, split, name, kinds, doubt, crowd)


def dronevehicle(root):
    """Polygons, a few boxes, two misspelled classes, one that says nothing and an object without a place."""
    corners = (8, 13), (12, 6), (16, 13), (12, 20)
    polygon = "".join(f"<x{i}>{x}</x{i}><y{i}>{y}</y{i}>" for i, (x, y) in enumerate(corners, 1))
    box = "<bndbox><xmin>30</xmin><ymin>6</ymin><xmax>40</xmax><ymax>20</ymax></bndbox>"
    rows = [("car", f"<polygon>{polygon}</polygon>"), ("feright car", box), ("truvk", box), ("*", box), ("", box)]
    rows += [("car", "")]
    things = "".join(f"<object><name>{name}</name>{place}</object>" for name, place in rows)
    for split in ("train", "val", "test"):
        pictures(root, f"{split}/{split}imgr/00001.jpg")
        (root / split / f"{split}labelr").mkdir()
        (root / split / f"{split}labelr" / "00001.xml").write_text(f"<annotation>{things}</annotation>")


def vedai(root):
    """Two images of two bands each and the lists of a fold, made into lists of images as `get:` says."""
    pictures(root, *(f"Vehicules1024/0000000{i}_{band}.png" for i in (1, 2) for band in ("co", "ir")))
    (root / "Annotations1024").mkdir()
    line = "12.0 13.0 0.7 {} 1 0 8 12 16 12 13 6 13 20\n"
    for i, fold in ((1, "fold01"), (2, "fold01test")):
        text = line.format(1) + line.format(8) + "40 20 11 1 0\n"  # a car, a bus, and a pickup without corners
        (root / "Annotations1024" / f"0000000{i}.txt").write_text(text)
        (root / "Annotations1024" / f"{fold}.txt").write_text(f"0000000{i}\n")
        (root / f"{fold}.txt").write_text(f"Vehicules1024/0000000{i}_co.png\n")


def drawn(name, root):
    """The tiny copy of a set."""
    {
        "AI-TOD": lambda: aitod(root, ("trainval", "aitod_trainval_v1.json"), ("test", "aitod_test_v1.json")),
        "AI-TOD-v2": lambda: aitod(root, ("trainval", "aitodv2_trainval.json"), ("test", "aitodv2_test.json")),
        "AI-TOD-v2-dev": lambda: aitod(
            root, ("train", "aitodv2_train.json"), ("val", "aitodv2_val.json"), ("test", "aitodv2_test.json")
        ),
        "AI-TOD-R": lambda: dota(
            root, "trainval", "test", name="1001__0_600.png", kind="airplane", images="images/{}", labels="labels_v1/{}"
        ),
        "DIOR": lambda: dior(root),
        "DOTA-v1.0": lambda: dota(root, "train", "val"),
        "DOTA-v1.5": lambda: dota(root, "train", "val"),
        "DOTA-v2": lambda: dota(root, "train", "val"),
        "DroneVehicle": lambda: dronevehicle(root),
        "HIT-UAV": lambda: hit_uav(root),
        "SODA-D": lambda: soda_d(root),
        "SeaDronesSee-v2": lambda: seadronessee(root),
        "TinyPerson": lambda: tinyperson(root),
        "VEDAI": lambda: vedai(root),
        "VisDrone2019": lambda: visdrone(root),
        "xView": lambda: xview(root),
    }[name]()


# Labels of what is drawn besides the one object of the first class, in the order of the file; -1 is an ignore region.
MORE = {
    **{name: [-1] for name in ("HIT-UAV", "SODA-D", "SeaDronesSee-v2", "VisDrone2019", "xView", "VEDAI")},
    "TinyPerson": [-1, -1],
    "DroneVehicle": [4, 1, -1, -1],
}
# Kinds of what is said beside it.
SAID = {"DroneVehicle": {"outlines", "not a number"}, "VEDAI": {"not a number"}, "xView": {"missing image"}}


COUNTS = {"image count", "box count", "class count", "wrong split"}  # a tiny copy has others than the set


@pytest.mark.parametrize("name", NAMES)
def test_it_is_read_as_its_set_lies(name, tmp_path):
    drawn(name, tmp_path)
    data = spec.load(name, path=tmp_path)
    data.must_exist()
    for split in data.splits:
        found = data.read(split)
        assert found.boxes[0].tolist() == BOX and found.labels.tolist() == [0, *MORE.get(name, [])], split
        assert (len(found), found.sizes_hw.tolist()) == (1, [[48, 64]]), split
        assert all(data.image_path(split, image).is_file() for image in found.file_names)
        assert {problem.kind for problem in found.problems} == SAID.get(name, set())
        assert found.names == data.names
    report, _ = inspect(data, images=False)
    assert set(report["problems"]) - COUNTS == SAID.get(name, set()) - {"outlines"}, "what `data check` finds wrong"


def test_another_name_of_a_class_is_the_class(tmp_path):
    """Of DroneVehicle; and not in what is written of it."""
    drawn("DroneVehicle", tmp_path)
    found = spec.load("DroneVehicle", path=tmp_path).read("val")
    kinds = [found.names.get(label) for label in found.labels]
    assert kinds == ["car", "freight car", "truck", None, None] and "truvk" not in found.categories.values()
    assert command("data", "convert", "DroneVehicle", path=tmp_path, to="coco", out=tmp_path / "out") == 0
    again = spec.load(tmp_path / "out" / "data.yaml").read("val", strict=True)
    assert again.names == found.names and again.labels.tolist() == found.labels.tolist() and not again.problems


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aliases": {"boat": "shipp"}}, r"aliases: boat: shipp: expected another name of one of ship, car"),
        ({"aliases": {"car": "ship"}}, r"aliases: car: ship: expected another name"),
        ({"aliases": {"boat": "ship"}, "names": None}, r"aliases: give `names:`"),
        ({"aliases": ["boat"]}, r"aliases: expected a mapping other name in the labels: name"),
    ],
)
def test_wrong_aliases(tmp_path, change, message):
    content = {"train": "images", "annotations": {"train": "a.json"}, "names": ["ship", "car"], **change}
    with pytest.raises(UserError, match=message):
        spec.load(data_yaml(tmp_path / "d.yaml", **content))


def test_labels_that_number_their_classes_have_no_other_names(tmp_path):
    pictures(tmp_path, "images/a.png")
    (tmp_path / "labels").mkdir()
    data = spec.load(data_yaml(tmp_path / "d.yaml", train="images", names=["ship"], aliases={"boat": "ship"}))
    with pytest.raises(UserError, match=r"aliases: labels of yolo number their classes, and name none"):
        data.read("train")


def test_vedai_by_hand(tmp_path):
    drawn("VEDAI", tmp_path)
    found = spec.load("VEDAI", path=tmp_path).read("train")
    assert found.file_names == ["Vehicules1024/00000001_co.png"] and found.extra["truncation"].tolist() == [0, 0]
    (tmp_path / "Annotations1024" / "00000001.txt").write_text("1 2 3\n")
    with pytest.raises(UserError, match=r"00000001\.txt:1: expected `cx cy angle class .*`, found 3 columns"):
        spec.load("VEDAI", path=tmp_path).read("train")


def test_xview_types_are_the_classes():
    assert list(spec.load("xView").names.values()) == list(XVIEW.values())


@pytest.mark.parametrize("name", NAMES)
def test_training_on_a_set_that_is_not_there_says_how_to_get_it(name, tmp_path, monkeypatch):
    """In one line, before a model is built or a folder made."""
    monkeypatch.setattr("tinyyolo.engine.prepare.build_model", lambda *_: pytest.fail("a model was built"))
    monkeypatch.setenv("TINYYOLO_DATASETS", str(tmp_path / "datasets"))
    runs = {"project": tmp_path / "runs", "pretrained": False}
    with pytest.raises(UserError) as caught:
        command("train", model="tinyyolo-n.yaml", data=f"{name}.yaml", **runs)
    line, about = str(caught.value), spec.load(name).content["about"]
    assert "\n" not in line and f"{name}.yaml: the data are not in {tmp_path / 'datasets'}" in line
    assert all(step in line for step in [about["ask"], about["licence"], *about["get"]])
    assert list(tmp_path.iterdir()) == []
