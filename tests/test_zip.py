"""The package imported from a zip, as a wheel is: its YAMLs, weights and page are found."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tinyyolo

TOP = Path(tinyyolo.__file__).parent.parent
CODE = """
import sys
from tinyyolo import config, resources
from tinyyolo.cli import run
from tinyyolo.evaluation.report import PLACE, TEMPLATE
assert ".zip" in config.__file__, config.__file__
assert list(config.shipped_weights()) == ["tinyyolo-n.pt"]
assert run(["models"]) == 0 and PLACE in TEMPLATE.read_text(encoding="utf-8")
print(config.ROOTS[0])
"""


@pytest.mark.slow
def test_from_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "wheel.zip", "w") as archive:
        for path in (path for folder in ("tinyyolo", "cfg", "data", "weights") for path in (TOP / folder).rglob("*.*")):
            name = path.relative_to(TOP)
            inner = name if name.parts[0] == "tinyyolo" else Path("tinyyolo", name)
            if path.suffix in {".py", ".yaml", ".html", ".pt"}:
                archive.write(path, inner)
    clean = {**os.environ, "PYTHONPATH": str(tmp_path / "wheel.zip")}
    done = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 0 and "tinyyolo-n" in done.stdout, done.stderr
    assert not Path(done.stdout.splitlines()[-1]).exists(), "what was unpacked goes with the process"
