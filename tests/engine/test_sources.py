"""Prediction from every kind of source ultralytics users know, and what it writes."""

import json
import shutil
import subprocess
import sys
import types
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.engine.test_engine import trained
from tests.support.sets import SIZE
from tests.test_cli import call
from tinyyolo import Model
from tinyyolo.config import UserError

HOW = {"conf": 0.0, "max_det": 10, "imgsz": SIZE}


@pytest.fixture(scope="module")
def weights(tiny_set, tmp_path_factory):
    return trained(tiny_set, project=str(tmp_path_factory.mktemp("runs"))).ckpt_path


@pytest.fixture(scope="module")
def model(weights):
    return Model(weights)


@pytest.fixture(scope="module")
def files(tiny_set):
    return sorted((tiny_set.parent / "images").glob("val_*.png"))


@pytest.fixture(scope="module")
def expected(model, files):
    return [model.predict(file, **HOW)[0].boxes.data for file in files]


def listed(files, folder):
    path = folder / "list.txt"
    path.write_text("\n".join(map(str, files)))
    return path


def tensor_of(file):
    """(1, 3, H, W) RGB 0..1."""
    return torch.from_numpy(cv2.imread(str(file))[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255


SOURCES = {
    "list of paths": lambda files, _: files,
    "tuple of paths": lambda files, _: tuple(files),
    "list of strings": lambda files, _: [str(file) for file in files],
    "glob": lambda files, _: str(files[0].parent / "val_*.png"),
    "txt list": listed,
    "numpy arrays": lambda files, _: [cv2.imread(str(file)) for file in files],
    "PIL images": lambda files, _: [Image.open(file) for file in files],
    "tensor": lambda files, _: torch.cat([tensor_of(file) for file in files]),
}
ONE = {"numpy array": lambda file: cv2.imread(str(file)), "PIL image": Image.open, "string": str}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_gives_the_same_boxes(model, files, expected, tmp_path, kind):
    found = model.predict(SOURCES[kind](files, tmp_path), **HOW)
    assert len(found) == len(expected)
    for result, boxes in zip(found, expected, strict=True):
        assert len(boxes) == HOW["max_det"]
        torch.testing.assert_close(result.boxes.data, boxes, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", ONE)
def test_one_image_gives_the_same_boxes(model, files, expected, kind):
    (one,) = model.predict(ONE[kind](files[0]), **HOW)
    torch.testing.assert_close(one.boxes.data, expected[0], atol=1e-3, rtol=1e-4)


def test_folder(model, files, expected):
    found = {Path(result.path).name: result.boxes.data for result in model.predict(files[0].parent, **HOW)}
    assert len(found) == len(list(files[0].parent.iterdir()))
    for file, boxes in zip(files, expected, strict=True):
        torch.testing.assert_close(found[file.name], boxes, atol=1e-3, rtol=1e-4)


def test_list_keeps_its_order_and_is_read_batch_by_batch(model, files, expected):
    order = [2, 0, 3, 0]
    for batch in (1, 3):
        stream = model.predict([files[i] for i in order], stream=True, batch=batch, **HOW)
        found = [next(stream)]
        assert model.predictor.seen == batch, "images were read ahead"
        found += stream
        assert [Path(result.path) for result in found] == [files[i] for i in order]
        for result, i in zip(found, order, strict=True):
            torch.testing.assert_close(result.boxes.data, expected[i], atol=1e-3, rtol=1e-4)


def test_stream_is_a_generator_that_holds_no_results(model, files):
    stream, seen = model.predict(files[0].parent, stream=True, **HOW), []
    assert isinstance(stream, types.GeneratorType)
    for result in stream:
        seen.append(weakref.ref(result))
        del result
        assert model.predictor.seen == len(seen), "images were read ahead"
        assert sum(one() is not None for one in seen) == 1, "earlier results are held"
    assert len(seen) == len(list(files[0].parent.iterdir()))


WRONG = {
    "no image in a folder": (Path(__file__).parent, "No images"),
    "no such file in a list": (["nowhere.png"], "nowhere.png"),
    "no image in a list": ([__file__], "neither Pillow nor OpenCV"),
    "empty list": ([], "No images"),
    "nothing matches": ("*.nothing", "No images"),
    "another kind of file": (__file__, "neither Pillow nor OpenCV"),
    "another kind of object": ({"a": 1}, "Unsupported"),
    "array of 16 bits": (np.zeros((9, 9, 3), np.uint16), "array of uint16: expected uint8"),
    "arrays of fractions": ([np.zeros((9, 9, 3), np.float32)], "array of float32: expected uint8"),
    "image of 16 bits": (Image.fromarray(np.zeros((9, 9), np.uint16)), "image of I;16: expected uint8"),
    "array of four dimensions": (np.zeros((1, 9, 9, 3), np.uint8), "(1, 9, 9, 3)"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_source_is_said_in_one_line(model, kind):
    source, says = WRONG[kind]
    with pytest.raises(UserError) as caught:
        model.predict(source, **HOW)
    assert says in str(caught.value) and "source=" in str(caught.value) and "\n" not in str(caught.value)


def test_video(weights, files, tmp_path, capsys):
    video, frames = tmp_path / "flight.avi", 6
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 5, (SIZE, SIZE))
    for _ in range(frames):
        writer.write(cv2.imread(str(files[0])))
    writer.release()
    results = Model(weights).predict(video, save_json=True, name="api", **HOW)
    assert len(results) == frames
    rows = json.loads((tmp_path / "runs" / "api" / "predictions.json").read_text())
    assert list(dict.fromkeys(row["image_id"] for row in rows)) == [f"flight_{i}" for i in range(1, frames + 1)]
    code, _, err = call("predict", f"model={weights}", f"source={video}", "conf=0", "max_det=10", capsys=capsys)
    assert code == 0, err
    (drawn,) = (tmp_path / "runs" / "predict").glob("flight.*")
    capture = cv2.VideoCapture(str(drawn))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == frames
    _, frame = capture.read()
    assert np.abs(frame.astype(int) - cv2.imread(str(files[0]))).max() > 60, "no boxes drawn"


@pytest.fixture
def told(caplog, monkeypatch):
    """What the engine logs, as one text."""
    monkeypatch.setattr("tinyyolo.datasets.train.dataset.LOGGER.propagate", True)
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


@pytest.fixture
def scattered(files, tmp_path):
    """A folder with pictures in sub-folders, two of one name, and files that are damaged each in its way."""
    folder = tmp_path / "in"
    for file, place in zip(files, ("a.png", "s/a.png", "s/t/b.PNG"), strict=False):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / place)
    for name, content in (("z.gif", b"GIF89a"), ("y.mp4", b"no film"), ("x.jpg", b""), ("s/w.png", b"\x89PNG")):
        (folder / name).write_bytes(content)
    (folder / "notes.md").write_text("no picture")
    shutil.copy(files[0], folder / ".hidden.png")
    return folder


@pytest.mark.parametrize("batch", [1, 8])
def test_a_folder_is_searched_through_and_damage_is_counted(
    weights, scattered, expected, tmp_path, told, capsys, batch
):
    words = ["conf=0", "max_det=10", f"imgsz={SIZE}", "save_json=true", f"batch={batch}"]
    code, _, err = call("predict", f"model={weights}", f"source={scattered}", *words, capsys=capsys)
    assert code == 0, err
    folder = tmp_path / "runs" / "predict"
    assert sorted(path.name for path in folder.glob("*.jpg")) == ["a-2.jpg", "a.jpg", "b.jpg"]
    rows = json.loads((folder / "predictions.json").read_text())
    names = dict.fromkeys((row["image_id"], row["file_name"]) for row in rows)
    assert list(names) == [("a", "a.png"), ("s/a", "s/a.png"), ("s/t/b", "s/t/b.PNG")]
    for (_, name), boxes in zip(names, expected, strict=False):
        scores = [row["score"] for row in rows if row["file_name"] == name]
        np.testing.assert_allclose(scores, boxes[:, 4], atol=1e-3)
    assert "4 unreadable images left out" in told()
    for name in ("z.gif: not one frame", "y.mp4: not one frame", "x.jpg: the file is empty", "s/w.png: "):
        assert f"{scattered}/{name}" in told()


def test_a_folder_of_damaged_files_only(weights, scattered, capsys):
    for path in [*scattered.rglob("*.png"), *scattered.rglob("*.PNG")]:
        path.write_bytes(b"no picture")
    code, _, err = call("predict", f"model={weights}", f"source={scattered}", capsys=capsys)
    assert code == 2 and "no readable image" in err and "y.mp4" in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", [".txt", ".csv"])
def test_lists_name_files_beside_them(model, scattered, encoding, ending):
    lines = ["source"] * (ending == ".csv") + ["a.png", "", "s", "gone.png"]
    (scattered / f"list{ending}").write_text("\r\n".join(lines), encoding=encoding, newline="")
    found = model.predict(scattered / f"list{ending}", **HOW)
    assert [Path(result.path).relative_to(scattered).as_posix() for result in found] == [
        "a.png",
        "s/a.png",
        "s/t/b.PNG",
    ]
    assert [Path(line.split(":")[0]).name for line in model.predictor.bad_images] == ["gone.png", "w.png"]


def test_globs(model, scattered, capsys):
    for pattern, names in (("*.png", ["a.png"]), ("**/*.png", ["a.png", "s/a.png"]), ("[a]*", ["a.png"])):
        found = model.predict(f"{scattered}/{pattern}", **HOW)
        assert [Path(result.path).relative_to(scattered).as_posix() for result in found] == names
    (scattered / "[a].png").write_bytes((scattered / "a.png").read_bytes())
    assert Path(model.predict(scattered / "[a].png", **HOW)[0].path).name == "[a].png"
    model.predict(f"{scattered}/[as]*", **HOW)
    assert "1 folders fit too, such as s: they are left out" in capsys.readouterr().err


def test_what_becomes_of_sixteen_bits_is_told(model, files, expected, tmp_path, told):
    deep = cv2.imread(str(files[0])).astype(np.uint16) * 16
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    (found,) = model.predict(tmp_path / "deep.png", stretch=[0, 255 * 16], **HOW)
    torch.testing.assert_close(found.boxes.data, expected[0], atol=1e-3, rtol=1e-4)
    assert "1 image with values of uint16, of which 0 to 4080 become 0 and 255" in told()


def test_what_predict_writes(weights, files, expected, tmp_path, capsys):
    words = ["save_txt=true", "save_conf=true", "save_crop=true", "save_json=true", "conf=0", "max_det=10"]
    source = str(files[0].parent / "val_*.png")
    code, _, err = call("predict", f"model={weights}", f"source={source}", f"imgsz={SIZE}", *words, capsys=capsys)
    assert code == 0, err
    folder = tmp_path / "runs" / "predict"
    for file, boxes in zip(files, expected, strict=True):
        assert (folder / f"{file.stem}.jpg").stat().st_size > 0
        rows = np.loadtxt(folder / "labels" / f"{file.stem}.txt")
        np.testing.assert_allclose(rows[:, 5], boxes[:, 4], atol=1e-4)
        sides = (boxes[:, 2:4] - boxes[:, :2]) / SIZE
        np.testing.assert_allclose(rows[:, 3:5], sides, atol=1e-4)
    assert list((folder / "crops").rglob("*.jpg"))
    rows = json.loads((folder / "predictions.json").read_text())
    assert len(rows) == sum(map(len, expected))
    first = [row for row in rows if row["file_name"] == files[0].name]
    np.testing.assert_allclose([row["score"] for row in first], expected[0][:, 4], atol=1e-4)
    corners = np.array([row["bbox"] for row in first])
    np.testing.assert_allclose(corners[:, :2], expected[0][:, :2], atol=1e-2)
    np.testing.assert_allclose(corners[:, 2:], expected[0][:, 2:4] - expected[0][:, :2], atol=1e-2)


def test_predictions_json_of_a_stream_that_is_left_early(model, files, expected, tmp_path):
    for result in model.predict(files, stream=True, save_json=True, name="early", **HOW):
        if result.path == str(files[1]):
            break
    rows = json.loads((tmp_path / "runs" / "early" / "predictions.json").read_text())
    assert {row["file_name"] for row in rows} == {file.name for file in files[:2]}
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("suffix", [".pt", pytest.param(".torchscript", marks=pytest.mark.slow)])
def test_the_command_in_a_process_of_its_own(weights, files, tmp_path, suffix):
    """Upstream looks at the program's name: one that ends in "yolo" is its own command."""
    model, more = Path(weights), []
    if suffix == ".torchscript":
        model, more = Path(Model(weights).export(imgsz=SIZE)), ["trust=true"]
    words = ["/usr/bin/tinyyolo", "predict", f"model={model}", f"source={files[0]}", f"imgsz={SIZE}", "conf=0", *more]
    script = f"import sys; sys.argv = {words!r}; from tinyyolo.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "runs" / "predict" / f"{files[0].stem}.jpg").exists()
