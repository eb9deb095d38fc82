"""`data build-aitod`: AI-TOD's images from TIFF scenes and the authors' part, in the official layout."""

import json
import shutil

import cv2
import numpy as np
import pytest

from tests.support.command import command
from tests.support.data_sets import AITOD_NAMES, annotation, coco, picture
from tinyyolo.config import UserError
from tinyyolo.datasets import images, spec
from tinyyolo.datasets.convert import aitod, tile

CUT = {"train": ["24__0_0.png", "24__600_200.png"], "val": ["109__600_600.png"], "test": ["109__590_0.png"]}
PART = {"train": ["P0007__1.0_600_0.png"], "val": ["00012.png"], "test": ["00013.png"]}


@pytest.fixture
def sources(tmp_path):
    """xView scenes, the authors' images and JSONs with the official names; an extra scene that nothing names."""
    scenes = {}
    for seed, (name, w, h) in enumerate((("24", 1390, 1000), ("109", 1390, 1300), ("5", 820, 810))):
        scenes[name] = picture(tmp_path / "xview" / "ori" / "train_images" / f"{name}.tif", w, h, seed=seed)
    for split in (*PART, "trainval"):
        for name in both(PART, split):
            picture(tmp_path / "aitod" / "images" / split / name, 800, 800, seed=len(name))
    write_jsons(tmp_path / "aitod" / "annotations")
    return scenes


def both(names, split):
    return names["train"] + names["val"] if split == "trainval" else names[split]


def write_jsons(folder, size=800):
    kinds = [(i + 1, name) for i, name in enumerate(AITOD_NAMES)]
    for split in ("train", "val", "trainval", "test"):
        names = both(CUT, split) + both(PART, split)
        images = [(i + 1, name, size, size) for i, name in enumerate(names)]
        rows = [annotation(i, i, 6, [10.0, 20.0, 12.0, 11.0]) for i in range(1, len(names) + 1)]
        coco(folder / f"aitodv2_{split}.json", images, rows, kinds, info={"version": "2.0"}, licenses=[])


def build(tmp_path, **options):
    where = {"xview": str(tmp_path / "xview"), "aitod": str(tmp_path / "aitod"), "out": str(tmp_path / "out")}
    return command("data", "build-aitod", **(where | options))


def test_every_named_image_is_made_and_nothing_else(tmp_path, sources, capsys):
    assert build(tmp_path) == 0
    out = tmp_path / "out"
    for split in ("train", "val", "trainval", "test"):
        names = sorted(both(CUT, split) + both(PART, split))
        assert sorted(p.name for p in (out / "images" / split).iterdir()) == names
        for name in both(PART, split):
            assert (out / "images" / split / name).read_bytes() == (
                tmp_path / "aitod/images" / split / name
            ).read_bytes()
    for name, scene, (x, y) in (
        ("train/24__600_200.png", "24", (600, 200)),
        ("val/109__600_600.png", "109", (600, 600)),
    ):
        made = cv2.imread(str(out / "images" / name))
        part = sources[scene][y : y + 800, x : x + 800]
        assert made.shape == (800, 800, 3) and part.shape[1] == 790
        np.testing.assert_array_equal(made[: part.shape[0], :790], part)
        assert made[part.shape[0] :].sum() == 0 and made[:, 790:].max() == 0
    np.testing.assert_array_equal(cv2.imread(str(out / "images/test/109__590_0.png")), sources["109"][:800, 590:1390])
    assert (out / "annotations" / "aitodv2_val.json").read_bytes() == (
        tmp_path / "aitod/annotations/aitodv2_val.json"
    ).read_bytes()
    text = capsys.readouterr().out
    assert "5 copied, 7 cut" in text
    assert "every named image is there, and nothing else" in text and "images/trainval: 5 images named" in text
    made = spec.load("AI-TOD-v2", path=out)
    assert len(made.read("train")) == 5 and made.image_path("test", CUT["test"][0]).is_file()


def test_a_finished_build_does_no_work(tmp_path, sources, monkeypatch, capsys):
    assert build(tmp_path) == 0
    monkeypatch.setattr(images, "load", lambda path: pytest.fail(f"{path} was decoded"))
    assert build(tmp_path) == 0
    assert f"{tmp_path / 'out'}: 12 there already" in capsys.readouterr().out


