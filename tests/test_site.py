"""The site as it is built: in a real browser, without a network; and that nothing public is missing in it."""

import importlib.util
import re
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag

import cv2
import numpy as np
import pytest

from tests.support.browser import started
from tests.test_docs import public
from tinyyolo.analysis.schema import rows
from tinyyolo.cli import COMMANDS, leaves
from tinyyolo.datasets.spec import KINDS
from tinyyolo.engine.keys import KEYS

ROOT = Path(__file__).parent.parent
LOOKED_AT = (
    "index.html",
    "tutorial.html",
    "keys.html",
    "scenes.html",
    "weights.html",
    "measured.html",
    "architecture.html",
    "why-iou-fails.html",
    "reference/api/boxes.html",
)
WIDTHS = (390, 1280)  # px: of a phone and of a laptop
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra docs"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built without a warning."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing."""


@pytest.fixture(scope="module")
def served(site):
    """The address of the site on a server of this machine, with a slash at the end."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with started() as session:
        yield session


def shown(browser, css):
    """Whether an element is there and in the window."""
    place = f"const r = document.querySelector({css!r}).getBoundingClientRect(); return [r.left, r.right, r.width]"
    left, right, width = browser.script(place)
    return width > 0 and 0 <= left < right <= browser.script("return innerWidth")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", LOOKED_AT)
def test_a_page_is_whole_and_fits(browser, served, page, width):
    browser.emulate(width, 844)
    browser.complaints()
    browser.open(served + page)
    assert browser.script("return document.scrollingElement.scrollWidth <= innerWidth"), "it scrolls to the side"
    broken = "return [...document.images].filter(one => !one.complete || !one.naturalWidth).map(one => one.src)"
    assert browser.script(broken) == []
    loaded = browser.script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert loaded and [name for name in loaded if not name.startswith(served)] == []
    assert browser.complaints() == []
    assert len(browser.texts("h1")) == 1
    wide = width == max(WIDTHS)
    assert shown(browser, ".md-search__form" if wide else "label.md-header__button[for=__search]")
    assert shown(browser, "nav.md-nav--primary" if wide else "label.md-header__button[for=__drawer]")


@pytest.mark.parametrize("place", ("a server", "a disk"))
def test_the_search_finds(browser, served, site, place):
    address = served if place == "a server" else f"{site.as_uri()}/"
    browser.emulate(max(WIDTHS), 844)
    browser.open(f"{address}index.html")
    browser.click(".md-search__input")
    browser.type(".md-search__input", "choose anchors and assigner")
    waited = """const done = arguments[0], css = ".md-search-result__link";
        const see = () => document.querySelector(css) ? done() : setTimeout(see, 50);
        see();"""
    browser.call("/execute/async", {"script": waited, "args": []})
    found = browser.script("return [...document.querySelectorAll('.md-search-result__link')].map(one => one.href)")
    assert any(link.startswith(f"{address}how-to.html") for link in found[:5]), found


@pytest.mark.parametrize(("scheme", "lightness"), (("light", (200, 255)), ("dark", (0, 60))))
def test_the_first_screen_shows_the_picture(browser, served, scheme, lightness):
    """The picture of the README as it is in the file, on a ground of the scheme that the reader's system asks for."""
    browser.emulate(1280, 900, scheme)
    browser.open(f"{served}index.html")
    browser.script("localStorage.clear()")  # what an earlier visit chose
    browser.open(f"{served}index.html")
    window = browser.screenshot()
    assert lightness[0] <= window[300:600, 10:30].mean() <= lightness[1]
    shown_there = browser.screenshot("main img").astype(int)
    as_it_is = cv2.imread(str(ROOT / "docs/airfield.jpg"))[..., ::-1]
    height, width = shown_there.shape[:2]
    assert width > 600, "px"
    as_it_is = cv2.resize(as_it_is, (width, height), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(shown_there - as_it_is).mean() < 10, "of 255"


def test_the_figure_answers_its_sliders(browser, served):
    """A square of 6 px moved by 1: IoU 25 / (72 - 25) = .53, NWD exp(-1.414 / 12.7) = .89; by 6: IoU 0."""
    browser.emulate(390, 844)
    browser.open(f"{served}why-iou-fails.html")
    for by, said in ((1, ["0.53", "0.89"]), (6, ["0.00", "0.51"])):
        browser.script(f"const one = document.getElementById('shift-by'); one.value = {by}; one.oninput()")
        assert [browser.text("#iou"), browser.text("#nwd")] == said


class Tags(HTMLParser):
    """Ids, links and files of a page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids |= {values[key] for key in ("id", "name") if values.get(key)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif values.get("src"):
            self.loads.append(values["src"])
        elif tag == "link" and values.get("rel") not in {"canonical", "prev", "next"}:
            self.loads.append(values["href"])


@pytest.fixture(scope="module")
def pages(site):
    return {path: Tags(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}


def test_nothing_is_loaded_from_elsewhere(site, pages):
    assert len(pages) > 30
    loads = {load for tags in pages.values() for load in tags.loads}
    loads |= {
        load for path in site.rglob("*.css") for load in re.findall(r"(?:url|@import)\W+([^)'\"]+)", path.read_text())
    }
    assert [load for load in loads if re.match(r"(\w+:)?//", load)] == []


def test_links_of_the_built_pages_lead_somewhere(pages):
    broken = []
    for path, tags in pages.items():
        for link in (*tags.links, *tags.loads):
            to, anchor = urldefrag(link)
            if re.match(r"\w+:", to):
                continue
            there = (path.parent / unquote(to)).resolve() if to else path
            there = there / "index.html" if there.is_dir() else there
            if not there.is_file() or (anchor and there in pages and unquote(anchor) not in pages[there].ids):
                broken.append((path.name, link))
    assert broken == []


def test_everything_public_stands_on_a_page(pages):
    there = set().union(*(tags.ids for path, tags in pages.items() if path.parent.name == "api"))
    # A method that overrides another is described where that one is, a function of two names under its own.
    named = {
        name
        for name, one in public()
        if one.__doc__ and name.endswith(f".{getattr(one, '__qualname__', name.rpartition('.')[2])}")
    }
    assert len(named) > 2000 and named - there == set()


def test_every_command_and_key_stands_on_a_page(site):
    text = {name: (site / f"{name}.html").read_text() for name in ("keys", "reference/commands")}
    text |= {name: (site / f"reference/{name}.html").read_text() for name in ("model-keys", "data-keys")}
    assert [name for name in KEYS if f"<code>{name}</code>" not in text["keys"]] == []
    assert [name for name in KINDS if f"<code>{name}</code>" not in text["data-keys"]] == []
    assert [row for row in rows() if f"<code>{row.key}</code>" not in text["model-keys"]] == []
    titles = re.findall(r"<h2 [^>]*>(.*?)<a", text["reference/commands"])
    assert titles == [words for words, _ in leaves(COMMANDS)]
