"""A real browser: headless Chromium, spoken to as W3C's WebDriver says, without a client library."""

import base64
import json
import os
import re
import shutil
import subprocess
import urllib.request
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

SIZE = (1300, 800)  # px of the window


class Browser:
    """A session."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/session"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options = {"args": [*arguments, "--window-size={},{}".format(*SIZE)]}
        always = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.url += "/" + self.call("", {"capabilities": {"alwaysMatch": always}})["sessionId"]

    def call(self, path, body=None, method="POST"):
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def script(self, code):
        return self.call("/execute/sync", {"script": code, "args": []})

    def open(self, url):
        self.call("/url", {"url": url})

    def resize(self, width, height):
        self.call("/window/rect", {"width": width, "height": height})

    def emulate(self, width, height, scheme="light"):
        """A screen of so many pixels, narrower than a window may be too, whose owner wants a light or dark scheme."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        wish = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        for name, values in (("setDeviceMetricsOverride", screen), ("setEmulatedMedia", wish)):
            self.call("/goog/cdp/execute", {"cmd": f"Emulation.{name}", "params": values})

    def element(self, css):
        return next(iter(self.call("/element", {"using": "css selector", "value": css}).values()))

    def click(self, css):
        self.call(f"/element/{self.element(css)}/click")

    def text(self, css):
        return self.script(f"return document.querySelector({css!r}).textContent")

    def texts(self, css):
        return self.script(f"return [...document.querySelectorAll({css!r})].map(e => e.textContent)")

    def type(self, css, words):
        self.call(f"/element/{self.element(css)}/value", {"text": words})

    def actions(self, kind, steps, **more):
        self.call("/actions", {"actions": [{"type": kind, "id": kind, "actions": steps, **more}]})

    def screenshot(self, css=None):
        """(H, W, 3) RGB of the window, or of an element as it is on the screen."""
        data = base64.b64decode(
            self.call(f"/element/{self.element(css)}/screenshot" if css else "/screenshot", method="GET")
        )
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]

    def complaints(self):
        """What the console got since the last call: errors and warnings, requests that failed too."""
        rows = self.call("/se/log", {"type": "browser"})
        return [row["message"] for row in rows if row["level"] in {"SEVERE", "WARNING"}]


@contextmanager
def started(kind=Browser):
    """A session, closed at the end. Without a browser the test is skipped, in CI it fails."""
    driver = shutil.which("chromedriver")
    if driver is None or shutil.which("chromium") is None:
        missing = "needs Debian's chromium and chromium-driver"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
    session = None
    try:
        port = next(found[1] for line in process.stdout if (found := re.search(r"on port (\d+)\.", line)))
        session = kind(port)
        yield session
    finally:
        if session is not None:
            session.call("", method="DELETE")
        process.terminate()
        process.wait()