def test_an_interrupted_build_is_taken_up_again(tmp_path, sources, monkeypatch):
    real, written = images.save, []

    def stop_at_second(path, image, **options):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        real(path, image, **options)

    monkeypatch.setattr(images, "save", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path)
    there = [p for p in (tmp_path / "out").rglob("*") if p.is_file() and "__" in p.name and "P0007" not in p.name]
    assert there == written  # and no half file
    before = written[0].stat().st_mtime_ns
    monkeypatch.setattr(images, "save", real)
    assert build(tmp_path) == 0 and written[0].stat().st_mtime_ns == before


def test_missing_sources_are_named(tmp_path, sources, capsys):
    (tmp_path / "xview/ori/train_images/24.tif").unlink()
    for split in ("val", "trainval"):
        (tmp_path / "aitod/images" / split / "00012.png").unlink()
    assert build(tmp_path) == 1
    out = capsys.readouterr().out
    assert "WRONG: train/24__0_0.png: not in the authors' part; its scene 24.tif is not in xview" in out
    assert "6 images are wrong" in out
    faults = json.loads((tmp_path / "runs/data-build-aitod/out.json").read_text())["faults"]
    assert "val/00012.png: not in the authors' part" in faults and len(faults) == 6
    assert (tmp_path / "out/images/test/109__590_0.png").is_file()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda out: picture(out / "images/val/109__0_0.png", 800, 800),
            "val/109__0_0.png: no annotation file names it",
        ),
        (
            lambda out: picture(out / "images/val/00012.png", 790, 800),
            "val/00012.png: 790 x 800 px, the annotations say 800",
        ),
        (
            lambda out: (out / "images/val/00012.png").write_text("?"),
            "val/00012.png: neither Pillow nor OpenCV can read it as an image",
        ),
    ],
)
def test_a_wrong_image_in_the_folder_is_named_not_touched(tmp_path, sources, capsys, spoil, message):
    assert build(tmp_path) == 0
    spoil(tmp_path / "out")
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert build(tmp_path) == 1 and message in capsys.readouterr().out
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before
    assert (build(tmp_path, overwrite=True) == 0) == ("00012" in message)


def test_a_scene_that_is_no_image_or_too_small(tmp_path, sources, capsys):
    (tmp_path / "xview/ori/train_images/109.tif").write_bytes(b"II*\0 cut short")
    picture(tmp_path / "xview/ori/train_images/24.tif", 500, 1000)
    assert build(tmp_path) == 1
    out = capsys.readouterr().out
    assert (
        "109.tif: neither Pillow nor OpenCV can read it as an image" in out
        and "train/24__600_200.png: outside its scene 24.tif of 500 x 1000 px" in out
    )


def test_swapped_colours_as_the_authors_script_makes_them(tmp_path, sources):
    assert build(tmp_path, swap_colours=True) == 0
    made = cv2.imread(str(tmp_path / "out/images/test/109__590_0.png"))
    np.testing.assert_array_equal(made[..., ::-1], sources["109"][:800, 590:1390])


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda r: shutil.rmtree(r / "xview"), {}, r"xview=.*xview: no such folder; .* has the folders aitod"),
        (lambda r: None, {"annotations": "nowhere"}, r"annotations=nowhere: no such folder"),
        (lambda r: [p.unlink() for p in (r / "aitod/annotations").iterdir()], {}, r"no annotation file \(\*\.json\)"),
        (
            lambda r: (r / "aitod/annotations/aitodv2_val.json").rename(r / "aitod/annotations/all.json"),
            {},
            "all.json: its name says no split",
        ),
        (
            lambda r: (r / "aitod/annotations/aitodv2_val.json").write_text("{"),
            {},
            r"aitodv2_val\.json:1: not valid JSON",
        ),
        (lambda r: None, {"out": ""}, "out=: empty"),
    ],
)
def test_mistakes_are_one_line(tmp_path, sources, spoil, options, message):
    spoil(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        build(tmp_path, **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_names_agree_with_the_tiles_of_convert():
    for x, y in tile.grid((3219, 4990), 800, 200):
        assert aitod.source_tile(f"1987__{x}_{y}.png") == ("1987", (x, y))
    assert aitod.source_tile("P0007__1.0_600_0.png") is None or "P0007" in aitod.source_tile("P0007__1.0_600_0.png")[0]


def test_jsons_are_the_official_ones(tmp_path, sources):
    content = json.loads((tmp_path / "aitod/annotations/aitodv2_trainval.json").read_text())
    assert [c["name"] for c in content["categories"]] == AITOD_NAMES and len(content["images"]) == 5
