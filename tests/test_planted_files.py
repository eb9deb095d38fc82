"""Files that others made for harm: nothing is read or written outside the folders that a user names, and it is told."""

import json

import cv2
import numpy as np
import pytest

from tests.support.command import command
from tests.support.data_sets import coco, data_yaml, picture
from tests.test_cli import call
from tinyyolo.datasets import spec
from tinyyolo.datasets.formats.table import FORMATS

SECRET = b"root:x:0:0:not an image"
WRITTEN = [name for name, layout in FORMATS.items() if layout.write]


def planted(root, *names):
    """A set of `good.png` and images of these names, beside a secret and a picture that no YAML names."""
    picture(root / "set" / "images" / "good.png", 64, 48, seed=1)
    (root / "secret.png").write_bytes(SECRET)
    picture(root / "private.png", 64, 48, seed=2)
    every = ["good.png", *names]
    images = [(i, name, 64, 48) for i, name in enumerate(every, 1)]
    coco(root / "set" / "a.json", images, [(i, i, 1, [2, 3, 4, 5]) for i, *_ in images], [(1, "ship")])
    return data_yaml(root / "set" / "a.yaml", train="images", annotations={"train": "a.json"})


def snapshot(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


def hostile(root):
    """Names that lead out, upward and from the root, and names that no disk takes."""
    up = ["../../private.png", "../../secret.png", "sub/../../../secret.png", str(root / "private.png")]
    return [*up, "..", "a\0.png", "x" * 300 + ".png", "\x1b[2Jclear.png", "two\nlines.png"]


@pytest.mark.parametrize("to", WRITTEN)
@pytest.mark.parametrize("how", ["images=copy", "images=link", "tile=32 overlap=8"])
def test_convert_writes_and_copies_nothing_outside(tmp_path, capsys, to, how):
    names = hostile(tmp_path)
    data = planted(tmp_path, *names)
    before, out = snapshot(tmp_path), tmp_path / "out"
    code, text, _ = call("data", "convert", str(data), f"to={to}", f"out={out}", *how.split(), capsys=capsys)
    after = snapshot(tmp_path)
    new = {path: content for path, content in after.items() if path not in before}
    assert {path: after[path] for path in before} == before and all(path.is_relative_to(out) for path in new)
    assert SECRET not in new.values() and before[tmp_path / "private.png"] not in new.values()
    assert not [path for path in out.rglob("*") if path.is_symlink() and path.name != "good.png"]
    assert code == 0 and f"{len(names)} faulty left out" in text and text.replace("\n", "").isprintable()
    assert spec.load(out / "data.yaml").read("train").file_names[0].startswith("good")


def test_training_reads_what_the_yaml_names_and_no_more(tmp_path):
    """Absolute names and `..` are taken where they lead into the data's folders, and are made relative."""
    inside = ["../images/b.png", str(tmp_path / "set" / "images" / "c.png"), "../more/d.png", "../../more/e.png"]
    data = planted(tmp_path, *inside)
    picture(tmp_path / "set" / "images" / "b.png", 64, 48)
    found = spec.load(data).read("train")
    assert found.file_names == ["good.png", "b.png", "c.png", "../more/d.png"]
    assert [problem.kind for problem in found.problems] == ["image name"]
    assert "'../../more/e.png': it is in no folder that a.yaml names; left out" in found.problems[0]
    assert found.image_index.tolist() == [0, 1, 2, 3], "the boxes stay with their images"


def test_a_link_out_of_the_folder_is_not_copied(tmp_path, capsys):
    data = planted(tmp_path, "link.png", "text.png")
    images, out = tmp_path / "set" / "images", tmp_path / "out"
    (images / "link.png").symlink_to(tmp_path / "private.png")
    (images / "text.png").symlink_to(tmp_path / "secret.png")
    code, text, _ = call("data", "convert", str(data), f"out={out}", "images=copy", capsys=capsys)
    assert code == 1 and text.count("a link that leads out of") == 2 and "link.png" in text
    assert [path.name for path in out.rglob("*.png")] == ["good.png"]


def test_a_set_of_our_own_links_can_be_copied(tmp_path):
    """`about: links:` of the YAML names the folder that the links lead to."""
    data = planted(tmp_path)
    assert command("data", "convert", data, out=tmp_path / "linked") == 0
    assert (tmp_path / "linked" / "images" / "train" / "good.png").is_symlink()
    assert command("data", "convert", tmp_path / "linked" / "data.yaml", out=tmp_path / "whole", images="copy") == 0
    made = tmp_path / "whole" / "images" / "train" / "good.png"
    assert not made.is_symlink() and made.read_bytes() == (tmp_path / "set" / "images" / "good.png").read_bytes()


@pytest.mark.parametrize("to", WRITTEN)
def test_an_output_folder_with_a_link_in_it(tmp_path, capsys, to):
    data = planted(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    for name in ("images", "labels", "annotations", "labelTxt"):
        (tmp_path / "out" / name).symlink_to(tmp_path / "elsewhere")
    words = ["data", "convert", str(data), f"to={to}", f"out={tmp_path / 'out'}", "overwrite=true"]
    code, _, err = call(*words, capsys=capsys)
    assert code == 2 and "a link there leads out of the folder" in err and len(err.splitlines()) == 1, err
    assert not list((tmp_path / "elsewhere").iterdir())


def report(root, capsys, *names, more=()):
    """A report on a set with these names; exit code, output and page."""
    planted(root, *names)
    truth = json.loads((root / "set" / "a.json").read_text())
    rows = [{"image_id": i["id"], "category_id": 1, "bbox": [9, 9, 4, 4], "score": 0.9} for i in truth["images"]]
    (root / "dt.json").write_text(json.dumps(rows))
    words = [f"gt={root / 'set' / 'a.json'}", f"dt={root / 'dt.json'}", f"images={root / 'set' / 'images'}"]
    code, text, err = call("report", *words, f"out={root / 'out'}", "embed=true", "threshold=0.5", *more, capsys=capsys)
    assert code == 0, err
    return text, (root / "out" / "report.html").read_text(encoding="utf-8")


def test_a_report_holds_no_file_from_elsewhere(tmp_path, capsys):
    images = tmp_path / "set" / "images"
    images.mkdir(parents=True)
    (images / "link.png").symlink_to(tmp_path / "private.png")
    (images / "text.png").symlink_to(tmp_path / "secret.png")
    (images / "plain.png").write_bytes(SECRET)
    names = [*hostile(tmp_path), "link.png", "text.png", "plain.png"]
    text, page = report(tmp_path, capsys, *names)
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    sources = {image["name"]: image["source"] for image in data["images"]}
    assert [name for name, source in sources.items() if source] == ["good.png"]
    assert f"{len(names)} of {len(names) + 1} images are not in" in text and "lead out of it" in text
    assert all(path.is_relative_to(tmp_path / "out") for path in tmp_path.rglob("0*_*.png"))
    for path in tmp_path.rglob("0*_*.png"):
        assert (len(np.unique(cv2.imread(str(path)).reshape(-1, 3), axis=0)) > 9) == ("good" in path.name)


def test_markup_in_names_is_text(tmp_path, capsys):
    """The page holds names from files only in its JSON, which no name can end, and sets them as text."""
    evil = "</script><img src=x onerror=alert(1)>"
    truth_names = [f"{evil}.png".replace("/", "|")]
    planted(tmp_path)
    path = tmp_path / "set" / "a.json"
    _, page = report(tmp_path, capsys, *truth_names)
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = evil
    path.write_text(json.dumps(content))
    words = [f"gt={path}", f"dt={tmp_path / 'dt.json'}", f"out={tmp_path / 'out'}", "threshold=0.5"]
    assert call("report", *words, capsys=capsys)[0] == 0
    second = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for one in (page, second):
        assert "<img" not in one and one.count("</script>") == 2
    assert evil in json.loads(second.split('id="data">')[1].split("</script>")[0])["classes"]
    script = second.split('"use strict"')[1]
    for line in script.splitlines():
        if "innerHTML" in line:
            assert "data.classes" not in line and ".name" not in line and "textContent" not in line


def test_names_with_escape_codes_do_not_reach_the_terminal(tmp_path, capsys):
    data = planted(tmp_path, "a.png")
    path = tmp_path / "set" / "a.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "ship\x1b[31m\nred"
    path.write_text(json.dumps(content))
    (tmp_path / "set" / "images" / "a.png").write_bytes(SECRET)
    for words in (["data", "check"], ["data", "stats"]):
        _, text, err = call(*words, str(data), capsys=capsys)
        assert "\x1b" not in text + err and "'ship\\x1b[31m\\nred': a name is text" in text + err
