"""The verdicts, and the page in a real browser: it filters, zooms, and shows exactly the boxes that were counted."""

import base64
import json
import os
import re
import shutil
import subprocess
import urllib.request

import cv2
import numpy as np
import pytest

from tinyyolo.config import UserError
from tinyyolo.evaluation import evaluate
from tinyyolo.evaluation.commands import report_command
from tinyyolo.evaluation.errors import (
    BACKGROUND,
    CONFUSION,
    DUPLICATE,
    FOUND,
    HIDDEN,
    IGNORED,
    LOCALISATION,
    MISSED,
    REGION,
    TRUE,
    count_errors,
    find_errors,
    missed_labels,
)

SHIP, CAR = 1, 2
COLOURS = {"TP": (0, 200, 83), "FP": (41, 121, 255), "FN": (255, 23, 68)}
SIDE = 96  # of the drawn images


def box(image, category, bbox, score=None, **more):
    record = {"image_id": image, "category_id": category, "bbox": bbox, **more}
    return record if score is None else {**record, "score": score}


OBJECTS = [
    box(1, SHIP, [10, 10, 8, 8]),
    box(1, SHIP, [40, 10, 12, 12]),
    box(1, CAR, [60, 60, 20, 20]),
    box(2, CAR, [10, 10, 7, 7]),
    box(2, SHIP, [60, 10, 30, 30], iscrowd=1),
]
FOUND_BOXES = [  # detection, verdict, object
    (box(1, SHIP, [10, 10, 8, 8], 0.9), TRUE, 0),
    (box(1, SHIP, [10, 11, 8, 8], 0.8), DUPLICATE, 0),
    (box(1, SHIP, [46, 10, 12, 12], 0.7), LOCALISATION, 1),
    (box(1, SHIP, [60, 60, 20, 18], 0.6), CONFUSION, 2),
    (box(1, CAR, [60, 60, 20, 20], 0.95), TRUE, 2),
    (box(1, CAR, [5, 70, 10, 10], 0.85), BACKGROUND, -1),
    (box(1, CAR, [80, 5, 10, 10], 0.2), HIDDEN, -1),
    (box(2, SHIP, [62, 12, 20, 20], 0.9), IGNORED, 4),
    (box(2, SHIP, [30, 70, 5, 5], 0.55), BACKGROUND, -1),
    (box(2, CAR, [10, 10, 7, 7], 0.1), HIDDEN, -1),
    (box(3, SHIP, [20, 20, 40, 40], 0.75), BACKGROUND, -1),
]
DETECTIONS = [record for record, *_ in FOUND_BOXES]
NAMES = {1: "first.png", 2: "second image.png", 3: "third.png", 4: "empty.png"}


def truth():
    return {
        "images": [{"id": i, "file_name": name, "width": SIDE, "height": SIDE} for i, name in NAMES.items()],
        "categories": [{"id": SHIP, "name": "ship"}, {"id": CAR, "name": "car"}],
        "annotations": [{"id": i, "iscrowd": 0, **record} for i, record in enumerate(OBJECTS, 1)],
    }


def test_every_detection_and_object_has_its_verdict():
    errors = find_errors(truth(), DETECTIONS, threshold=0.5)
    assert errors.verdict.tolist() == [verdict for _, verdict, _ in FOUND_BOXES]
    assert errors.partner.tolist() == [partner for *_, partner in FOUND_BOXES]
    assert errors.state.tolist() == [FOUND, MISSED, FOUND, MISSED, REGION]
    np.testing.assert_allclose(errors.iou[[0, 2, 3]], [1, 6 * 12 / (2 * 144 - 72), 0.9])


def test_counts_by_class_and_size():
    counts = count_errors(find_errors(truth(), DETECTIONS, threshold=0.5))
    causes = {"localisation": 1, "confusion": 1, "duplicate": 1, "background": 3}
    assert counts["all"]["all"] == {"objects": 4, "TP": 2, "FP": 6, "FN": 2, **causes}
    assert counts["ship"]["all"]["FP"] == 5 and counts["car"]["all"]["FP"] == 1
    assert counts["ship"]["vt"] == {
        "objects": 1, "TP": 1, "FP": 2, "FN": 0, "localisation": 0, "confusion": 0, "duplicate": 1, "background": 1,
    }  # fmt: skip
    assert counts["all"]["m"]["background"] == 1 and counts["car"]["vt"]["FN"] == 1
    for by_size in counts.values():
        for key, number in by_size["all"].items():
            assert sum(by_size[size][key] for size in ("vt", "t", "s", "m")) == number


