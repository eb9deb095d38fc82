"""The reader of labels drawn on a map: one file for all images, or one for each of the image's name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinyyolo.boxes.convert import clip, sides
from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import (
    Annotations,
    Problem,
    as_names,
    assemble,
    box_faults,
    raise_fatal,
    select_classes,
    subset,
)
from tinyyolo.datasets.convert.tile import KEEP, staying
from tinyyolo.datasets.formats import doubts
from tinyyolo.datasets.formats.base import Format
from tinyyolo.datasets.formats.decode import NO_EXTRA
from tinyyolo.datasets.formats.gis.fields import Said, keys_of, names_in, said_by
from tinyyolo.datasets.formats.gis.scenes import Placed, Scene, placed, scene_of
from tinyyolo.datasets.formats.gis.write import write
from tinyyolo.datasets.formats.text import readable
from tinyyolo.io import in_threads
from tinyyolo.scenes.outlines import POLYGONS, Layer, named, read_layer, short

EDGE = 0.5  # px over the edge of an image that are no cut worth telling
MOST_TOLD = 3  # remarks of a kind; of more the first stands for all


def read(
    images_dir: str | Path,
    names: Sequence[str] | Mapping[int, str] | None = None,
    ignore: Sequence[str] = (),
    *,
    labels: str | Path | None = None,
    file_names: Sequence[str] | None = None,
    strict: bool = True,
    suffix: str = ".gpkg",
    layer: str = "",
    class_field: str = "",
) -> Annotations:
    """See `base.Reader`. An outline is an object, by its bounding box, in each image that has KEEP of its area.

    Without `names` the classes are the values of the attribute that names them. Ids are those of the features where
    none lies in two images.

    Args:
        images_dir: see `base.Reader`; so are the next five.
        names: see above.
        ignore: see above.
        labels: a file for all images, or a folder with one for each, NAME + `suffix`; None for beside the images.
        file_names: see above.
        strict: see above.
        suffix: of label files in a folder.
        layer: the name of the layer, for files that have several.
        class_field: the attribute that names the class; "" looks for it.
    """
    images_dir, problems, remarks = Path(images_dir), list[Problem](), list[Problem]()
    kept, size_hw = readable(images_dir, file_names, problems)
    scenes = in_threads(lambda i: scene_of(images_dir, kept[i], size_hw[i]), range(len(kept)), "places")
    source = images_dir if labels is None else Path(labels)
    every = [] if names is None else list(dict.fromkeys((*as_names(names).values(), *ignore)))
    own = [name for name in every if name not in ignore]
    parts, lost = [], set[int]()
    for one, among in layers(source, kept, suffix, layer, remarks):
        usable = with_outline(one, problems)
        said = said_by(one.path, one.fields, len(usable), every, class_field)
        where, without = placed(one, usable, scenes, among, said.images, remarks)
        lost |= {*without}
        where = kept_parts(one, usable, where, scenes, said, problems, remarks)
        parts.append(objects(one, said, where, own, problems, remarks))
    problems += [no_place(images_dir / kept[i], source) for i in sorted(lost)]
    found = joined(parts)
    every = every or names_in(found.classes)
    keys = keys_of(source, found.classes, every, problems, remarks)
    problems += [Problem("no class", found.where[i], "no class; left out") for i in np.flatnonzero(found.classes == "")]
    problems[:0] = summed(remarks)
    if strict:
        raise_fatal(problems)
    table = select_classes(dict(enumerate(every)), own or None, ignore, source)
    good = keys >= 0
    ids = found.ids[good]
    given = {"ids": ids} if len(np.unique(ids)) == len(ids) else {}
    columns = found.images[good], found.boxes[good], keys[good]
    extra = {name: values[good] for name, values in found.extra.items()}
    made = assemble(source, table, kept, size_hw, *columns, problems, crowd=found.crowd[good], extra=extra, **given)
    return subset(made, images=~np.isin(np.arange(len(kept)), [*lost])) if lost else made


class Found(NamedTuple):
    """Objects, K of them: image, box xyxy px, class, the feature's id, whether it is marked, other marks, its name."""

    images: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    ids: np.ndarray
    crowd: np.ndarray
    where: np.ndarray
    extra: dict[str, np.ndarray]


