"""A data YAML: where a set's images and annotations lie, its classes, and what it should hold."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import numpy as np
import yaml

from tinyyolo.config import ROOTS, UserError, find_yaml, path_of, suggest, with_base
from tinyyolo.datasets.annotations import Annotations, Problem, as_names, merged, raise_fatal, subset
from tinyyolo.datasets.formats.gis import read as gis
from tinyyolo.datasets.formats.table import DEFAULT, FORMATS, JSON, Format
from tinyyolo.datasets.formats.yolo import with_keypoints
from tinyyolo.datasets.images import SUFFIXES, nearest_folder
from tinyyolo.datasets.kinds import with_own_sizes
from tinyyolo.datasets.places import (
    EXPORTED,
    LIST,
    SPLITS,
    holds,
    listed_images,
    not_used,
    place,
    places_of,
    root_of,
    several,
)
from tinyyolo.io import LEADS_OUT, name_fault, new_file, tell

DATASETS_VARIABLE = "TINYYOLO_DATASETS"
MOST_CLASSES = 100_000  # that may go without names
MAPS = {".geojson": "geojson", ".gpkg": "gpkg", ".shp": "shp", ".fgb": "gpkg"}  # labels of a map -> the format's name
OTHERS = MAPS | {".csv": "csv"}  # and other files whose end says the format, unless the YAML does
NUMBERED = ("yolo", "visdrone", "xview", "vedai")  # formats whose labels do not name their classes
FILES = (".json", *OTHERS)  # annotations that are one file for all images; others lie in a folder
Text = str | int | float  # a number is a name too: `path: 2019`


class Whole(TypedDict):
    """What a whole download holds of one split."""

    images: int


class Counts(Whole, total=False):
    """And what it may be said to hold besides."""

    boxes: int
    classes: dict[str, int]


# Key -> the kind of its value, and what it should be in words.
KINDS: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(SPLITS, (Text | list[Text], "an image folder, an image, a txt list of images, or a list of these")),
    **dict.fromkeys(("path", "format", "base", "class_field"), (Text, "a text")),
    "layer": (Text | dict[str, Text], "a layer's name, or split: name"),
    "annotations": (dict[str, Text | None], "split: file.json or label folder"),
    "names": (list[Text] | dict[Text, Text], "a list or a mapping id: name"),
    "ignore": (list[Text], "a list of category names"),
    "expected": (dict[str, Counts], "split: {images: number, boxes: number, classes: {name: number}}"),
    "stands_for": (dict[str, Text], "a mapping split: official split"),
    "aliases": (dict[str, Text], "a mapping other name in the labels: name"),
    **dict.fromkeys(("toy", "about"), (dict[str, Any], "a mapping")),
    # These stand in ultralytics' YAMLs; nothing is downloaded.
    **dict.fromkeys(("nc", "channels"), (int, "a number")),
    "kpt_shape": (list[int], "a list of numbers"),
    "download": (Any, "anything"),
    **dict.fromkeys(EXPORTED, (Any, "anything")),
}
# What the keys do that are used; they stand in the site's reference.
MEANINGS = {
    "path": "root of the data, relative to the YAML, absolute or ~/...; the YAML's folder if left out",
    **dict.fromkeys(SPLITS, "where the split's images lie, relative to `path`"),
    "annotations": "split: one file of labels, or a folder of them; left out: YOLO txt in labels/ beside images/",
    "names": "class order; left out: the categories of a COCO JSON by id, the values of a map's class attribute",
    "ignore": "categories that are ignore regions, neither objects nor background",
    "format": "of label folders: " + ", ".join(sorted({*FORMATS} - {JSON})) + "; yolo if left out",
    "class_field": "labels of a map: the attribute that names the class",
    "layer": "labels of a map: the layer, where a file has several",
    "base": "another data YAML, whose keys are taken to start from",
    "expected": "what a whole download holds; `data check` compares",
    "stands_for": "the official split that a split of another name is, for `expected`",
    "aliases": "other name of a class in the labels: its name in `names`",
    "toy": "a drawn set instead of files: scene, size, images, seed, objects, side_px, fresh",
    "about": "where to ask for the data, under which licence, how to get them (`get:`)",
    "nc": "number of classes, which must be that of `names`",
    "channels": "of the images; 3",
    "kpt_shape": "key points behind each box of YOLO txt, which are left out",
}
# Words under these keys are text as they stand there: a class may be called no, 1e3 or 2024-01-01.
AS_TEXT = frozenset(KINDS) - {"expected", "toy", "nc", "channels", "kpt_shape"}


def title_of(file: Path) -> str:
    """The name of a data YAML in results: its own, or its folder's where it is just called data.yaml.

    Examples:
        >>> title_of(Path("toy.yaml")), title_of(Path("ships/data.yaml"))
        ('toy', 'ships')
    """
    return file.parent.name if file.stem == "data" else file.stem


@dataclass(frozen=True)
class Split:
    """Where one split lies: the `train:` of the YAML made absolute, and its label file or folder and its layer."""

    images: tuple[Path, ...]
    annotations: Path | None = None
    layer: str = ""

    @property
    def listed(self) -> bool:
        """Whether its images are those of lists, of several places, or one image alone."""
        return len(self.images) > 1 or self.images[0].suffix.lower() in (LIST, *SUFFIXES)


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
        seen: the places whose pictures were measured.
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
    seen: set[Split] = field(default_factory=set, repr=False, compare=False)

    @property
    def title(self) -> str:
        """A name for files about this set, see `title_of`."""
        return title_of(self.file)

    def fresh(self, split: str) -> bool:
        """Whether the split's pictures are drawn as they are asked for, and are no files."""
        return split == "train" and bool((self.content.get("toy") or {}).get("fresh"))

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
            UserError: no such split, folder or image.
        """
        place = self.split(split)
        folder = self.folder_of(place)
        image = place.images[0]
        if place.listed and len(place.images) == 1 and image.suffix != LIST and not image.exists():
            raise UserError(f"{self.file}: {split}: no such image: {image}")
        if not folder.is_dir():
            raise UserError(f"{self.file}: {split}: no such image folder: {folder}{nearest_folder(folder)}")
        return folder

    def folder_of(self, place: Split) -> Path:
        """As `image_dir`, whether or not it is there."""
        if not place.listed:
            return place.images[0]
        return place.images[0].parent if len(place.images) == 1 and place.images[0].suffix != LIST else self.path

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
            if place.annotations is not None and place.annotations.suffix == ".json":
                layout, folder, listed = FORMATS[JSON], self.path, None
            else:
                layout, folder = self.layout_of(place), self.image_dir(split)
                listed = listed_images(self.file, place.images, folder) if place.listed else None
            names = as_names(self.content["names"]) if self.content.get("names") else self.names or None
            others = {str(other): str(name) for other, name in (self.content.get("aliases") or {}).items()}
            if others and layout in [FORMATS[name] for name in NUMBERED]:
                raise UserError(f"{self.file}: aliases: labels of {self.format} number their classes, and name none")
            regions = (*self.ignore, *(other for other, name in others.items() if name in self.ignore))
            every = [*names.values(), *others] if names and others else names
            found = layout.read(folder, every, regions, labels=place.annotations, file_names=listed, strict=False)
            self.parsed[place] = self.within(split, merged(found, others) if others else found)
        if strict:
            raise_fatal(self.parsed[place].problems)
        return self.parsed[place]

    def layout_of(self, place: Split) -> Format:
        """The format of labels that are no COCO JSON: the YAML's `format:`, else by the end of the file's name."""
        kind = OTHERS.get(place.annotations.suffix.lower(), "") if place.annotations is not None else ""
        name = self.format if self.content.get("format") or not kind else kind
        if (
            not kind
            and not self.content.get("format")
            and place.annotations is not None
            and place.annotations.is_file()
        ):
            what = suggest(place.annotations.suffix, FILES)
            raise UserError(f"{place.annotations}: not a file of labels by its name (a folder would be YOLO's); {what}")
        if name in MAPS.values():
            return gis.layout(f".{name}", place.layer, str(self.content.get("class_field") or ""))
        points = self.content.get("kpt_shape") if name == DEFAULT else None
        return with_keypoints(points) if points else FORMATS[name]

    def measured(self, split: str) -> Annotations:
        """As `read`, with the sizes of the pictures themselves where a JSON says others: boxes are pixels of them.

        Raises:
            UserError: as `read`.
        """
        notes, place = self.read(split), self.split(split)
        folder = place.images[0]
        if (
            place.annotations is None
            or place.annotations.suffix != ".json"
            or place in self.seen
            or not folder.is_dir()
            or self.fresh(split)
        ):
            return notes
        self.seen.add(place)
        self.parsed[place] = with_own_sizes(notes, folder)
        return self.parsed[place]

    def within(self, split: str, found: Annotations) -> Annotations:
        """Annotations without the images that may not be read, which become problems.

        An image lies in the data's root (`path:`) or in a folder that the YAML names for a split, or is not read. As
        some tools write them, a COCO `file_name` may be absolute or hold `..` and lead there all the same: it is then
        made relative to the split's image folder. Links in these folders are followed.
        """
        faults = {i: fault for i, name in enumerate(found.file_names) if (fault := name_fault(name))}
        if not faults:
            return found
        names, folder = list(found.file_names), os.path.realpath(self.image_dir(split))
        named = [self.path, *(p for place in self.splits.values() for p in place.images if p.suffix != LIST)]
        roots, kept, problems = [os.path.realpath(root) for root in named], np.ones(len(names), bool), []
        for i, fault in faults.items():
            place = os.path.normpath(os.path.join(folder, names[i]))
            relative = os.path.relpath(place, folder)
            if fault == LEADS_OUT and any(Path(place).is_relative_to(root) for root in roots):
                names[i] = Path(relative).as_posix()
            else:
                what = f"it is in no folder that {self.file.name} names" if fault == LEADS_OUT else fault
                problems.append(Problem("image name", f"{found.path}: image {names[i]!r}", f"{what}; left out"))
                kept[i] = False
        found = replace(found, file_names=names)
        return replace(subset(found, images=kept), problems=[*found.problems, *problems])

    def must_exist(self, splits: Iterable[str] | None = None) -> None:
        """Look whether the folders and files of some splits (None: of all) are there, before anything is built.

        Raises:
            UserError: no such split, or something is not there; says how to get the data.
        """
        if not self.path.is_dir():
            raise UserError(self.absent())
        for split in self.splits if splits is None else splits:
            place = self.split(split)
            kinds = {LIST: "list of images", **dict.fromkeys(SUFFIXES, "image")}
            needed = {path: kinds.get(path.suffix.lower(), "image folder") for path in place.images}
            if place.annotations is not None:
                needed[place.annotations] = "annotation file" if place.annotations.suffix in FILES else "label folder"
            for path, what in needed.items():
                if not path.exists():
                    where = f"{path}{nearest_folder(path)}{self.source()}"
                    raise UserError(f"{self.file}: {split}: no such {what}: {where}")

    def absent(self) -> str:
        """That the data are not there and how to get them, in one line."""
        where = f"set `path:`, or ${DATASETS_VARIABLE}, the folder of the shipped sets"
        here = holds(self.file.parent, places_of(self.content))
        near = "; there are such data beside the YAML, which is their root if `path:` is left out" if here else ""
        return f"{self.file}: the data are not in {self.path}; {where}{near}{self.source()}"

    def source(self) -> str:
        """'; ask: ...; licence: ...; get it: ...' as the YAML's `about:` says; '' where it does not."""
        about = self.content.get("about") or {}
        parts = {key: about.get(key) for key in ("ask", "licence")}
        parts["get it"] = ", ".join(f"({i}) {step}" for i, step in enumerate(about.get("get") or [], 1))
        return "".join(f"; {key}: {words}" for key, words in parts.items() if words)


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
    content = with_base(file, "data", as_text=AS_TEXT)
    for key, value in content.items():
        if key not in KINDS:
            raise UserError(f"{file}: unknown key {key!r}; {suggest(key, KINDS.keys() - {*EXPORTED})}")
        check(file, key, value, *KINDS[key])
    check(file, "about.get", (content.get("about") or {}).get("get"), list[Text], "a list of texts")
    not_used(file, content)
    if content.get("toy") is not None:
        from tinyyolo.datasets.drawn import toy

        content |= {"train": "images", "val": "images", "annotations": {"train": "train.json", "val": "val.json"}}
        path = toy.ensure(content["toy"]) if path is None else path
    if path is None:
        shipped = file.parent in [root / "data" for root in ROOTS]
        sets = path_of(os.environ.get(DATASETS_VARIABLE) or "datasets", f"${DATASETS_VARIABLE}: ")
        base = sets if shipped else file.parent
        path = root_of(file, base, str(content.get("path") or "."), sets, places_of(content))
    root = path_of(path, f"{file}: path: ").resolve()
    layout = str(content.get("format") or DEFAULT)
    if layout not in FORMATS:
        raise UserError(f"{file}: format: {layout!r} unknown; {suggest(layout, FORMATS)} (a .json needs none)")
    ignore = tuple(map(str, content.get("ignore") or []))
    known: dict[str, Any] = {key: content.get(key) or {} for key in ("expected", "stands_for")}
    splits = find_splits(file, root, content)
    spec = DataSpec(file, root, {}, ignore, splits, **known, format=layout, content=content)
    return replace(spec, names=find_names(spec))