def test_default_thresholds_are_those_of_least_lrp():
    errors = find_errors(truth(), DETECTIONS)
    figures = evaluate(truth(), DETECTIONS)["per_class"]
    assert errors.thresholds.tolist() == [figures["ship"]["threshold"], figures["car"]["threshold"]]
    own = find_errors(truth(), DETECTIONS, threshold={"car": 0.05}).thresholds.tolist()
    assert own == [figures["ship"]["threshold"], 0.05]
    hopeless = [box(1, SHIP, [70, 70, 5, 5], 0.4)]
    assert find_errors(truth(), hopeless).thresholds.tolist() == [0.3, 0.3]


def test_true_positives_are_those_of_the_evaluator():
    errors = find_errors(truth(), DETECTIONS, threshold=0)
    recall = evaluate(truth(), DETECTIONS, arrays=True)["recall"][0, :, 0, -1]
    found = [int((errors.verdict[errors.detections.category == k] == TRUE).sum()) for k in (0, 1)]
    np.testing.assert_allclose(recall, np.array(found) / [2, 2])


@pytest.mark.parametrize("objects, detections", [([], []), (OBJECTS, []), ([], DETECTIONS)])
def test_nothing_is_normal(objects, detections, tmp_path):
    gt = {**truth(), "annotations": [{"id": i, **record} for i, record in enumerate(objects)]}
    counts = count_errors(find_errors(gt, detections, threshold=0.5))["all"]["all"]
    assert counts["FN"] == (4 if objects else 0) and counts["background"] == (9 if detections else 0)
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "dt.json").write_text(json.dumps(detections))
    report_command(gt=str(tmp_path / "gt.json"), dt=str(tmp_path / "dt.json"), out=str(tmp_path / "out"))
    assert (tmp_path / "out/report.html").is_file()


def test_missed_labels_are_coco_json_by_falling_score():
    errors = find_errors(truth(), DETECTIONS, threshold=0.5)
    content = missed_labels(errors)
    assert [(a["image_id"], a["category_id"], a["score"]) for a in content["annotations"]] == [
        (1, CAR, 0.85),
        (3, SHIP, 0.75),
        (2, SHIP, 0.55),
    ]
    assert content["images"][1] == {"id": 3, "file_name": "third.png", "width": SIDE, "height": SIDE}
    assert content["categories"] == truth()["categories"]
    assert len(missed_labels(errors, score=0.8)["annotations"]) == 1
    assert evaluate(content, [box(1, CAR, [5, 70, 10, 10], 0.9)])["per_class"]["car"]["AP"] == pytest.approx(1)


def pixel_of(image, y, x):
    """A colour that tells the place."""
    return 60 + x % 64, 60 + y % 64, 40 * image


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run of the command on drawn images, as a user would have it."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "photos").mkdir()
    for image, name in NAMES.items():
        rows, columns = np.mgrid[:SIDE, :SIDE]
        picture = np.stack([*pixel_of(image, rows, columns)[:2], np.full((SIDE, SIDE), 40 * image)], -1)
        (folder / "photos" / name).write_bytes(cv2.imencode(".png", picture[..., ::-1].astype(np.uint8))[1].tobytes())
    (folder / "gt.json").write_text(json.dumps(truth()))
    (folder / "dt.json").write_text(json.dumps(DETECTIONS))
    given = {"gt": str(folder / "gt.json"), "dt": str(folder / "dt.json"), "images": str(folder / "photos")}
    report_command(**given, out=str(folder / "out"), threshold=0.5, pngs=2)
    report_command(**given, out=str(folder / "alone"), threshold=0.5, pngs=0, embed=True)
    return folder


def test_command_writes_all_files(written):
    out = written / "out"
    assert sorted(p.name for p in out.iterdir()) == ["errors.json", "images", "missed_labels.json", "report.html"]
    assert sorted(p.name for p in (out / "images").iterdir()) == ["001_first.png", "002_second image.png"]
    content = json.loads((out / "errors.json").read_text())
    assert content["counts"] == count_errors(find_errors(truth(), DETECTIONS, threshold=0.5))
    assert content["thresholds"] == {"ship": 0.5, "car": 0.5}
    assert len(json.loads((out / "missed_labels.json").read_text())["annotations"]) == 3
    assert "data:image" not in (out / "report.html").read_text()
    assert (written / "alone/report.html").read_text().count("data:image/png") == 4


def test_pngs_show_boxes_in_their_colours(written):
    picture = cv2.imread(str(written / "out/images/001_first.png"))[..., ::-1]
    assert picture.shape == (8 * SIDE, 8 * SIDE, 3)
    assert tuple(picture[8 * 10 + 4, 8 * 10 + 4]) == pixel_of(1, 10, 10)
    assert tuple(picture[8 * 10, 8 * 12]) == COLOURS["TP"]
    assert tuple(picture[8 * 10, 8 * 41]) == COLOURS["FN"]
    assert tuple(picture[8 * 70, 8 * 6]) == COLOURS["FP"]


