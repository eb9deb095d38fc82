"""Figures hold what was given: their sizes, bars, curves and labels, and lines of the right colour around every box."""

import cv2
import numpy as np
import pytest

from tinyyolo import plots
from tinyyolo.config import UserError
from tinyyolo.evaluation import find_errors
from tinyyolo.plots import charts, pictures
from tinyyolo.plots.pictures import FOUND, MISSED, NEITHER, WRONG, class_colour

TRUTH = np.array([[10.0, 10, 20, 18], [40, 40, 46, 47], [70, 20, 75, 25]])


@pytest.fixture
def drawn(monkeypatch):
    """The last figure that was saved, beside its file."""
    kept = []
    save = charts.save
    monkeypatch.setattr(charts, "save", lambda figure, path: (kept.append(figure), save(figure, path))[1])
    return lambda: kept[-1].axes


def grey(height=100, width=100):
    return np.full((height, width, 3), 128, np.uint8)


def read(path):
    image = cv2.imread(str(path))
    assert image is not None and image.dtype == np.uint8
    return image


def panel(picture, column, zoom, image=(100, 100)):
    """One image of a one-row picture: without its title."""
    height, width = image[0] * zoom, image[1] * zoom
    left = column * (width + pictures.GUTTER)
    return picture[pictures.HEADER : pictures.HEADER + height, left : left + width]


def framed_by(shown, box, zoom, colour):
    """Whether a line of `colour`, one pixel wide, lies just outside the box, and the image unchanged inside."""
    x0, y0, x1, y1 = (np.asarray(box) * zoom).astype(int)
    edges = (
        *(shown[y0 - 1, x0 - 1 : x1 + 1], shown[y1, x0 - 1 : x1 + 1]),
        *(shown[y0 - 1 : y1 + 1, x0 - 1], shown[y0 - 1 : y1 + 1, x1]),
    )
    return all((edge == colour).all() for edge in edges) and (shown[y0:y1, x0:x1] == 128).all()


# Pictures


def judged(truth, found, labels=None, found_labels=None, regions=(), score=0.9, size=(100, 100)):
    """Verdicts on one image; boxes xyxy, `regions` the indices of those that are ignore regions."""
    labels = [1] * len(truth) if labels is None else labels
    found_labels = [1] * len(found) if found_labels is None else found_labels
    xywh = lambda box: [box[0], box[1], box[2] - box[0], box[3] - box[1]]  # noqa: E731
    gt = {
        "images": [{"id": 1, "height": size[0], "width": size[1]}],
        "categories": [{"id": 1, "name": "ship"}, {"id": 2, "name": "car"}],
        "annotations": [
            {"image_id": 1, "category_id": c, "bbox": xywh(box), "iscrowd": int(i in regions)}
            for i, (c, box) in enumerate(zip(labels, truth, strict=True))
        ],
    }
    dt = [
        {"image_id": 1, "category_id": c, "bbox": xywh(box), "score": score}
        for c, box in zip(found_labels, found, strict=True)
    ]
    return find_errors(gt, dt, threshold=0.5)


def test_comparison_marks_found_missed_and_wrong(tmp_path):
    found = [TRUTH[0] + (1, 0, 1, 0), TRUTH[1], [80.0, 80, 90, 90]]
    path = plots.compare_images(judged(TRUTH, found), {0: grey()}, tmp_path / "a.png")
    assert path == tmp_path / "a.png"
    picture, zoom = read(path), pictures.window(grey(), np.vstack([TRUTH, found])).zoom
    assert zoom >= 3 and picture.shape == (100 * zoom + pictures.HEADER, 2 * 100 * zoom + pictures.GUTTER, 3)
    left, right = panel(picture, 0, zoom), panel(picture, 1, zoom)
    for box, colour in zip(TRUTH, (FOUND, FOUND, MISSED), strict=True):
        assert framed_by(left, box, zoom, colour)
    for box, colour in zip(found, (FOUND, FOUND, WRONG), strict=True):
        assert framed_by(right, box, zoom, colour)
    assert not (left == WRONG).all(2).any() and not (right == MISSED).all(2).any()


