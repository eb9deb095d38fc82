"""Memory does not grow with the scene: each run in a process of its own, most with a network that costs nothing."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from tinyyolo.datasets.drawn.toy import draw_scene

RUN = """
import re, sys, torch
from pathlib import Path
from tinyyolo import Model
from tinyyolo.engine.predict import scenes

def net_of(model, rules):
    rng = torch.Generator().manual_seed(0)
    def net(images, core):
        place = torch.rand(10, 2, generator=rng) * 600
        boxes = torch.cat([place, place + 8], 1).repeat(4, 1)  # which then vote
        return [(boxes, torch.rand(10, generator=rng).repeat(4), torch.zeros(40, dtype=torch.int64))] * len(images)
    return net

if sys.argv[2] == "free":
    scenes.net_of = net_of
found = 0
for result in Model("tinyyolo-n.pt").predict(sys.argv[1], imgsz=640, stream=True, verbose=False, save_json=True):
    found += len(result)
status = Path("/proc/self/status").read_text()  # the rusage of a child begins with its parent's
print("found", found, "peak", int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) // 1024)
"""
BLOCK = 512


def draw(path, side, net):
    """A tiled GeoTIFF: noise in every seventh block; for a real network objects, more in some blocks than in others."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (3, BLOCK, BLOCK), dtype=np.uint8)
    counts = range(0, 130, 10) if net == "real" else ()
    towns = [draw_scene(rng, BLOCK, "aerial", objects=(n, n))[0].transpose(2, 0, 1) for n in counts]
    shape = {"width": side, "height": side, "count": 3, "dtype": "uint8", "photometric": "rgb", "BIGTIFF": "YES"}
    tiles = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "zlevel": 1}
    with rasterio.open(path, "w", driver="GTiff", **shape, **tiles) as file:
        for i, y in enumerate(range(0, side, BLOCK)):
            for j, x in enumerate(range(0, side, BLOCK)):
                height, width = min(BLOCK, side - y), min(BLOCK, side - x)
                block = noise if (i + 3 * j) % 7 == 0 else np.full_like(noise, 90)
                if towns:
                    block = np.roll(towns[(5 * i + j) % len(towns)], (31 * i, 17 * j), (1, 2))
                file.write(block[:, :height, :width], window=Window(x, y, width, height))


def peak(folder, side, net="free"):
    """MB of a run over a scene, and how many detections it has."""
    path = folder / f"{side}.tif"
    draw(path, side, net)
    call = [sys.executable, "-c", RUN, path, net]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=True)
    found, most = re.search(r"found (\d+) peak (\d+)", done.stdout).groups()
    return int(most), int(found)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="it is read there")
def test_ten_times_the_pixels_need_no_more_memory(tmp_path):
    """6,400 x 6,400 px are 123 MB of pixels."""
    (small, few), (large, many) = (peak(tmp_path, side) for side in (2000, 6400))
    assert many > 5 * few > 0 and large - small < 90


@pytest.mark.slow
def test_a_hundred_times_the_pixels_need_less_than_100_mb_more(tmp_path):
    (small, _), (large, _) = (peak(tmp_path, side) for side in (3000, 30_000))
    assert large - small < 100


@pytest.mark.slow
def test_nor_with_a_network_that_finds_another_number_of_objects_in_each_window(tmp_path):
    """Two minutes; of 20,000 px, four more, `benchmarks/scenes.py memory` tells."""
    (small, few), (large, many) = (peak(tmp_path, side, "real") for side in (3000, 10_000))
    assert many > 5 * few > 0 and large < 1500
    assert large - small < 40  # 55 where each number of patches has code of its own