@pytest.mark.parametrize(
    "given, words",
    [
        ({}, ["gt="]),
        ({"gt": "gt.json", "dt": "dt.json", "images": "nowhere"}, ["images=nowhere", "no such folder"]),
        ({"gt": "gt.json", "dt": "dt.json", "images": "out"}, ["first.png", "any other"]),
        ({"gt": "gt.json", "dt": "dt.json", "threshold": {"boat": 0.5}}, ["boat", "ship"]),
        ({"gt": "gt.json", "dt": "dt.json", "ignore": "boat"}, ["boat", "ship"]),
    ],
)
def test_command_refuses_in_one_line(given, words, written, monkeypatch):
    monkeypatch.chdir(written)
    with pytest.raises(UserError) as error:
        report_command(**given)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_ignored_category_is_a_region_of_all_classes():
    gt = truth()
    gt["categories"].append({"id": 9, "name": "DontCare"})
    gt["annotations"].append({"id": 9, **box(3, 9, [10, 10, 60, 60])})
    errors = find_errors(gt, DETECTIONS, threshold=0.5, ignore=["DontCare"])
    assert errors.verdict[-1] == IGNORED and errors.truth.names == ("ship", "car")
    assert evaluate(gt, DETECTIONS, ignore=["DontCare"])["per_class"].keys() == {"ship", "car"}