def test_labels_must_agree(tmp_path):
    errors = judged(TRUTH[:1], TRUTH[:1], [2], [1])
    picture = read(plots.compare_images(errors, {0: grey()}, tmp_path / "a.png"))
    zoom = pictures.window(grey(), TRUTH[:1]).zoom
    assert framed_by(panel(picture, 0, zoom), TRUTH[0], zoom, MISSED)
    assert framed_by(panel(picture, 1, zoom), TRUTH[0], zoom, WRONG)


def test_a_detection_on_an_ignore_region_is_neither_right_nor_wrong(tmp_path, monkeypatch):
    written = []
    titled = pictures.titled
    monkeypatch.setattr(pictures, "titled", lambda image, text: (written.append(text), titled(image, text))[1])
    errors = judged(TRUTH, TRUTH[:2], regions={0})
    picture = read(plots.compare_images(errors, {0: grey()}, tmp_path / "a.png"))
    zoom = pictures.window(grey(), TRUTH).zoom
    left, right = panel(picture, 0, zoom), panel(picture, 1, zoom)
    for box, colour in zip(TRUTH, (NEITHER, FOUND, MISSED), strict=True):
        assert framed_by(left, box, zoom, colour)
    for box, colour in zip(TRUTH[:2], (NEITHER, FOUND), strict=True):
        assert framed_by(right, box, zoom, colour)
    assert written == [f" x{zoom}  truth 2: 1 found, 1 missed", "predicted 2: 1 right, 0 wrong, 1 on ignore regions"]


def test_detections_below_the_threshold_are_not_drawn(tmp_path):
    picture = read(plots.compare_images(judged(TRUTH, TRUTH, score=0.4), {0: grey()}, tmp_path / "a.png"))
    zoom = pictures.window(grey(), TRUTH).zoom
    assert all(framed_by(panel(picture, 0, zoom), box, zoom, MISSED) for box in TRUTH)
    assert (panel(picture, 1, zoom) == 128).all()


def test_large_images_show_the_crowd_enlarged(tmp_path):
    rng = np.random.default_rng(0)
    image = grey(2000, 3000)
    at = np.vstack([rng.uniform((2500, 1500), (2700, 1700), (30, 2)), [[50.0, 60.0]]]).round()
    boxes = np.hstack([at, at + 8])
    view = pictures.window(image, boxes)
    assert view.zoom == pictures.WANTED_SIDE // 8
    inside = (boxes[:, :2] >= (view.x0, view.y0)) & (boxes[:, 2:] <= (view.x1, view.y1))
    np.testing.assert_array_equal(inside.all(1), [True] * 30 + [False])
    assert (view.x1 - view.x0) * view.zoom <= pictures.PANEL
    picture = read(plots.compare_images(judged(boxes, []), {0: image}, tmp_path / "a.png"))
    assert picture.shape[1] <= 2 * pictures.PANEL + pictures.GUTTER and (picture == MISSED).all(2).any()


def test_images_come_from_files_too(tmp_path):
    cv2.imwrite(str(tmp_path / "scene.png"), grey())
    errors = judged(TRUTH, TRUTH)
    zoom = pictures.window(grey(), TRUTH).zoom
    for name in ("a.png", "a.jpg"):
        picture = read(plots.compare_images(errors, {0: tmp_path / "scene.png"}, tmp_path / name))
        assert abs(picture[:, 5].astype(int) - 128).min() == 0 and picture.shape[0] == 100 * zoom + pictures.HEADER


