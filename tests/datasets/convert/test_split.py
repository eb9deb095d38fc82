"""`tinyyolo data split`: shares, seeds, groups, and what is not cut."""

import json
import random

import pytest

from tests.support.command import command
from tests.support.data_sets import annotation, clean_set, coco, data_yaml, picture
from tinyyolo.config import UserError
from tinyyolo.datasets import spec
from tinyyolo.datasets.convert.split import cut

KINDS = [(4, "ship"), (2, "DontCare")]
FLIGHTS = {"a": 5, "b": 3, "c": 1, "d": 1}  # images of each


def flights(root, **more):
    """Ten images of four flights, an object in each, regions in two; the first picture is there. Returns the JSON."""
    names = [f"{flight}__{i}.png" for flight, count in FLIGHTS.items() for i in range(count)]
    picture(root / names[0], 64, 48)
    images = [
        {"id": 7 * i, "file_name": name, "width": 64, "height": 48, "source": {"video": name[0]}, "note": "x"}
        for i, name in enumerate(names)
    ]
    rows = [annotation(i, 7 * i, 4, [1, 2, 3, 4], seen=True) for i in range(10)]
    rows += [annotation(20 + i, 7 * i, 2, [0, 0, 9, 9]) for i in (0, 9)]
    return coco(root / "a.json", images, rows, KINDS, info={"year": 2026}, **more)


def cut_to(root, file, **keys):
    """The image names of each part, by what the written YAML and its JSONs say."""
    assert command("data", "split", file, out=root / "new" / "cut.yaml", overwrite=True, **keys) == 0
    data = spec.load(root / "new" / "cut.yaml")
    return {name: data.read(name, strict=True).file_names for name in data.splits}


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_halves_are_a_shuffle_by_the_seed(tmp_path, seed):
    """As the benchmarks' halves always were: ids in order, shuffled, the odd one to train."""
    file = flights(tmp_path)
    content = json.loads(file.read_text())
    content["images"], content["annotations"] = content["images"][:9], content["annotations"][:9]
    file.write_text(json.dumps(content))
    ids = [7 * i for i in range(9)]
    random.Random(seed).shuffle(ids)
    parts = cut_to(tmp_path, file, val=0.5, seed=seed)
    for part, some in (("train", ids[:5]), ("val", ids[5:])):
        assert parts[part] == [image["file_name"] for image in content["images"] if image["id"] in some]


def test_a_part_keeps_all_that_is_said_of_its_images(tmp_path, capsys):
    file = flights(tmp_path)
    cut_to(tmp_path, file, val=0.3, ignore="[DontCare]")
    whole = json.loads(file.read_text())
    parts = [json.loads((tmp_path / "new" / f"cut-{name}.json").read_text()) for name in ("train", "val")]
    assert [len(part["images"]) for part in parts] == [7, 3]
    for key in ("images", "annotations"):
        both = sorted((record for part in parts for record in part[key]), key=lambda record: record["id"])
        assert both == sorted(whole[key], key=lambda record: record["id"])
    assert all(part["categories"] == whole["categories"] and part["info"] == {"year": 2026} for part in parts)
    data = spec.load(tmp_path / "new" / "cut.yaml")
    assert data.names == {0: "ship"} and data.ignore == ("DontCare",) and data.image_path("val", "a__0.png").is_file()
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("  train (70.0% of the images): 7 images, 7 boxes (ship 7), ")
    assert said[2].startswith("  val (30.0% of the images): 3 images, 3 boxes (ship 3), ")
    assert sum(int(line.split(", ")[-1].split()[0]) for line in said[1:]) == 2  # ignore regions


@pytest.mark.parametrize("group", ["source.video", "^(.)__", "^[a-d]"])
@pytest.mark.parametrize("seed", range(4))
def test_no_group_on_both_sides_and_near_the_shares(tmp_path, capsys, group, seed):
    """Of 5, 3, 1 and 1 images exactly 5, 3 and 2 can be had, whatever the order."""
    parts = cut_to(tmp_path, flights(tmp_path), val=0.3, test=0.2, seed=seed, group=group)
    sides = {name: {image[0] for image in images} for name, images in parts.items()}
    assert sides == {"train": {"a"}, "val": {"b"}, "test": {"c", "d"}}
    assert "  test (20.0% of the images, 2 of 4 groups): 2 images, " in capsys.readouterr().out
    assert parts == cut_to(tmp_path, flights(tmp_path), val=0.3, test=0.2, seed=seed, group=group)


