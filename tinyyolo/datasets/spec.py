"""A data YAML: where a set's images and annotations lie, its classes, and what it should hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tinyyolo.config import ROOTS, UserError, find_yaml, load_yaml, merge, suggest
from tinyyolo.datasets.annotations import Annotations, as_names, raise_fatal
from tinyyolo.datasets.formats.table import DEFAULT, FORMATS, JSON
from tinyyolo.datasets.images import list_images, nearest_folder

SPLITS = ("train", "val", "test", "trainval")
DATASETS_VARIABLE = "TINYYOLO_DATASETS"
FILES = (".json", ".geojson")  # annotations that are one file for all images; others lie in a folder


def is_text(value: object) -> bool:
    """A text or a number, which is a name too: `path: 2019`."""
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def are_texts(value: object) -> bool:
    """A list of texts."""
    return isinstance(value, list) and all(map(is_text, value))


def is_table(value: object) -> bool:
    """A mapping."""
    return isinstance(value, dict)


def are_counts(value: object) -> bool:
    """What a whole download holds: a mapping with `images` for every split."""
    return isinstance(value, dict) and all(isinstance(row, dict) and "images" in row for row in value.values())


# Key -> whether its value is of the right kind, and what it should be.
KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        SPLITS, (lambda v: is_text(v) or are_texts(v), "an image folder, a txt list of images, or a list of these")
    ),
    **dict.fromkeys(("path", "format", "base"), (is_text, "a text")),
    "annotations": (
        lambda v: is_table(v) and all(p is None or is_text(p) for p in v.values()),
        "split: file.json or label folder",
    ),
    "names": (lambda v: are_texts(v) or (is_table(v) and are_texts([*v, *v.values()])), "a list or a mapping id: name"),
    "ignore": (are_texts, "a list of category names"),
    "expected": (are_counts, "split: {images: number, boxes: number, classes: {name: number}}"),
    **dict.fromkeys(("toy", "stands_for", "about"), (is_table, "a mapping")),
    # These stand in ultralytics' YAMLs; nothing is downloaded.
    **dict.fromkeys(("nc", "channels"), (lambda v: isinstance(v, int), "a number")),
    "download": (lambda v: True, "anything"),
}


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
        format: of label folders, a name in FORMATS.
        content: the YAML as read.
        parsed: what `read` has read: a split's place -> its annotations.
    """

    file: Path
    path: Path
    names: dict[int, str]
    ignore: tuple[str, ...]
    splits: dict[str, Split]
    expected: dict[str, Any] = field(default_factory=dict)
    stands_for: dict[str, str] = field(default_factory=dict)
    format: str = DEFAULT
    content: dict[str, Any] = field(default_factory=dict, repr=False)
    parsed: dict[Split, Annotations] = field(default_factory=dict, repr=False, compare=False)

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

        They are parsed once: again, and for another split that lies in the same place, the same object is returned.

        Args:
            split: "train", "val", ...
            strict: stop at a fault that would make the numbers wrong, else list it in `.problems`.

        Raises:
            UserError: no such split, file or folder; with `strict` also a fault in the annotations.
        """
        place = self.split(split)
        if place not in self.parsed:
            if not self.path.is_dir():
                raise UserError(self.absent())
            self.parsed[place] = self.parse(split)
        if strict:
            raise_fatal(self.parsed[place].problems)
        return self.parsed[place]

    def parse(self, split: str) -> Annotations:
        """`read`, without memory and with every fault in `.problems`.

        Raises:
            UserError: no such split, file or folder.
        """
        place = self.split(split)
        if place.annotations is not None and place.annotations.suffix == ".json":
            layout, folder, listed = FORMATS[JSON], self.path, None
        else:
            layout, folder = FORMATS[self.format], self.image_dir(split)
            listed = None if [folder] == list(place.images) else listed_images(self.file, place.images, folder)
        names = as_names(self.content["names"]) if self.content.get("names") else self.names or None
        return layout.read(folder, names, self.ignore, labels=place.annotations, file_names=listed, strict=False)

    def must_exist(self, splits: Iterable[str] | None = None) -> None:
        """Look whether the folders and files of some splits (None: of all) are there, before anything is built.

        Raises:
            UserError: no such split, or something is not there; says how to get the data.
        """
        if not self.path.is_dir():
            raise UserError(self.absent())
        for split in self.splits if splits is None else splits:
            place = self.split(split)
            needed = [(path, "list of images" if path.suffix == ".txt" else "image folder") for path in place.images]
            if place.annotations is not None:
                is_file = place.annotations.suffix in FILES
                needed.append((place.annotations, "annotation file" if is_file else "label folder"))
            for path, what in needed:
                if not path.exists():
                    raise UserError(
                        f"{self.file}: {split}: no such {what}: {path}{nearest_folder(path)}{self.source()}"
                    )

    def absent(self) -> str:
        """That the data are not there and how to get them, in one line."""
        where = f"set `path:`, or ${DATASETS_VARIABLE}, the folder of the shipped sets"
        return f"{self.file}: the data are not in {self.path}; {where}{self.source()}"

    def source(self) -> str:
        """'; ask: ...; licence: ...; get it: ...' as the YAML's `about:` says; '' where it does not."""
        about = self.content.get("about") or {}
        parts = [f"{key}: {about[key]}" for key in ("ask", "licence") if about.get(key)]
        steps = about.get("get") or []
        parts += ["get it: " + ", ".join(f"({i}) {step}" for i, step in enumerate(steps, 1))] if steps else []
        return "".join(f"; {part}" for part in parts)


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
    check(file, content)
    root = Path(path).expanduser().resolve() if path is not None else find_root(file, content)
    splits = find_splits(file, root, content)
    ignore = tuple(map(str, content.get("ignore") or []))
    layout = str(content.get("format") or DEFAULT)
    if layout not in FORMATS:
        raise UserError(f"{file}: format: {layout!r} unknown; {suggest(layout, FORMATS)} (a .json needs none)")
    known = {key: content.get(key) or {} for key in ("expected", "stands_for")}
    spec = DataSpec(file, root, {}, ignore, splits, **known, format=layout, content=content)
    return replace(spec, names=find_names(spec))