def test_an_unreadable_image_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    for name in ("broken.png", "absent.png"):
        with pytest.raises(UserError, match=name):
            plots.compare_images(judged(TRUTH, []), {0: tmp_path / name}, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_label_mosaic_draws_every_class_in_its_colour(tmp_path):
    names = ["vehicle", "ship", "plane"]
    rows = [{"image": grey(), "boxes": TRUTH, "labels": [0, 1, 2]}] + [{"image": grey(), "boxes": [], "labels": []}] * 2
    picture = read(plots.label_mosaic(rows, names, tmp_path / "a.png", across=2))
    zoom = pictures.window(grey(), TRUTH).zoom
    below = picture[pictures.HEADER + pictures.GUTTER :]
    for label, box in enumerate(TRUTH):
        assert framed_by(panel(below, 0, zoom), box, zoom, class_colour(label))
        assert (picture[: pictures.HEADER] == class_colour(label)).all(2).sum() >= 100  # the legend's square
    empty = pictures.window(grey(), np.zeros((0, 4))).zoom * 100
    assert picture.shape[0] == 3 * pictures.HEADER + 2 * pictures.GUTTER + max(100 * zoom, empty) + empty


@pytest.mark.parametrize("size", [(1, 1), (7, 900), (900, 7)])
def test_odd_shapes_and_boxes_over_the_border(size, tmp_path):
    boxes = [[-5.0, -5, 3, 3], [0, 0, size[1], size[0]], [2000, 2000, 2010, 2010]]
    errors = judged(boxes, boxes, size=size)
    assert (
        read(plots.compare_images(errors, {0: grey(*size)}, tmp_path / "a.png")).shape[1]
        <= 2 * pictures.PANEL + pictures.GUTTER
    )


def test_no_images_is_an_empty_sheet(tmp_path):
    assert (read(plots.compare_images(judged([], []), {}, tmp_path / "a.png")) == pictures.PAPER).all()
    assert (read(plots.label_mosaic([], [], tmp_path / "b.png")) == pictures.PAPER).all()


def test_nothing_given_is_changed(tmp_path):
    image, truth = grey(), TRUTH.copy()
    plots.compare_images(judged(truth, truth), {0: image}, tmp_path / "a.png")
    assert (image == 128).all()
    np.testing.assert_array_equal(truth, TRUTH)


# Charts


def test_pr_curves_hold_the_numbers(tmp_path, drawn):
    ramp = 1 - charts.RECALL
    lines = {"car": ramp, "ship": np.full(101, 0.5), "plane": np.full(101, -1.0), "tank": np.full(101, np.nan)}
    assert read(plots.pr_curves(lines, tmp_path / "a.png")).shape[:2] == (5 * charts.DPI, int(7.5 * charts.DPI))
    axis = drawn()[0]
    labels = [line.get_label() for line in axis.lines]
    assert labels == ["car 0.500", "ship 0.500", "mean 0.500"]
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), ramp)
    np.testing.assert_allclose(axis.lines[2].get_ydata(), (ramp + 0.5) / 2)


def test_confusion_matrix_writes_every_count(tmp_path, drawn):
    counts = [[8, 1, 1], [0, 4, 0], [2, 3, 0]]
    image = read(plots.confusion_matrix(counts, ["car", "ship"], tmp_path / "a.png"))
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50  # shades of blue, not a blank sheet
    axis = drawn()[0]
    assert {(t.get_position(), t.get_text()) for t in axis.texts} == {
        *[((0, 0), "8"), ((1, 0), "1"), ((2, 0), "1"), ((1, 1), "4"), ((0, 2), "2"), ((1, 2), "3")]
    }
    np.testing.assert_allclose(axis.images[0].get_array()[0], [0.8, 0.1, 0.1])
    assert [t.get_text() for t in axis.get_xticklabels()] == ["car", "ship", "missed"]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["car", "ship", "background"]


def test_confusion_matrix_refuses_names_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match=r"expected \(3, 3\)"):
        plots.confusion_matrix(np.zeros((2, 2)), ["car", "ship"], tmp_path / "a.png")