def layers(
    source: Path, names: Sequence[str], suffix: str, layer: str, remarks: list[Problem]
) -> Iterator[tuple[Layer, list[int]]]:
    """Each label file with the indices of the images that it is for.

    Raises:
        UserError: as `read_layer`; or a folder that holds none of the files.
    """
    if not source.is_dir():
        yield read_layer(source, layer), list(range(len(names)))
        return
    files = [source / Path(name).with_suffix(suffix) for name in names]
    absent = [path for path in files if not path.is_file()]
    if files and len(absent) == len(files):
        hint = "; a file for all images is named: annotations: {SPLIT: labels.gpkg}"
        raise UserError(f"{source}: no label file of an image's name, such as {absent[0].name}{hint}")
    if absent:
        what = f"{len(absent):,} of {len(files):,} images have no label file, such as {absent[0].name}"
        remarks.append(Problem("label without image", str(source), what))
    for i, path in enumerate(files):
        if path.is_file():
            yield read_layer(path, layer), [i]


def with_outline(layer: Layer, problems: list[Problem]) -> np.ndarray:
    """(N,) bool, which features have a polygon of numbers; the others are told."""
    empty, polygon = layer.kinds == "", np.isin(layer.kinds.astype(str), POLYGONS)
    odd = ~np.isfinite(layer.points).all(axis=1)
    numbers = np.bincount(layer.owners, odd, len(layer.ids)) == 0
    for i in np.flatnonzero(empty | ~polygon | ~numbers):
        where = f"{layer.path}: feature {layer.ids[i]}"
        if empty[i]:
            problems.append(Problem("no geometry", where, "no geometry that can be read; left out"))
        elif not polygon[i]:
            problems.append(Problem("not a polygon", where, f"a {layer.kinds[i]}, which bounds no object; left out"))
        else:
            problems.append(Problem("not a number", where, "a coordinate is not a number; left out"))
    return np.asarray(~empty & polygon & numbers)


def kept_parts(
    layer: Layer,
    usable: np.ndarray,
    where: Placed,
    scenes: Sequence[Scene],
    said: Said,
    problems: list[Problem],
    remarks: list[Problem],
) -> Placed:
    """What of the outlines is an object: not without an area, and KEEP of it in the image, where it is cut.

    What names its image is taken as it is. What is left out is told.
    """
    sizes = np.array([scene.size_hw for scene in scenes], np.int64).reshape(-1, 2)[where.images]
    faults = box_faults(where.boxes)
    for i in np.flatnonzero(faults != ""):
        name = f"{layer.path}: feature {layer.ids[where.rows[i]]} in {scenes[where.images[i]].name}"
        problems.append(Problem(str(faults[i]), name, f"{faults[i]}: {' '.join(f'{v:g}' for v in where.boxes[i])}"))
    solid = faults == ""
    inner = np.where(where.given[:, None], where.boxes, clip(where.boxes, sizes))
    touching = where.given | (sides(inner) > 0).all(axis=1)
    share = touching & (staying(where.boxes, (0, 0), sizes[:, ::-1], KEEP) | said.crowd[where.rows] | where.given)
    cut = solid & share & (abs(inner - where.boxes) > EDGE).any(axis=1)
    somewhere = np.zeros(len(usable), bool)
    somewhere[where.rows[touching | ~solid]] = True
    tell_parts(layer, usable, somewhere, scenes, int(cut.sum()), int((solid & touching & ~share).sum()), remarks)
    good = solid & share
    remarks += doubts.outlines(int((good & where.outlines).sum()), layer.path)
    return Placed(*(column[good] for column in (where.rows, where.images, inner, where.given, where.outlines)))


def tell_parts(
    layer: Layer,
    usable: np.ndarray,
    somewhere: np.ndarray,
    scenes: Sequence[Scene],
    cut: int,
    fragments: int,
    remarks: list[Problem],
) -> None:
    """Tell how many outlines are cut, how many parts of them are left out, and how many lie in no image."""
    path, count, away = str(layer.path), int(usable.sum()), int((usable & ~somewhere).sum())
    if cut:
        remarks.append(Problem("edges", path, f"{cut:,} objects reach over the edge of an image and are cut there"))
    if fragments:
        what = f"{fragments:,} parts at edges have less than {KEEP} of the area of their object: left out"
        remarks.append(Problem("edges", path, what))
    if away and away < count:
        remarks.append(Problem("elsewhere", path, f"{away:,} of {count:,} objects lie in none of the images"))
    elif away:
        remarks.append(
            Problem("nowhere", path, f"none of {count:,} objects lies in an image: {extents(layer, scenes)}")
        )