def check(file: Path, key: str, value: Any, kind: Any, words: str) -> None:
    """Look whether a value is of the right kind; null is, for every key."""
    try:
        msgspec.convert(value, kind | None)
    except msgspec.ValidationError as error:
        raise UserError(f"{file}: {key}: expected {words}, found {value!r}") from error


def find_splits(file: Path, root: Path, content: Mapping[str, Any]) -> dict[str, Split]:
    """Every split of the YAML; the folders need not exist yet."""
    jsons, images = content.get("annotations") or {}, {s: content[s] for s in SPLITS if content.get(s)}
    for split in jsons:
        if split not in images:
            raise UserError(f"{file}: annotations.{split}: no images for it; {suggest(split, images)}")
    if not images:
        raise UserError(f"{file}: no split; give at least one of {', '.join(SPLITS)}: image folder")

    inside = "roboflow" in content

    def places(given: Any) -> tuple[Path, ...]:
        return tuple(place(file, root, one, inside=inside) for one in several(given))

    layer = content.get("layer") or ""
    layers = layer if isinstance(layer, dict) else dict.fromkeys(images, layer)
    for split in layers:
        if split not in images:
            raise UserError(f"{file}: layer.{split}: no images for it; {suggest(split, images)}")
    found = {
        s: Split(places(images[s]), next(iter(places(jsons.get(s) or [])), None), str(layers.get(s, "")))
        for s in images
    }
    there = [split for split, its in found.items() if any(map(os.path.exists, its.images))]
    if there and "test" in found and "test" not in (*there, *jsons):  # exporters name it whether or not there is one
        tell(f"{file}: test: left out, as there is no {found.pop('test').images[0]}")
    return found


