"""The picture of README.md, what `predict` writes of a drawn scene: python docs/generator/readme_picture.py."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from tinyyolo import Model
from tinyyolo.datasets.drawn.school import draw_school
from tinyyolo.datasets.images import save

PICTURE = Path(__file__).parent.parent / "airfield.jpg"
SEED, SIDE, ROWS = 63, 832, 608  # an airfield and a town; of the square scene the upper part is shown
OBJECTS, SIDE_PX = (90, 140), (16.0, 5.0)


def main() -> None:
    """Draw the scene, look at it with the weights that come along, and write the picture."""
    drawn, _, _ = draw_school(np.random.default_rng(SEED), SIDE, OBJECTS, SIDE_PX)
    with tempfile.TemporaryDirectory() as folder:
        scene = save(Path(folder) / "scene.png", drawn[:ROWS])
        Model("tinyyolo-n.pt").predict(scene, save=True, project=folder, name="run")
        shutil.copyfile(Path(folder) / "run" / "scene.jpg", PICTURE)


if __name__ == "__main__":
    main()