def extents(layer: Layer, scenes: Sequence[Scene]) -> str:
    """Where the labels lie and where the first image does, in words."""

    def words(box: np.ndarray, crs: str) -> str:
        x1, y1, x2, y2 = box
        return f"x {x1:g} to {x2:g}, y {y1:g} to {y2:g} ({short(crs)})"

    said = f"they reach over {words(np.concatenate([layer.points.min(0), layer.points.max(0)]), layer.crs)}"
    on_map = [scene for scene in scenes if scene.transform is not None]
    return f"{said}, {on_map[0].name} over {words(on_map[0].extent, on_map[0].crs)}" if on_map else said


def objects(
    layer: Layer, said: Said, where: Placed, own: Sequence[str], problems: list[Problem], remarks: list[Problem]
) -> Found:
    """Outlines in images with what their features say.

    Raises:
        UserError: no attribute names the class, and it could be one of several.
    """
    rows, classes = where.rows, said.classes
    if classes is None and len(rows):
        if len(own) != 1:
            what = f"which attribute names the class? class_field: NAME; Choices: {named(said.every)}"
            raise UserError(f"{layer.path}: {what}")
        remarks.append(Problem("class field", str(layer.path), f"no attribute names the class: all are {own[0]!r}"))
    if classes is None:
        classes = np.full(len(layer.ids), "".join(own[:1]), object)
    elif said.field not in ("class", "label", "name"):
        remarks.append(Problem("class field", str(layer.path), f"the class is taken from {said.field!r}"))
    if said.scores:
        what = "its objects have scores: predictions, taken as objects without them"
        remarks.append(Problem("scores", str(layer.path), what))
    remarks += [Problem("GDAL", str(layer.path), words) for words in layer.said]
    names = np.array([f"{layer.path}: feature {layer.ids[row]}" for row in rows], object)
    what = "iscrowd or ignore is neither set (true, 1) nor not (false, 0, null); taken as not set"
    problems += [Problem("bad mark", names[i], what) for i in np.flatnonzero(said.bad_marks[rows])]
    extra = {name: np.nan_to_num(values[rows], nan=NO_EXTRA) for name, values in said.extra.items()}
    ids = layer.ids if said.ids is None else said.ids
    return Found(where.images, where.boxes, classes[rows], ids[rows], said.crowd[rows], names, extra)


def joined(parts: Sequence[Found]) -> Found:
    """The objects of all label files."""
    none = np.zeros(0, np.int64)
    empty = Found(none, np.zeros((0, 4)), np.zeros(0, object), none, np.zeros(0, bool), np.zeros(0, object), {})
    parts = [empty, *parts]
    names = sorted({name for part in parts for name in part.extra})

    def column(name: str) -> np.ndarray:
        return np.concatenate([part.extra.get(name, np.full(len(part.images), NO_EXTRA)) for part in parts])

    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Found._fields[:-1]}
    return Found(**columns, extra={name: column(name) for name in names})


def no_place(image: Path, source: Path) -> Problem:
    """That an image cannot be found on the map."""
    what = f"it has no place on the map, and {source.name} is not in its pixels; left out"
    return Problem("no place", str(image), what)


def summed(remarks: Sequence[Problem]) -> list[Problem]:
    """Remarks, of many label files the first of each kind and how many there are."""
    kinds = Counter(remark.kind for remark in remarks)
    first = {remark.kind: remark for remark in reversed(remarks)}
    few = [remark for remark in remarks if kinds[remark.kind] <= MOST_TOLD]
    more = [first[kind] for kind, times in kinds.items() if times > MOST_TOLD]
    for one in more:
        what = f"{one.__getnewargs__()[2]} (and {kinds[one.kind] - 1:,} more such)"
        few.append(Problem(one.kind, one.where, what))
    return few


def layout(suffix: str, layer: str = "", class_field: str = "") -> Format:
    """The format of label files that end so.

    Args:
        suffix: with its dot.
        layer: the layer to read, "" for the only one.
        class_field: the attribute that names the class, "" to look for it.
    """
    reader = partial(read, suffix=suffix, layer=layer, class_field=class_field)
    return Format(reader, write, f"annotations/{{split}}{suffix}", regions=())