def test_another_seed_is_another_cut():
    groups = [[i, i + 0.5] for i in range(20)]
    cuts = [cut(groups, 40, {"val": 0.25}, seed) for seed in (0, 0, 1)]
    assert cuts[0] == cuts[1] != cuts[2] and [len(one["val"]) for one in cuts] == [5, 5, 5]


def test_a_group_too_large_goes_where_most_is_missing():
    assert cut([[1, 2, 3], [4]], 4, {"val": 0.4}, 0) == {"train": [[1, 2, 3]], "val": [[4]]}  # 2.4 and 1.6 are wanted


def test_a_data_yaml_gives_its_own_names_and_images(tmp_path):
    file = clean_set(tmp_path)
    assert command("data", "split", file, out=tmp_path / "cut.yaml", val=0.5) == 0
    data = spec.load(tmp_path / "cut.yaml")
    assert data.names == {0: "ship", 1: "car"} and data.image_dir("val") == tmp_path / "images"
    assert sorted(data.read("train").file_names + data.read("val").file_names) == ["t0.png", "t1.png"]
    assert command("data", "split", file, out=tmp_path / "other.yaml", val=0.5, split="val") == 0
    assert spec.load(tmp_path / "other.yaml").read("train").file_names[0].startswith("v")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"val": 1}, r"val=1\.0: expected a share of the images, from 0 to less than 1"),
        ({"test": -0.1}, r"test=-0\.1: expected a share"),
        ({"val": 0}, r"val=0\.0 test=0\.0: together more than 0"),
        ({"val": 0.6, "test": 0.4}, r"together more than 0 and less than 1; the rest is train"),
        ({"out": None}, r"out=: give the data YAML to write: out=FILE\.yaml"),
        ({"out": "folder"}, r"out=folder: give the data YAML"),
        ({"images": "elsewhere"}, r"elsewhere: no a__0\.png in it; give the folder of the images: images=FOLDER"),
        ({"group": "pilot"}, r"a\.json: image a__0\.png: group: 'pilot' is not in its name, and no key of the images"),
        ({"group": "("}, r"group=\(: no key of the images in .*a\.json, nor a pattern: "),
        ({"group": "[abc]__"}, r"image d__0\.png: group: '\[abc\]__' is not in its name"),
        ({"group": "source"}, r"image a__0\.png: group: 'source', a key of the others, is missing or no text"),
        ({"group": "note"}, r"a\.json: group=note: 10 images in 1 groups leave a split without any: other shares"),
        ({"val": 0.01}, r"a\.json: 10 images in 10 groups leave a split without any"),
    ],
)
def test_what_is_not_cut(tmp_path, keys, message):
    given = {key: value for key, value in {"out": tmp_path / "cut.yaml", **keys}.items() if value is not None}
    file = flights(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        command("data", "split", file, **given)
    assert "\n" not in str(caught.value) and sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a__0.png"]


@pytest.mark.parametrize("there", ["cut.yaml", "cut-train.json", "cut-val.json"])
def test_nothing_is_written_over(tmp_path, there):
    file = flights(tmp_path)
    (tmp_path / there).write_text("mine")
    with pytest.raises(UserError, match=rf"{there}: exists; overwrite=true replaces it"):
        command("data", "split", file, out=tmp_path / "cut.yaml")
    assert (tmp_path / there).read_text() == "mine" and len(list(tmp_path.iterdir())) == 3


def test_labels_that_are_no_json_are_converted_first(tmp_path):
    picture(tmp_path / "images" / "a.png", 64, 48)
    (tmp_path / "labels").mkdir()
    file = data_yaml(tmp_path / "d.yaml", train="images", names=["ship"])
    with pytest.raises(UserError, match=r"train: no COCO JSON; first: tinyyolo data convert .*d\.yaml to=coco"):
        command("data", "split", file, out=tmp_path / "cut.yaml")
    with pytest.raises(UserError, match=r"ignore=: for a COCO JSON; .*d\.yaml says it"):
        command("data", "split", file, out=tmp_path / "cut.yaml", ignore="[a]")
