"""docs/integrations.md: every block runs, and other tools see the model's colours and boxes as they are."""

import ast
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.support.scenes import lively_model, scene
from tinyyolo import Model

PAGE = Path(__file__).parent.parent / "docs" / "integrations.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
SIZE = (660, 700)
KEYS = {"verbose": False, "conf": 0.25}
SLICES = {"slice_wh": 320, "overlap_wh": 32}


def imported(block):
    """The packages that a block imports."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("integrations") / "best.pt"
    lively_model().save(path)
    return path


@pytest.fixture
def files(tmp_path, checkpoint):
    """best.pt, scene.png and scene.tif in the current folder."""
    (tmp_path / "best.pt").write_bytes(checkpoint.read_bytes())
    image = scene(*SIZE)
    cv2.imwrite("scene.png", image)
    cv2.imwrite("scene.tif", image)
    return image


def boxes_in(space):
    """How many boxes a block has found, whatever the tool calls them."""
    if "samples" in space:
        return sum(len(sample["tinyyolo"].detections) for sample in space["samples"])
    return len(space["boxes"] if "boxes" in space else space["detections"])


def test_there_are_blocks():
    tools = [name for block in BLOCKS for name in imported(block)]
    assert len(BLOCKS) == 5
    assert {tool: tools.count(tool) for tool in ("supervision", "sahi", "fiftyone")} == {
        "supervision": 3,
        "sahi": 1,
        "fiftyone": 1,
    }


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: " ".join(block.split())[:60])
def test_every_block_runs_and_finds_boxes(block, files):
    for name in imported(block):
        pytest.importorskip(name)
    space = {}
    exec(block, space)
    assert boxes_in(space) > 100


def same(rows, expected):
    """Boxes (K, 4) and scores of another tool are those of the model, in whatever order."""
    rows, expected = (np.asarray(one, np.float64)[np.lexsort(np.asarray(one).T)] for one in (rows, expected))
    assert len(expected) > 20 and rows.shape == expected.shape
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-3)


@pytest.fixture
def alone(files):
    """A model, an image that one slice holds, and what the model says of it; its colours matter."""
    model, image = Model("best.pt"), np.ascontiguousarray(files[:320, :320])
    (found,) = model.predict(image, imgsz=320, **KEYS)
    (swapped,) = model.predict(np.ascontiguousarray(image[..., ::-1]), imgsz=320, **KEYS)
    expected = torch.cat([found.boxes.xyxy, found.boxes.conf[:, None]], 1).numpy()
    assert len(swapped) != len(found)
    return model, image, expected


def test_sahi_shows_the_model_the_colours_that_it_expects(alone):
    sahi, predict = pytest.importorskip("sahi"), pytest.importorskip("sahi.predict")
    model, image, expected = alone
    detector = sahi.AutoDetectionModel.from_pretrained(
        model_type="ultralytics", model=model, confidence_threshold=0.25, image_size=320, device="cpu"
    )
    cv2.imwrite("one.png", image)
    for source in ("one.png", image[..., ::-1]):
        found = predict.get_prediction(source, detector).object_prediction_list
        same([[*one.bbox.to_xyxy(), one.score.value] for one in found], expected)


def test_sahi_does_not_open_a_checkpoint_by_its_path(files):
    """The page says so; if this fails, it can say something simpler."""
    sahi = pytest.importorskip("sahi")
    with pytest.raises(TypeError, match="not a valid Ultralytics model"):
        sahi.AutoDetectionModel.from_pretrained(model_type="ultralytics", model_path="best.pt", device="cpu")


def test_supervision_hands_on_the_channels_as_they_come(alone):
    sv = pytest.importorskip("supervision")
    model, image, expected = alone

    def look(window):
        return sv.Detections.from_ultralytics(model.predict(window, imgsz=320, tile="off", **KEYS)[0])

    found = sv.InferenceSlicer(look, overlap_filter="none", **SLICES)(image)
    same(np.column_stack([found.xyxy, found.confidence]), expected)


def test_supervision_hands_on_a_raster_in_the_order_of_its_bands(alone):
    sv, rasterio = pytest.importorskip("supervision"), pytest.importorskip("rasterio")
    model, image, expected = alone
    with rasterio.open("one.tif", "w", driver="GTiff", width=320, height=320, count=4, dtype="uint8") as file:
        file.write(np.concatenate([image[..., ::-1].transpose(2, 0, 1), np.full((1, 320, 320), 255, np.uint8)]))

    def look(window):
        bgr = np.ascontiguousarray(window[..., 2::-1])
        return sv.Detections.from_ultralytics(model.predict(bgr, imgsz=320, tile="off", **KEYS)[0])

    with rasterio.open("one.tif") as raster:
        found = sv.InferenceSlicer(look, overlap_filter="none", **SLICES)(raster)
    same(np.column_stack([found.xyxy, found.confidence]), expected)


def test_fiftyone_takes_boxes_of_a_scene_as_shares_of_it(files):
    fou = pytest.importorskip("fiftyone.utils.ultralytics")
    (found,) = Model("best.pt").predict("scene.png", imgsz=128, **KEYS)
    labels = fou.to_detections(found).detections
    x, y, w, h = np.array([label.bounding_box for label in labels]).T
    height, width = SIZE
    rows = np.column_stack([x * width, y * height, (x + w) * width, (y + h) * height])
    np.testing.assert_allclose(rows, found.boxes.xyxy.numpy(), rtol=0, atol=1e-2)
    assert len(labels) > 100 and {label.label for label in labels} <= set(found.names.values())
