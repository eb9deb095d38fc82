"""The report in a real browser: it filters, zooms, and shows exactly the boxes that were counted."""

import base64
import json
import re
import shutil

import cv2
import numpy as np
import pytest

from tests.support.browser import SIZE, Browser, started
from tests.support.report_scene import COLOURS, box, pixel_of, write_run
from tinyyolo.analysis.report import report as report_command


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    return folder


class Page(Browser):
    """The report, once its picture is there."""

    def open(self, path):
        super().open(path.resolve().as_uri())
        self.settle()

    def settle(self):
        """Wait until the picture is there, and has been fitted, which ends any zoom."""
        waited = """const done = arguments[0];
            const see = () => picture && picture.complete ? setTimeout(done, 20) : setTimeout(see, 20);
            see();"""
        self.call("/execute/async", {"script": waited, "args": []})

    def canvas(self):
        """(H, W, 3) RGB of the canvas as it is on the screen."""
        return self.screenshot("#view")

    def inked(self):
        """How many pixels of the canvas have the colour of each kind."""
        picture = self.canvas().astype(int)
        return {kind: int((np.abs(picture - c).max(-1) < 12).sum()) for kind, c in COLOURS.items()}


@pytest.fixture(scope="module")
def browser():
    with started(Page) as session:
        yield session


@pytest.fixture
def page(browser, written):
    browser.open(written / "out/report.html")
    return browser


def counted(page):
    numbers = re.match(r"(\d+) boxes: (\d+) TP, (\d+) FP, (\d+) FN", page.text("#count"))
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


def press(page, key):
    page.actions("key", [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}])


def test_everything_is_reached_by_keys(page):
    """Errors one after another and on into the next image, zoom, the table of counts and away from it."""
    fitted = page.text("#zoom")
    for place in range(5):
        press(page, "n")
        assert page.script("return picked >= 0 && [...document.querySelectorAll('.box')].findIndex(row => "
                           "row.getAttribute('aria-current') === 'true')") == place  # fmt: skip
    assert page.text("#zoom") != fitted
    press(page, "n")
    assert page.script("return current") == 1 and page.script("return picked") == -1
    press(page, "p")
    assert page.script("return picked") >= 0
    press(page, "\ue012")
    assert page.script("return current") == 0
    page.settle()
    before = page.script("return view")
    press(page, "+")
    press(page, "d")
    after = page.script("return view")
    assert after["scale"] == pytest.approx(1.5 * before["scale"]) and after["x"] > before["x"]
    press(page, "0")
    assert page.text("#zoom") == fitted
    press(page, "c")
    assert page.script("return document.querySelector('#summary').open")
    press(page, "\ue00c")
    assert not page.script("return document.querySelector('#summary').open")


def test_the_sizes_of_missed_objects_are_told(page):
    missed = page.script("return data.images[order[0].index].boxes.filter(box => data.kinds[box[6]] === 'FN')")
    side = (missed[0][2] * missed[0][3]) ** 0.5
    assert f"missed objects of {side:.1f} to {side:.1f} px" in page.text("#count")
    assert f"{missed[0][2]:.0f}x{missed[0][3]:.0f} px" in page.texts(".box")[0]


def test_on_a_phone_the_picture_comes_first(browser, written):
    """390 px wide: the picture takes the width, lists lie below it, nothing hangs out."""
    browser.resize(390, 800)
    try:
        browser.open(written / "out/report.html")
        place = (
            "const r = document.querySelector({!r}).getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]"
        )
        view, images, boxes = (browser.script(place.format(css)) for css in ("main", "#images", "#boxes"))
        width = browser.script("return innerWidth")
        assert view[0] == 0 and view[2] == width and browser.script("return document.body.scrollWidth") <= width
        assert images[1] >= view[3] and boxes[1] >= view[3] and images[2] <= boxes[0] + 1
        assert view[3] - view[1] > browser.script("return innerHeight") / 2
    finally:
        browser.resize(*SIZE)


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


def large_run(folder, embed):
    """A TIFF of 3,000 x 600 px with a missed object in the one half and a right one in the other."""
    rows, columns = np.mgrid[:600, :3000]
    scene = np.repeat(((rows // 8 + columns // 8) % 2 * 180 + 40)[..., None], 3, -1).astype(np.uint8)
    cv2.imwrite(str(folder / "large.tif"), scene)
    objects = [box(1, 1, [2600, 300, 16, 16]), box(1, 1, [100, 100, 16, 16])]
    image = {"id": 1, "file_name": "large.tif", "width": 3000, "height": 600}
    rows = [{"id": i, "iscrowd": 0, **one} for i, one in enumerate(objects, 1)]
    truth = {"images": [image], "categories": [{"id": 1, "name": "ship"}], "annotations": rows}
    (folder / "gt.json").write_text(json.dumps(truth))
    (folder / "dt.json").write_text(json.dumps([box(1, 1, [100, 100, 16, 16], 0.9)]))
    files = {"gt": folder / "gt.json", "dt": folder / "dt.json", "images": folder}
    report_command(**files, out=folder / "out", threshold=0.5, pngs=1, embed=embed)
    text = (folder / "out/report.html").read_text()
    return scene, json.loads(re.search('id="data">(.*?)</script>', text)[1])["images"][0]


@pytest.mark.parametrize("embed", (False, True))
def test_a_large_image_is_an_overview_and_parts(tmp_path, embed):
    """Parts of 256 px and 32 around: 2600 lies in column 10, from 2560 - 32 on; 300 in row 1, from 256 - 32 on."""
    scene, entry = large_run(tmp_path, embed)
    assert [part[:4] for part in entry["parts"]] == [[2528, 224, 320, 320], [0, 0, 288, 288]]
    assert entry["size"] == [3000, 600] and (tmp_path / "out/report.html").stat().st_size < scene.size / 4
    pictures = []
    for source in (entry["source"], *(part[4] for part in entry["parts"])):
        assert source.startswith("data:image/jpeg;base64," if embed else "report_parts/001_")
        data = base64.b64decode(source.partition(",")[2]) if embed else (tmp_path / "out" / source).read_bytes()
        pictures.append(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    assert pictures[0].shape == (320, 1600, 3)
    assert np.abs(pictures[1].astype(int) - scene[224:544, 2528:2848]).mean() < 12
    drawn = cv2.imread(str(tmp_path / "out/images/001_large.png"))
    assert drawn.shape == (320, 1600, 3)
    assert tuple(drawn[160, 1387]) == COLOURS["FN"][::-1]  # 300 and 2600 px by 1600 / 3000


def test_parts_are_drawn_where_they_are(browser, tmp_path):
    scene, _ = large_run(tmp_path, embed=False)
    browser.open(tmp_path / "out/report.html")
    browser.click(".box:nth-child(1)")
    waited = """const done = arguments[0];
        const see = () => parts[0].pixels && parts[0].pixels.naturalWidth ? (draw(), done()) : setTimeout(see, 20);
        see();"""
    browser.call("/execute/async", {"script": waited, "args": []})
    view, picture = browser.script("return view"), browser.canvas()
    for x, y in ((2604, 304), (2612, 304), (2604, 312)):
        at = [int((v + 0.5 - view[key]) * view["scale"]) for v, key in ((x, "x"), (y, "y"))]
        assert np.abs(picture[at[1], at[0]].astype(int) - scene[y, x, ::-1]).max() < 40
