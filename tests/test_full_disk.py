"""A disk that takes no more: every command ends in one line that names the file, and every file is whole or not there.

A limit on the size of files stands in for the disk; it is met in the middle of a write, as a full disk is.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.engine.test_engine import trained
from tests.support.sets import SIZE
from tinyyolo.engine import checkpoint

CHILD = """
import contextlib, io, json, os, resource, signal, sys
from tinyyolo.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
told = []
for limit, words in json.load(sys.stdin):
    said = io.StringIO()
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    with contextlib.redirect_stderr(said):
        code = main(words)
    told.append([code, said.getvalue().splitlines()[-1:]])
print("\\n" + json.dumps(told))
"""


def video(path, frames=6):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (SIZE, SIZE))
    rng = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8))
    writer.release()


def cases(data, weights, folder):
    """(limit in bytes, words): each writes a file that is larger, with smaller ones before it."""
    images, run = data.parent / "images", f"project={folder / 'runs'}"
    val = ["val", f"model={weights}", f"data={data}", f"imgsz={SIZE}", "conf=0", "max_det=50", "plots=false", run]
    predict = ["predict", f"model={weights}", f"imgsz={SIZE}", "conf=0", "max_det=9", run, f"source={images}"]
    train = ["train", f"data={data}", f"imgsz={SIZE}", "epochs=1", "batch=4", "workers=0", "plots=false", run]
    found = [f"gt={data.parent / 'val.json'}", f"dt={folder / 'dt.json'}"]
    yield 1_000_000, train
    yield weights.stat().st_size // 2, ["export", f"model={weights}", f"imgsz={SIZE}"]
    yield 200, [*val, "save_txt=true"]
    yield 5_000, val
    yield 200, [*predict, "save_txt=true", "save=false"]
    yield 400, [*predict, "save_crop=true", "save=false"]
    yield 2_000, predict
    yield 1_000, [*predict, "save_json=true", "save=false"]
    yield 10_000, [*predict[:-1], f"source={folder / 'film.avi'}"]
    yield 500, ["analyze", "model=tinyyolo-n.yaml", f"data={data}", f"out={folder / 'analyze'}"]
    yield 200, ["data", "check", str(data), "fix=true", f"runs={folder / 'check'}"]
    yield 20_000, ["data", "stats", str(data), f"runs={folder / 'stats'}"]
    yield 10_000, ["data", "convert", str(data), "images=copy", f"out={folder / 'copied'}"]
    yield 500, ["data", "convert", str(data), f"out={folder / 'linked'}"]
    yield 2_000, ["data", "convert", str(data), "tile=64", "overlap=8", f"out={folder / 'tiles'}"]
    yield 500, ["evaluate", *found, f"out={folder / 'evaluate'}"]
    yield 2_000, ["report", *found, f"images={images}", f"out={folder / 'report'}"]


def assert_whole(path):
    """A file that its own reader reads to the end."""
    if path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix in {".png", ".jpg"}:
        assert cv2.imread(str(path)) is not None, path
    elif path.suffix == ".pt":
        checkpoint.load(path)
    else:
        assert path.suffix in {".yaml", ".csv", ".txt"} and path.read_text().endswith("\n"), path


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the limit is POSIX's")
def test_every_file_is_whole_or_not_there(tiny_set, tmp_path):
    weights = Path(trained(tiny_set, project=str(tmp_path / "first")).ckpt_path)
    video(tmp_path / "film.avi")
    (tmp_path / "dt.json").write_text(
        json.dumps([{"image_id": 10, "category_id": 7, "bbox": [1, 1, 5, 5], "score": 1}])
    )
    before = {*tmp_path.rglob("*")}
    every = list(cases(tiny_set, weights, tmp_path))
    given = {"input": json.dumps(every), "capture_output": True, "text": True, "cwd": tmp_path}
    done = subprocess.run([sys.executable, "-c", CHILD], **given)
    assert done.returncode == 0, done.stderr[-2000:]
    for (limit, words), (code, line) in zip(every, json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert code == 2 and line and line[0].startswith("tinyyolo: "), (words, code, line)
        assert str(tmp_path) in line[0] and ("too large" in line[0] or "to its end" in line[0]), (limit, words, line)
    made = [path for path in {*tmp_path.rglob("*")} - before if path.is_file() and not path.is_symlink()]
    assert made and not [path for path in made if path.suffix == ".part"]
    assert [path.name for path in made if path.suffix == ".torchscript" or path.suffix == ".avi"] == []
    for path in made:
        assert_whole(path)
