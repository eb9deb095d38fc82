"""Tests run without network and leave nothing behind."""

import os

# Side by side the tests have one thread each; torch reads this once, when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
import tempfile
from multiprocessing.util import Finalize

# All that tests, doctests and their child processes write to the temporary folder, pytest's own folders too.
TEMPORARY = tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="tinyyolo-tests-")
# At the very end: multiprocessing removes a folder of its own in there, at priority -100.
Finalize(None, shutil.rmtree, (TEMPORARY,), {"ignore_errors": True}, exitpriority=-200)
os.environ["YOLO_OFFLINE"] = "1"
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="tinyyolo-settings-")
os.environ.setdefault("TINYYOLO_CACHE", tempfile.mkdtemp(prefix="tinyyolo-cache-"))

import cv2
import numpy as np
import pytest

from tests.support.sets import write_set


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory):
    """A data YAML of 6 + 4 drawn 96 px images with bright squares, COCO JSON."""
    return write_set(tmp_path_factory.mktemp("tiny-set"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path, monkeypatch):
    """Runs go to ./runs of a folder of their own."""
    monkeypatch.chdir(tmp_path)
    cv2.setNumThreads(1)