def find_names(spec: DataSpec) -> dict[int, str]:
    """Class index -> name without the ignored ones, from the YAML or else from the first JSON's categories.

    Raises:
        UserError: neither has names, or they are not numbered from 0, stand twice, or are not `nc`.
    """
    file, given, others = spec.file, spec.content.get("names"), spec.content.get("aliases") or {}
    if others and not given:
        raise UserError(f"{file}: aliases: give `names:`, the classes that they are other names of")
    if given:
        try:
            every = as_names(given)
        except ValueError as error:
            raise UserError(f"{file}: names: {error}") from error
        if spec.content.get("nc") not in (None, len(every)):
            raise UserError(f"{file}: nc: {spec.content['nc']}, but there are {len(every)} names")
        classes = [name for name in every.values() if name not in spec.ignore]
        for other, name in others.items():
            if name not in (known := [*classes, *spec.ignore]) or other in known:
                raise UserError(f"{file}: aliases: {other}: {name}: expected another name of one of {', '.join(known)}")
        return dict(enumerate(classes))
    if 0 < (count := spec.content.get("nc") or 0) <= MOST_CLASSES and all(
        split.annotations is None for split in spec.splits.values()
    ):
        tell(f"{file}: no names: the {count} classes are called class_0 and so on")
        return {i: f"class_{i}" for i in range(count)}
    of_map = spec.format in MAPS.values()
    if not of_map and any(s.annotations is None or s.annotations.suffix not in FILES for s in spec.splits.values()):
        raise UserError(f"{file}: no names: give `names:` (only a COCO JSON, a CSV and labels of a map carry them)")
    return spec.read(next(iter(spec.splits)), strict=False).names


def write_yaml(file: Path, content: Mapping[str, Any], note: str, *, overwrite: bool) -> None:
    """Write a data YAML, without empty keys, under a line of comment.

    Raises:
        UserError: the file exists and `overwrite` is not set.
    """
    with new_file(file, overwrite=overwrite) as stream:
        stream.write(f"# {note}\n")
        yaml.safe_dump({key: value for key, value in content.items() if value}, stream, sort_keys=False)