class Browser:
    """A W3C WebDriver session of headless Chromium, spoken to without a client library."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/session"
        options = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,800"]}
        always = {"browserName": "chrome", "goog:chromeOptions": options}
        self.url += "/" + self.call("", {"capabilities": {"alwaysMatch": always}})["sessionId"]

    def call(self, path, body=None, method="POST"):
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def script(self, code):
        return self.call("/execute/sync", {"script": code, "args": []})

    def open(self, path):
        self.call("/url", {"url": path.resolve().as_uri()})
        waited = """const done = arguments[0];
            const see = () => picture && picture.complete ? done() : setTimeout(see, 20);
            see();"""
        self.call("/execute/async", {"script": waited, "args": []})

    def element(self, css):
        return next(iter(self.call("/element", {"using": "css selector", "value": css}).values()))

    def click(self, css):
        self.call(f"/element/{self.element(css)}/click")

    def text(self, css):
        return self.script(f"return document.querySelector({css!r}).textContent")

    def texts(self, css):
        return self.script(f"return [...document.querySelectorAll({css!r})].map(e => e.textContent)")

    def actions(self, kind, steps, **more):
        self.call("/actions", {"actions": [{"type": kind, "id": kind, "actions": steps, **more}]})

    def canvas(self):
        """(H, W, 3) RGB of the canvas as it is on the screen."""
        data = base64.b64decode(self.call(f"/element/{self.element('#view')}/screenshot", method="GET"))
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]

    def inked(self):
        """How many pixels of the canvas have the colour of each kind."""
        picture = self.canvas().astype(int)
        return {kind: int((np.abs(picture - c).max(-1) < 12).sum()) for kind, c in COLOURS.items()}


@pytest.fixture(scope="module")
def browser():
    driver = shutil.which("chromedriver")
    if driver is None or shutil.which("chromium") is None:
        missing = "needs Debian's chromium and chromium-driver"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
    session = None
    try:
        port = next(m.group(1) for line in process.stdout if (m := re.search(r"on port (\d+)\.", line)))
        session = Browser(port)
        yield session
    finally:
        if session is not None:
            session.call("", method="DELETE")
        process.terminate()
        process.wait()


@pytest.fixture
def page(browser, written):
    browser.open(written / "out/report.html")
    return browser


def counted(page):
    numbers = re.fullmatch(r"(\d+) boxes: (\d+) TP, (\d+) FP, (\d+) FN", page.text("#count"))
    return tuple(int(n) for n in numbers.groups())


def tick(page, name, value):
    page.click(f'input[name="{name}"][value="{value}"]')


def test_page_shows_the_worst_image_first_with_all_its_boxes(page):
    assert page.texts(".image") == ["first.png41", "second image.png11", "third.png10"]
    assert counted(page) == (7, 2, 4, 1)
    assert len(page.texts(".box")) == 5
    assert "worst 4 of 4" in page.text("#source")
    ink = page.inked()
    assert all(number > 100 for number in ink.values()), ink


def test_page_filters_by_kind_class_size_and_score(page):
    for kind in ("localisation", "confusion", "duplicate", "background"):
        tick(page, "kinds", kind)
    assert counted(page) == (3, 2, 0, 1)
    ink = page.inked()
    assert ink["FP"] == 0 and ink["TP"] > 100 and ink["FN"] > 100
    tick(page, "kinds", "FN")
    tick(page, "kinds", "confusion")
    ink = page.inked()
    assert counted(page) == (3, 2, 1, 0) and ink["FN"] == 0 and ink["FP"] > 100
    for kind in ("localisation", "duplicate", "background", "FN"):
        tick(page, "kinds", kind)
    tick(page, "classes", "ship")
    assert counted(page) == (2, 1, 1, 0)
    assert page.texts(".image") == ["first.png10", "second image.png01"]
    tick(page, "classes", "ship")
    for size in ("t", "s", "m"):
        tick(page, "sizes", size)
    assert counted(page) == (2, 1, 1, 0)
    for size in ("t", "s", "m"):
        tick(page, "sizes", size)
    page.script('document.getElementById("score").value = 0.82; document.getElementById("score").oninput()')
    assert counted(page) == (4, 2, 1, 1) and page.text("#least") == "0.82"


def test_a_page_without_boxes_left_says_so(page):
    for name in ("ship", "car"):
        tick(page, "classes", name)
    assert counted(page) == (0, 0, 0, 0) and page.texts(".image") == [] and max(page.inked().values()) == 0
    tick(page, "classes", "car")
    assert counted(page) == (2, 1, 1, 0)


def test_a_double_click_leaves_one_class(page):
    page.script(
        'document.querySelector("#classes label").dispatchEvent(new MouseEvent("dblclick", {cancelable: true}))'
    )
    assert counted(page) == (5, 1, 3, 1)
    assert page.script('return [...document.querySelectorAll("#classes input")].map(e => e.checked)') == [True, False]


def test_page_zooms_to_the_pixel(page):
    before = page.text("#zoom")
    wheel = {"type": "scroll", "x": 500, "y": 400, "deltaX": 0, "deltaY": -120, "duration": 0, "origin": "viewport"}
    page.actions("wheel", [wheel])
    assert int(page.text("#zoom").split()[0]) > int(before.split()[0])
    page.click("#fit")
    assert page.text("#zoom") == before
    page.click(".box:nth-child(2)")  # the most confident error, after the missed object
    assert page.text("#zoom") == "1260 %" or int(page.text("#zoom").split()[0]) > 800
    view = page.script("return view")
    picture = page.canvas()
    column, row = 10, 75  # inside the box at [5, 70, 10, 10]
    x, y = (column + 0.5 - view["x"]) * view["scale"], (row + 0.5 - view["y"]) * view["scale"]
    reach = int(view["scale"] / 2) - 1
    block = picture[int(y) - reach : int(y) + reach, int(x) - reach : int(x) + reach].reshape(-1, 3)
    assert set(map(tuple, block.tolist())) == {pixel_of(1, row, column)}  # one flat square: nothing is smoothed
    edge_x, edge_y = (5 - view["x"]) * view["scale"], (72 - view["y"]) * view["scale"]
    assert np.abs(picture[round(edge_y), round(edge_x)].astype(int) - COLOURS["FP"]).max() < 12


def test_keys_and_clicks_change_the_image(page):
    page.actions("key", [{"type": "keyDown", "value": "\ue015"}, {"type": "keyUp", "value": "\ue015"}])
    assert counted(page) == (2, 0, 1, 1)
    page.click(".image:nth-child(3)")
    assert counted(page) == (1, 0, 1, 0)
    page.click("#counts")
    assert page.texts("#summary table:first-child tbody tr:first-child td")[:5] == ["all", "4", "2", "6", "2"]


def test_pointing_at_a_box_names_it(page):
    view = page.script("return view")
    offset = page.script('const r = document.getElementById("view").getBoundingClientRect(); return [r.x, r.y]')
    at = [int(offset[i] + (14 - view["xy"[i]]) * view["scale"]) for i in (0, 1)]
    page.actions("pointer", [{"type": "pointerMove", "x": at[0], "y": at[1], "duration": 0}])
    assert page.text("#tip").startswith(("TP\nship\n8.0 x 8.0 px\nscore 0.900", "duplicate\nship"))


def test_embedded_images_need_no_other_file(browser, written, tmp_path):
    shutil.copy(written / "alone/report.html", tmp_path / "sent.html")
    browser.open(tmp_path / "sent.html")
    view = browser.script("return view")
    x, y = (int((v + 0.5 - view[key]) * view["scale"]) for v, key in ((30, "x"), (50, "y")))
    assert tuple(browser.canvas()[y, x]) == pixel_of(1, 50, 30)
