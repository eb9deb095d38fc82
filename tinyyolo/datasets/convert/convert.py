"""`tinyyolo data convert`: any readable format to another, whole or cut into tiles."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tinyyolo.config import UserError, suggest
from tinyyolo.datasets.annotations import Annotations, subset
from tinyyolo.datasets.audit.faults import tell_doubts
from tinyyolo.datasets.convert.tile import KEEP, check_arguments, cut_annotations, cut_scene
from tinyyolo.datasets.formats.doubts import REMARKS
from tinyyolo.datasets.formats.table import DEFAULT, FORMATS, JSON
from tinyyolo.datasets.kinds import tell_kinds
from tinyyolo.datasets.spec import DataSpec, load, write_yaml
from tinyyolo.io import bar, copy_file, counted, in_threads, name_fault, new_file, place_in, printable, sweep
from tinyyolo.scenes.rendering import AS_DECLARED, Rendering

WRITTEN = {name: layout.write for name, layout in FORMATS.items() if layout.write}
MODES = ("link", "copy")
MARKER = ".tinyyolo-convert.json"  # stands in the folder while a conversion is unfinished
DATA_YAML = "data.yaml"


def convert(
    data: str,
    *,
    to: str = "coco",
    out: str | Path = "",
    path: str | Path | None = None,
    split: str | None = None,
    tile: int | None = None,
    overlap: int = 200,
    keep: float | str = KEEP,
    images: str = "link",
    overwrite: bool = False,
    bands: int | Sequence[int] | None = None,
    stretch: Sequence[Any] | None = None,
) -> int:
    """Convert a data set to coco, yolo, visdrone, dota, voc, csv, geojson, gpkg or shp; tile=800 cuts large scenes.

    Writes OUT/images/SPLIT, the annotations, and OUT/data.yaml that this project and, for yolo, ultralytics read.
    Nothing is written outside OUT; an image whose name leads out of the split's image folder is left out and told, and
    images=copy copies no file that only a link brings into it, unless the YAML names its folder, as that of an earlier
    images=link does under `about: links:`.

    Args:
        data: a data YAML, by path or name.
        to: the format to write.
        out: an empty or new folder; an interrupted conversion with the same settings is taken up again.
        path: the root of the data, instead of the YAML's.
        split: only this one.
        tile: side of the tiles in px; None leaves images whole.
        overlap: px that neighbouring tiles share.
        keep: an object stays in a tile with this share of its area inside, or, for "centre", with its centre inside.
        images: link (symbolic) or copy the images; tiles are always new files.
        overwrite: replace an earlier conversion.
        bands: which bands of the scenes are red, green and blue in tiles, as [3,2,1]; the declared ones unless given.
        stretch: values or percentiles of a scene that become 0 and 255 in its tiles, as [0,4000].

    Raises:
        UserError: no such data, format or rule, bad annotations, or a folder that is in use.
    """
    if to not in WRITTEN:
        raise UserError(f"to={to}: unknown format; {suggest(to, WRITTEN)}")
    if images not in MODES:
        raise UserError(f"images={images}: {suggest(images, MODES)}")
    if not out:
        raise UserError("convert: give the folder to write to: out=FOLDER")
    if tile is not None:
        check_arguments(tile, overlap, keep)
    rendering = Rendering(bands, stretch).checked()
    if tile is None and rendering != AS_DECLARED:
        raise UserError(f"bands={bands} stretch={stretch}: for tile=; whole images stay the files that they are")
    spec = load(data, path)
    splits = [split] if split else list(spec.splits)
    faults = list[str]()
    read = {name: spec.measured(name) for name in splits}
    for found in read.values():
        tell_doubts(found)
    read = {name: writable(found, faults) for name, found in read.items()}
    settings: dict[str, Any] = {
        "data": str(spec.file),
        "to": to,
        "splits": splits,
        "tile": tile,
        "overlap": overlap,
        "keep": keep,
    }
    settings |= {key: value for key, value in (("bands", bands), ("stretch", stretch)) if value is not None}
    folder, counts = Path(out), dict[str, dict[str, int]]()
    with unfinished(folder, settings, overwrite=overwrite):
        for name, annotations in read.items():
            for place in ("images/{split}", FORMATS[to].labels):
                place_in(folder, f"{place.format(split=name)}/file")  # no link there leads elsewhere
            source, target, counts[name] = spec.image_dir(name), folder / "images" / name, {"images": len(annotations)}
            if tile is None:
                inside = [source, *map(Path, (spec.content.get("about") or {}).get("links") or [])]
                faults += place_images(source, target, annotations.file_names, images, inside)
            else:
                annotations, plan, counts[name] = cut_annotations(annotations, tile, overlap, keep, tile_name)
                tell_kinds(source, read[name].file_names, rendering)
                jobs = list(zip(read[name].file_names, plan, strict=True))
                for scene, tiles in bar(jobs, len(jobs), f"{name}: scenes"):
                    files = [(at, place_in(target, file)) for at, file in tiles]
                    cut_scene(source / scene, files, (tile, tile), rendering)
            labels = folder / FORMATS[to].labels.format(split=name)
            counts[name] |= WRITTEN[to](labels, annotations, images_dir=target, overwrite=True)
            counts[name]["faulty_left_out"] = sum(problem.kind not in REMARKS for problem in read[name].problems)
        linked = sorted({str(spec.image_dir(name)) for name in read}) if images == "link" and tile is None else []
        write_data_yaml(folder, spec, to, read, linked)
    print(in_words(folder, to, counts, faults))
    return 1 if faults else 0


def writable(annotations: Annotations, faults: list[str]) -> Annotations:
    """The annotations of the images whose names are a place in a folder; the others are added to `faults`."""
    wrong = {i: fault for i, name in enumerate(annotations.file_names) if (fault := name_fault(name))}
    faults += [f"image {annotations.file_names[i]!r}: {fault}" for i, fault in wrong.items()]
    kept = ~np.isin(np.arange(len(annotations)), list(wrong))
    return subset(annotations, images=kept) if wrong else annotations


@contextmanager
def unfinished(folder: Path, settings: dict[str, Any], *, overwrite: bool) -> Iterator[None]:
    """A folder with a marker in it while work goes on, so that the same work can be taken up after an interruption.

    Raises:
        UserError: the folder holds something else, or the unfinished work of other settings.
    """
    marker, text = folder / MARKER, json.dumps(settings, sort_keys=True)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file")
    if not overwrite and marker.exists() and marker.read_bytes() != text.encode():
        raise UserError(f"{folder}: holds an unfinished conversion with other settings; overwrite=true starts anew")
    if not overwrite and not marker.exists() and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; overwrite=true writes over what is there")
    with new_file(marker, overwrite=True) as stream:
        stream.write(text)
    sweep(folder, deep=True)
    yield
    marker.unlink()


def place_images(source: Path, target: Path, names: list[str], mode: str, inside: list[Path]) -> list[str]:
    """Link or copy images; what is there already stays. Returns those that are missing or not to be copied.

    Args:
        source: the folder of the images.
        target: the folder to write to.
        names: of the images.
        mode: "link" or "copy".
        inside: the folders that copied files may lie in, once links are followed.
    """
    roots = [folder.resolve() for folder in inside]

    def place(name: str) -> str:
        old, new = (source / name).absolute(), place_in(target, name)
        if not old.is_file():
            return f"{old}: no such image"
        if mode == "copy" and not any(old.resolve().is_relative_to(root) for root in roots):
            return f"{old}: a link that leads out of {source}: not copied"
        if not os.path.lexists(new):
            new.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(old, new) if mode == "link" else copy_file(old, new)
        return ""

    return list(filter(None, in_threads(place, names, f"{target.name}: images")))


def tile_name(scene: str, corner: tuple[int, int]) -> str:
    """The name of a tile, as AI-TOD's are.

    Examples:
        >>> tile_name("part1/P0003.png", (600, 0))
        'part1/P0003__600_0.png'
    """
    path = PurePosixPath(scene)
    return str(path.with_name(f"{path.stem}__{corner[0]}_{corner[1]}.png"))


def write_data_yaml(folder: Path, spec: DataSpec, to: str, read: dict[str, Annotations], linked: list[str]) -> None:
    """The data YAML of the converted set; `linked` are the folders that its links lead to."""
    layout = FORMATS[to]
    content: dict[str, Any] = {split: f"images/{split}" for split in read}
    if to != DEFAULT:
        content["annotations"] = {split: layout.labels.format(split=split) for split in read}
    ignored = [] if layout.regions is None else list(layout.regions or spec.ignore)
    content |= ({} if to in (JSON, DEFAULT) else {"format": to}) | {"names": spec.names, "ignore": ignored}
    content |= {"about": {"links": linked}} if linked else {}
    note = f"{spec.file.name}, converted by `tinyyolo data convert`."
    write_yaml(folder / DATA_YAML, content, note, overwrite=True)


def in_words(folder: Path, to: str, counts: dict[str, dict[str, int]], faults: list[str]) -> str:
    """What was written, and what the format could not hold."""
    lines = [f"{folder / DATA_YAML}"]
    for split, numbers in counts.items():
        lines.append(f"  {split}: {counted(numbers)}")
        lost = numbers["ignore_regions"] if FORMATS[to].regions is None else 0
        lines += [f"  {split}: {lost:,} ignore regions are left out, {to} has none"] if lost else []
    lines += [f"MISSING: {printable(fault)}" for fault in faults]
    return "\n".join(lines)