def check(file: Path, content: Mapping[str, Any]) -> None:
    """Keys and the kinds of their values.

    Raises:
        UserError: an unknown key, or a value of a wrong kind.
    """
    for key, value in content.items():
        if key not in KINDS:
            raise UserError(f"{file}: unknown key {key!r}; {suggest(key, KINDS)}")
        is_right, words = KINDS[key]
        if value is not None and not is_right(value):
            raise UserError(f"{file}: {key}: expected {words}, found {value!r}")
    steps = (content.get("about") or {}).get("get")
    if steps is not None and not are_texts(steps):
        raise UserError(f"{file}: about.get: expected a list of texts, found {steps!r}")


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


def find_names(spec: DataSpec) -> dict[int, str]:
    """Class index -> name without the ignored ones, from the YAML or else from the first JSON's categories.

    Raises:
        UserError: neither has names, or they are not numbered from 0, stand twice, or are not `nc`.
    """
    file, given = spec.file, spec.content.get("names")
    if given:
        try:
            every = as_names(given)
        except ValueError as error:
            raise UserError(f"{file}: names: {error}") from error
        if spec.content.get("nc") not in (None, len(every)):
            raise UserError(f"{file}: nc: {spec.content['nc']}, but there are {len(every)} names")
        return dict(enumerate(name for name in every.values() if name not in spec.ignore))
    places = [split.annotations for split in spec.splits.values()]
    if any(path is None or path.suffix != ".json" for path in places):
        raise UserError(f"{file}: no names: give `names:` (only a COCO JSON carries them)")
    return spec.read(next(iter(spec.splits)), strict=False).names


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