def test_ap_by_size_draws_a_bar_for_every_number(tmp_path, drawn):
    values = {"nwd": {"AP_vt": 0.077, "AP_t": 0.2}, "iou": {"AP_vt": float("nan"), "AP_t": 0.1, "AP_s": -1}}
    read(plots.ap_by_size(values, tmp_path / "a.png"))
    axis = drawn()[0]
    np.testing.assert_allclose([bar.get_height() for bar in axis.patches], [7.7, 20, 10])
    assert [t.get_text() for t in axis.get_xticklabels()] == ["AP_vt", "AP_t", "AP_s"]
    assert [t.get_text() for t in axis.texts] == ["7.7", "20.0", "10.0"]


def test_size_histogram_counts_and_names_the_sizes(tmp_path, drawn):
    sides = np.repeat([4.0, 12.0, 20.0, 40.0], [10, 20, 50, 20])
    read(plots.size_histogram(sides, tmp_path / "a.png"))
    axis = drawn()[0]
    assert sum(bar.get_height() for bar in axis.patches) == 100
    assert [t.get_text().split("\n")[1] for t in axis.texts] == ["10%", "20%", "50%", "20%"]
    assert axis.get_title() == "100 objects: mean 20.8, std 10.9, median 20.0 px"


RESULTS = "epoch, time, train/box, val/box, metrics/AP, lr/pg0\n1, 9.5, 3, 4, 0, 0.01\n2, 19, 2, 3, -1, 0.005\n"


def test_training_curves_share_panels(tmp_path, drawn):
    (tmp_path / "results.csv").write_text(RESULTS)
    read(plots.training_curves(tmp_path / "results.csv", tmp_path / "a.png"))
    panels = {axis.get_title(): axis for axis in drawn() if axis.get_visible()}
    assert list(panels) == ["box", "AP %", "learning rate"]
    assert {line.get_label(): list(line.get_ydata()) for line in panels["box"].lines} == {
        "train": [3, 2],
        "val": [4, 3],
    }
    np.testing.assert_array_equal(panels["AP %"].lines[0].get_ydata(), [0, np.nan])
    assert panels["AP %"].get_ylim()[0] == 0
    assert all(float(tick).is_integer() for tick in panels["box"].get_xticks())


def test_training_curves_of_one_epoch_have_an_axis_of_epochs(tmp_path, drawn):
    head = "epoch,metrics/AP,metrics/AP_m,lr/pg0,lr/pg1,lr/pg2"
    (tmp_path / "results.csv").write_text(f"{head}\n1,0.25,-1,0.01,0.03,0.01\n")
    plots.training_curves(tmp_path / "results.csv", tmp_path / "a.png")
    ap, medium, rates = drawn()[:3]
    assert ap.get_xlim() == (0.5, 2.5) and list(ap.lines[0].get_ydata()) == [25]
    assert [text.get_text() for text in medium.texts] == ["nothing of this kind"] and not len(medium.get_yticks())
    assert [line.get_label() for line in rates.lines] == ["pg0, pg2", "pg1"] and rates.get_ylim()[0] == 0


@pytest.mark.parametrize(
    ("text", "word"), [(None, "No such file"), ("", "epoch"), ("a,b\n1,2\n", "has a, b"), ("epoch,a\n1,x\n", "x")]
)
def test_a_bad_results_file_is_one_line(text, word, tmp_path):
    file = tmp_path / "results.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=word) as caught:
        plots.training_curves(file, tmp_path / "a.png")
    assert "results.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_empty_numbers_are_normal(tmp_path):
    (tmp_path / "results.csv").write_text("epoch,time,train/box\n")
    paths = [
        plots.pr_curves({}, tmp_path / "a.png"),
        plots.confusion_matrix(np.zeros((1, 1)), [], tmp_path / "b.png"),
        plots.ap_by_size({}, tmp_path / "c.png"),
        plots.size_histogram([], tmp_path / "d.png"),
        plots.training_curves(tmp_path / "results.csv", tmp_path / "e.png"),
    ]
    assert all(min(read(path).shape[:2]) > 200 for path in paths)
