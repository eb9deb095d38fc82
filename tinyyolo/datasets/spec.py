"""A data YAML: where a set's images and annotations lie, its classes, and what it should hold."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyyolo.config import ROOTS, UserError, find_yaml, load_yaml, merge, suggest
from tinyyolo.datasets.annotations import Annotations, as_names
from tinyyolo.datasets.formats import coco as coco_json
from tinyyolo.datasets.formats import dota, visdrone, xview
from tinyyolo.datasets.formats import yolo as yolo_txt
from tinyyolo.datasets.images import list_images, nearest_folder

SPLITS = ("train", "val", "test", "trainval")
OWN_KEYS = ("path", "annotations", "format", "names", "ignore", "toy", "base", "expected", "stands_for", "about")
YOLO_KEYS = ("nc", "channels", "download")  # stand in ultralytics' YAMLs; nothing is downloaded
KEYS = frozenset({*SPLITS, *OWN_KEYS, *YOLO_KEYS})
DATASETS_VARIABLE = "TINYYOLO_DATASETS"
FORMATS = {"yolo": yolo_txt.read, "visdrone": visdrone.read, "dota": dota.read, "xview": xview.read}


@dataclass(frozen=True)
class Split:
    """Where one split lies: the `train:` of the YAML made absolute, and its JSON or label folder if it names one."""

    images: tuple[Path, ...]
    annotations: Path | None = None


@dataclass(frozen=True)
class DataSpec:
    """A data YAML in memory.

    Attributes:
        file: the YAML.
        path: the root that `train:` and the others are relative to.
        names: class index -> name, without the ignored ones.
        ignore: names of categories that are ignore regions.
        splits: split name -> where it lies, in the YAML's order.
        expected: official split -> {images, boxes, classes: {name: boxes}}, what a whole download holds; {} if unknown.
        stands_for: split -> the official split that it is, where the names differ.
        format: of label folders: "yolo", "visdrone", "dota" or "xview".
        content: the YAML as read.
    """

    file: Path
    path: Path
    names: dict[int, str]
    ignore: tuple[str, ...]
    splits: dict[str, Split]
    expected: dict[str, Any] = field(default_factory=dict)
    stands_for: dict[str, str] = field(default_factory=dict)
    format: str = "yolo"
    content: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        """A name for files about this set: the YAML's, or its folder's where the YAML is just called data.yaml."""
        return self.file.parent.name if self.file.stem == "data" else self.file.stem

    def split(self, name: str) -> Split:
        """Where a split lies.

        Raises:
            UserError: the YAML has no such split; names those there are.
        """
        if name not in self.splits:
            raise UserError(f"{self.file}: no split {name!r}; {suggest(name, self.splits)}")
        return self.splits[name]

    def image_dir(self, split: str) -> Path:
        """The folder that the split's file names are relative to.

        Raises:
            UserError: no such split or folder.
        """
        images = self.split(split).images
        folder = images[0] if len(images) == 1 and images[0].suffix != ".txt" else self.path
        if not folder.is_dir():
            raise UserError(f"{self.file}: {split}: no such image folder: {folder}{nearest_folder(folder)}")
        return folder

    def image_path(self, split: str, file_name: str) -> Path:
        """The absolute path of one image of a split."""
        return self.image_dir(split) / file_name

    def read(self, split: str, *, strict: bool = True) -> Annotations:
        """The split's annotations, from its COCO JSON if it names one, else from text labels of the YAML's `format:`.

        Args:
            split: "train", "val", ...
            strict: stop at a fault that would make the numbers wrong, else list it in `.problems`.

        Raises:
            UserError: no such split, file or folder; with `strict` also a fault in the annotations.
        """
        place = self.split(split)
        if not self.path.is_dir():
            raise UserError(f"{self.file}: the data are not in {self.path}; set `path:` or ${DATASETS_VARIABLE}")
        if place.annotations is not None and place.annotations.suffix == ".json":
            return coco_json.read(place.annotations, self.names, self.ignore, strict=strict)
        folder = self.image_dir(split)
        names = None if [folder] == list(place.images) else listed_images(self.file, place.images, folder)
        every = as_names(self.content["names"]) if self.format == "yolo" else self.names
        where = {"labels_dir": place.annotations, "file_names": names, "strict": strict}
        return FORMATS[self.format](folder, every, self.ignore, **where)


def load(name: str | Path | DataSpec, path: str | Path | None = None) -> DataSpec:
    """Load a data YAML by its path, or by its name in data/ ("AI-TOD-v2.yaml", "toy").

    Nothing but the YAML is read, unless `names:` is missing (then the first JSON) or `toy:` asks for a drawn set.

    Args:
        name: the YAML; a DataSpec is returned as it is.
        path: the root of the data, instead of the YAML's `path:`.

    Raises:
        UserError: no such YAML, a key it cannot have, no split, or no names to be found.
    """
    if isinstance(name, DataSpec):
        return name
    file = find_yaml(name, "data")
    content = with_base(file)
    for key in content:
        if key not in KEYS:
            raise UserError(f"{file}: unknown key {key!r}; {suggest(key, KEYS)}")
    root = Path(path).expanduser().resolve() if path is not None else find_root(file, content)
    splits = find_splits(file, root, content)
    ignore = content.get("ignore") or []
    if not isinstance(ignore, list):
        raise UserError(f"{file}: ignore: expected a list of category names, found {ignore!r}")
    ignore = tuple(map(str, ignore))
    layout = str(content.get("format") or "yolo")
    if layout not in FORMATS:
        raise UserError(f"{file}: format: {layout!r} unknown; {suggest(layout, FORMATS)} (a .json needs none)")
    names = find_names(file, content, ignore, splits)
    known = {key: content.get(key) or {} for key in ("expected", "stands_for")}
    return DataSpec(file, root, names, ignore, splits, **known, format=layout, content=content)


def with_base(file: Path) -> dict[str, Any]:
    """The YAML on top of the one that its `base:` names, a file beside it or a name in data/."""
    content = load_yaml(file)
    base = content.get("base")
    if not base:
        return content
    beside = file.parent / str(base)
    return merge(with_base(beside if beside.is_file() else find_yaml(base, "data")), content)


def find_root(file: Path, content: Mapping[str, Any]) -> Path:
    """`path:` made absolute, `~` allowed. A drawn set: where it was drawn. Relative: to the YAML's folder, or, of a
    YAML that came with the package, to the folder in $TINYYOLO_DATASETS, else ./datasets."""
    if content.get("toy") is not None:
        from tinyyolo.datasets.drawn import toy

        return toy.ensure(content["toy"])
    given = Path(str(content.get("path") or ".")).expanduser()
    shipped = file.parent in [root / "data" for root in ROOTS]
    base = Path(os.environ.get(DATASETS_VARIABLE) or "datasets").expanduser() if shipped else file.parent
    return (base / given).resolve()


def find_splits(file: Path, root: Path, content: Mapping[str, Any]) -> dict[str, Split]:
    """Every split of the YAML; the folders need not exist yet."""
    jsons = content.get("annotations") or {}
    if not isinstance(jsons, dict):
        raise UserError(f"{file}: annotations: expected split: file.json, found {jsons!r}")
    if content.get("toy") is not None:
        images, jsons = {s: "images" for s in ("train", "val")}, {"train": "train.json", "val": "val.json"}
    else:
        images = {s: content[s] for s in SPLITS if content.get(s)}
    for split in jsons:
        if split not in images:
            raise UserError(f"{file}: annotations.{split}: no images for it; {suggest(split, images)}")
    if not images:
        raise UserError(f"{file}: no split; give at least one of {', '.join(SPLITS)}: image folder")
    out = {}
    for split, given in images.items():
        places = given if isinstance(given, list) else [given]
        folders = tuple(root / Path(str(place)).expanduser() for place in places)
        found = root / Path(str(jsons[split])).expanduser() if jsons.get(split) else None
        out[split] = Split(folders, found)
    return out


def find_names(
    file: Path, content: Mapping[str, Any], ignore: tuple[str, ...], splits: Mapping[str, Split]
) -> dict[int, str]:
    """Class index -> name without the ignored ones, from the YAML or else from the first JSON's categories."""
    given = content.get("names")
    if given:
        if not isinstance(given, (list, dict)):
            raise UserError(f"{file}: names: expected a list or a mapping id: name, found {given!r}")
        try:
            every = as_names(given)
        except (ValueError, TypeError) as error:
            raise UserError(f"{file}: names: {error}") from error
        if "nc" in content and content["nc"] != len(every):
            raise UserError(f"{file}: nc: {content['nc']}, but there are {len(every)} names")
        return dict(enumerate(name for name in every.values() if name not in ignore))
    given = [split.annotations for split in splits.values()]
    jsons = [path for path in given if path is not None and path.suffix == ".json"]
    if len(jsons) < len(splits):
        raise UserError(f"{file}: no names: give `names:` (only a COCO JSON carries them)")
    return coco_json.read(jsons[0], None, ignore, strict=False).names


def listed_images(file: Path, places: tuple[Path, ...], root: Path) -> list[str]:
    """Images of several folders or of txt lists, relative to the root, each once.

    Raises:
        UserError: a list or folder is missing, or an image lies outside the root.
    """
    found: list[Path] = []
    for place in places:
        if place.suffix != ".txt":
            found += [place / name for name in list_images(place)]
            continue
        try:
            lines = [line.strip() for line in place.read_text(encoding="utf-8").split("\n")]
        except OSError as error:
            raise UserError(f"{file}: no such list of images: {place}") from error
        found += [(place.parent if line.startswith("./") else root) / line for line in lines if line]
    try:
        return list(dict.fromkeys(path.relative_to(root).as_posix() for path in found))
    except ValueError as error:
        raise UserError(f"{file}: {error}; set `path:` to a folder that holds every image") from error
