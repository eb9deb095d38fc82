"""`tinyyolo data build-aitod`: AI-TOD's images from xView's scenes and the authors' part, as the JSONs name them."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tinyyolo.config import UserError
from tinyyolo.datasets import images
from tinyyolo.datasets.convert.tile import Tile, cut_image
from tinyyolo.datasets.formats import coco as coco_json
from tinyyolo.datasets.images import list_images
from tinyyolo.io import bar, copy_file, counted, in_threads, place_in, some, write_json

# The names of AI-TOD's tiles: scene, x and y of the corner in pixels.
TILE_NAME = re.compile(r"(?P<scene>.+)__(?P<x>\d+)_(?P<y>\d+)\.\w+")
SCENES = (".tif", ".tiff")
# What a JSON's name may call its split; the first that fits counts.
SPLITS = {"trainval": "trainval", "training": "train", "train": "train"}
SPLITS |= {"validation": "val", "val": "val", "test": "test"}
SHOWN = 5


class Plan(NamedTuple):
    """What has to be made, and from what."""

    sizes: dict[tuple[str, str], tuple[int, int]]  # (split, image name) -> (height, width) that the annotations say
    jsons: list[Path]  # the annotation files
    parts: dict[str, Path]  # image name -> file in the authors' part
    scenes: dict[str, Path]  # scene -> its TIFF


def build_aitod(
    *,
    xview: str = "",
    aitod: str = "",
    out: str = "",
    annotations: str | None = None,
    swap_colours: bool = False,
    overwrite: bool = False,
    runs: str = "runs/data-build-aitod",
) -> int:
    """Build the images of AI-TOD and AI-TOD-v2 from xView's training scenes and the authors' part.

    Every image that the annotation files name is made: taken from the authors' part, or cut from its scene
    (<scene>__<x>_<y>.png, black beyond the edge). Nothing else is. Images that are there already are left as they are,
    so an interrupted build is taken up where it was.

    Args:
        xview: folder that holds xView's training scenes (NUMBER.tif), at any depth.
        aitod: folder of the authors' part: annotations/*.json (or *.json) and images at any depth.
        out: folder to write images/SPLIT and annotations to.
        annotations: folder of the JSONs, if it is another one.
        swap_colours: swap red and blue in the tiles, as the authors' script does by accident (it reads RGB and writes
            the same array as BGR); for images equal to theirs to the bit.
        overwrite: make images anew that are there already.
        runs: folder of the JSON report with every fault, NAME OF OUT.json.

    Returns:
        0 if every image is there in the size the annotations say, else 1.

    Raises:
        UserError: a folder is missing, or holds no annotations or scenes.
    """
    for key, value in {"xview": xview, "aitod": aitod, "out": out}.items():
        if not value:
            raise UserError(f"build-aitod: give {key}=FOLDER (xview, aitod and out are needed)")
    beside = Path(aitod) / "annotations"
    plan = make_plan(Path(xview), Path(aitod), Path(annotations or (beside if beside.is_dir() else aitod)))
    counts, faults = build(plan, Path(out), swap_colours=swap_colours, overwrite=overwrite)
    faults += verify(plan, Path(out))
    report = Path(runs) / f"{Path(out).absolute().name}.json"
    write_json(report, {"out": str(out), "counts": counts, "faults": faults})
    print(in_words(Path(out), plan, counts, faults))
    print(f"report: {report}")
    return 1 if faults else 0


def make_plan(xview: Path, aitod: Path, annotations: Path) -> Plan:
    """Read the annotations and find the sources.

    Raises:
        UserError: no such folder, no JSON, or a JSON whose name says no split.
    """
    for key, folder in (("xview", xview), ("aitod", aitod), ("annotations", annotations)):
        if not folder.is_dir():
            raise UserError(f"{key}={folder}: no such folder{images.nearest_folder(folder)}")
    jsons = sorted(annotations.glob("*.json"))
    if not jsons:
        raise UserError(f"{annotations}: no annotation file (*.json); they name the images to build")
    sizes: dict[tuple[str, str], tuple[int, int]] = {}
    for path in jsons:
        split, read = split_of(path), coco_json.read(path, strict=False)
        sizes |= {(split, name): (h, w) for name, (h, w) in zip(read.file_names, read.sizes_hw.tolist(), strict=True)}
    parts = {Path(name).name: aitod / name for name in list_images(aitod)}
    scenes = {Path(name).stem: xview / name for name in list_images(xview) if name.lower().endswith(SCENES)}
    return Plan(sizes, jsons, parts, scenes)


def split_of(path: Path) -> str:
    """The split in an annotation file's name.

    Raises:
        UserError: it says none.

    Examples:
        >>> split_of(Path("aitodv2_trainval.json")), split_of(Path("aitod_training_v1.json"))
        ('trainval', 'train')
    """
    words = re.split(r"[^a-z]+", path.stem.lower())
    split = next((split for word, split in SPLITS.items() if word in words), None)
    if split is None:
        raise UserError(f"{path}: its name says no split; expected one of {', '.join(SPLITS)} in it")
    return split


def source_tile(name: str) -> tuple[str, Tile] | None:
    """Scene and corner of a tile by its name; None for a name of another form.

    Examples:
        >>> source_tile("1987__4190_1800.png"), source_tile("P0001.png")
        (('1987', (4190, 1800)), None)
    """
    found = TILE_NAME.fullmatch(Path(name).name)
    return (found["scene"], (int(found["x"]), int(found["y"]))) if found else None


def build(
    plan: Plan, out: Path, *, swap_colours: bool = False, overwrite: bool = False
) -> tuple[Counter[str], list[str]]:
    """Make every image that is not there yet, one scene in memory at a time.

    Returns:
        Counts by name (`copied`, `cut`, `there already`) and faults, one line each.
    """
    counts: Counter[str] = Counter()
    faults: list[str] = []
    by_scene: dict[Path, list[tuple[Path, Tile, tuple[int, int]]]] = defaultdict(list)
    for (split, name), size in plan.sizes.items():
        part, where = plan.parts.get(Path(name).name), source_tile(name)
        try:
            target = place_in(out / "images" / split, name)
        except UserError as error:
            faults.append(f"{split}: {error}")
            continue
        if target.exists() and not overwrite:
            counts["there already"] += 1
        elif part is not None:
            copy_file(part, target, overwrite=True)
            counts["copied"] += 1
        elif where and where[0] in plan.scenes:
            by_scene[plan.scenes[where[0]]].append((target, where[1], size))
        else:
            absent = f"; its scene {where[0]}.tif is not in xview" if where else ""
            faults.append(f"{split}/{name}: not in the authors' part{absent}")
    for scene, tiles in bar(sorted(by_scene.items()), len(by_scene), "xView scenes"):
        wrong = cut_tiles(scene, tiles, swap_colours=swap_colours)
        counts["cut"] += len(tiles) - len(wrong)
        faults += wrong
    for path in plan.jsons:
        target = out / "annotations" / path.name
        if not target.exists() or (overwrite and target.resolve() != path.resolve()):
            copy_file(path, target, overwrite=True)
    return counts, faults


def cut_tiles(scene: Path, tiles: list[tuple[Path, Tile, tuple[int, int]]], *, swap_colours: bool) -> list[str]:
    """Cut the tiles of one scene; returns the faults. A tile of train and trainval is one file with two names."""
    try:
        pixels = images.load(scene)
    except ValueError as error:
        return [f"{target.parent.name}/{target.name}: {scene}: {error}" for target, _, _ in tiles]
    pixels = pixels[..., ::-1] if swap_colours else pixels
    h, w = pixels.shape[:2]
    faults, made = [], {target.name: target for target, _, _ in reversed(tiles)}
    for target, (x, y), size in tiles:
        first = made[target.name]
        if x >= w or y >= h:
            faults.append(f"{target.parent.name}/{target.name}: outside its scene {scene.name} of {w} x {h} px")
        elif first == target:
            images.save(target, cut_image(pixels, (x, y), size), overwrite=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(first, target)
            except OSError:  # a file system without hard links
                copy_file(first, target, overwrite=True)
    return faults


def verify(plan: Plan, out: Path) -> list[str]:
    """Images in `out` that no annotation file names, and those whose size is not the one it says."""
    faults = []
    for split in sorted({split for split, _ in plan.sizes}):
        folder = out / "images" / split
        there = list_images(folder) if folder.is_dir() else []
        looks = in_threads(images.look, [folder / name for name in there], f"{split}: sizes")
        for name, found in zip(there, looks, strict=True):
            size = plan.sizes.get((split, name))
            if size is None:
                faults.append(f"{split}/{name}: no annotation file names it")
            elif found.fault or found.size_hw != size:
                what = found.fault or f"{found.size_hw[1]} x {found.size_hw[0]} px"
                say = f"the annotations say {size[1]} x {size[0]}; overwrite=true makes it anew"
                faults.append(f"{split}/{name}: {what}, {say}")
    return faults


def in_words(out: Path, plan: Plan, counts: Mapping[str, int], faults: list[str]) -> str:
    """What was made, and the first faults."""
    named = Counter(split for split, _ in plan.sizes)
    lines = [f"{out}: {counted(counts)}"]
    lines += [f"  images/{split}: {n:,} images named" for split, n in sorted(named.items())]
    lines += some(faults, SHOWN, "WRONG: ")
    lines.append(f"{len(faults):,} images are wrong" if faults else "every named image is there, and nothing else")
    return "\n".join(lines)
