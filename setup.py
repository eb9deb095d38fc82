"""Packaging. Every bound below carries its reason."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "tinyyolo/__init__.py").read_text()).group(1)

setup(
    name="tinyyolo",
    version=VERSION,
    description="Detection of tiny objects (2-16 px) in aerial images by normalised Wasserstein distance ranking.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="AGPL-3.0-only",
    python_requires=">=3.10",
    # cfg/, data/ and weights/ stand at the top of the repository, where people look, and travel in the package.
    packages=[
        *find_packages(include=["tinyyolo", "tinyyolo.*"]),
        "tinyyolo.cfg",
        "tinyyolo.cfg.models",
        "tinyyolo.cfg.specs",
        "tinyyolo.cfg.trackers",
        "tinyyolo.data",
        "tinyyolo.weights",
    ],
    package_dir={
        "tinyyolo.cfg": "cfg",
        "tinyyolo.cfg.models": "cfg/models",
        "tinyyolo.cfg.specs": "cfg/specs",
        "tinyyolo.cfg.trackers": "cfg/trackers",
        "tinyyolo.data": "data",
        "tinyyolo.weights": "weights",
    },
    package_data={
        "tinyyolo": ["py.typed"],
        "tinyyolo.evaluation": ["*.html"],
        "tinyyolo.cfg": ["*.yaml"],
        "tinyyolo.cfg.models": ["*.yaml"],
        "tinyyolo.cfg.specs": ["*.yaml"],
        "tinyyolo.cfg.trackers": ["*.yaml"],
        "tinyyolo.data": ["*.yaml"],
        "tinyyolo.weights": ["*.pt"],
    },
    entry_points={"console_scripts": ["tinyyolo=tinyyolo.cli:main"]},
    install_requires=[
        "torch>=2.10",  # security fix in torch.load; no upper bound: older CPU builds break torchvision
        "torchvision>=0.25",  # the release that pairs with torch 2.10
        "ultralytics==8.4.190",  # we subclass its engine; private parts change between patches (compat.py)
        "opencv-python>=4.6",  # reads and resizes images; the bound is ultralytics' own
        "numpy>=1.24",  # first with typed arrays as used here and wheels for Python 3.11
        "pillow>=9.1",  # opens image headers and large TIFFs by region; the bound is the first with Resampling
        "matplotlib>=3.6",  # layout="constrained" on figures
        "msgspec>=0.19",  # decodes JSON into typed records; the first release with wheels for Python 3.13
        "pyyaml>=6.0",  # safe loader by default
        "lap>=0.5.12",  # pairs tracks and detections; ultralytics' trackers import it, the bound is theirs
        "safetensors>=0.4.3",  # weights in a file that cannot hold code
    ],
    extras_require={
        "geo": [
            "rasterio>=1.4",  # reads scenes by windows; the first with wheels for numpy 2 and Python 3.13
            "pyogrio>=0.10",  # writes vectors without geopandas; the first with wheels for Python 3.13
            "pyarrow>=17",  # writes GeoParquet, which pyogrio's wheels cannot; the first built for numpy 2
            "shapely>=2.0",  # outlines of labels as arrays; the first with vectorised functions
        ],
        "docs": [
            "mkdocs>=1.6,<2",  # pages made by hooks, anchors validated; 2 drops themes and plugins
            "mkdocs-material>=9.5",  # the theme; the first after mkdocs 1.6, maintained until 2027
            "mkdocstrings[python]>=0.30",  # the API from docstrings; the first that reads them by griffe 1.13
        ],
        "export": [
            "onnx>=1.18",  # metadata and defaults of ONNX files; the first with wheels for Python 3.13
            "onnxruntime>=1.23",  # the last with wheels for Python 3.10; deformable convolutions need 1.32
            "openvino>=2026.0",  # reads our ONNX graphs; older ones were not tried
        ],
        "ray": [
            "ray[data]>=2.60",  # actors of engine=ray; the release that it was written with
        ],
        "test": [
            "pytest>=8",  # strict markers and current assertion messages
            "pytest-xdist>=3.6",  # tests side by side on all processors; the first release after pytest 8
            "hypothesis>=6.100",  # property tests
            "trackeval>=1.3.0",  # the referee of tracks; the first kept release for numpy 2
            "pycocotools>=2.0.8",  # the referee of the evaluation; first release that works with numpy 2
            "rasterio>=1.4",  # the extra geo, whose files the tests read and write
            "pyogrio>=0.10",  # likewise
            "pyarrow>=17",  # likewise
            "shapely>=2.0",  # likewise
            "geopandas>=1.0",  # the referee of GeoParquet, and of results as frames; the first for numpy 2
            "pyproj>=3.6",  # the referee of lengths on the ground
            "onnx>=1.18",  # the extra export, whose files the tests write and run
            "onnxruntime>=1.23",  # likewise
            "openvino>=2026.0",  # likewise
            "ruff>=0.6",  # formatter and linter in one
            "mypy>=1.18",  # checks types in .ci/run and before commits
            "types-PyYAML>=6.0",  # PyYAML's types, for mypy
        ],
    },
)
