"""docs/tutorial.md: its blocks, copied and pasted into a shell in an empty folder, lead from scenes to a map."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parent.parent / "docs" / "tutorial.md"
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
MOST = 10  # minutes
CRS = "EPSG:32633"
PIXEL = 0.5  # m
WEST, NORTH = 500_000 + 10 * 960 * PIXEL, 5_000_000  # of the scene that nobody has labelled, m


def centres(boxes):
    return np.stack([boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]], 1) / 2


@pytest.mark.slow
def test_the_tutorial_leads_to_a_map(tmp_path, capsys):
    tools = f'python() {{ "{sys.executable}" "$@"; }}\ntinyyolo() {{ python -m tinyyolo.cli "$@"; }}\n'
    words = {"PYTHONPATH": str(PAGE.parent.parent), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    begin = time.monotonic()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", tools + "\n".join(BLOCKS)],
        cwd=tmp_path,
        env={**os.environ, **words},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    minutes = (time.monotonic() - begin) / 60
    with capsys.disabled():
        print(f"\nthe tutorial took {minutes:.1f} minutes")
    assert minutes < MOST, "minutes, it says, on two cores"
    assert "nothing is wrong" in done.stdout and (tmp_path / "runs/report/report.html").is_file()

    import geopandas

    found = geopandas.read_file(tmp_path / "boxes.gpkg")
    assert found.crs == CRS and set(found["class"]) <= {"vehicle", "ship", "plane", "tank"}
    truth = json.loads((tmp_path / "drawn/new.json").read_text(encoding="utf-8"))["annotations"]
    boxes = np.array([box["bbox"] for box in truth])
    on_map = [WEST, NORTH] + (boxes[:, :2] + boxes[:, 2:] / 2) * [PIXEL, -PIXEL]
    gaps = np.linalg.norm(centres(found.bounds.to_numpy())[:, None] - on_map, axis=-1)  # m
    assert (gaps.min(axis=0) < 2).mean() > 0.5, "of the objects are found, within 4 px on the map"
    assert (gaps.min(axis=1) < 2).mean() > 0.7, "of what is found is an object"
