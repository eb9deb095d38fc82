"""Toy sets: images drawn by seed, with COCO JSON, once, into the user's cache folder. Nothing is downloaded.

A data YAML asks for one with `toy: {scene: aerial, size: 320, images: {train: 240, val: 60}, seed: 0}`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tinyyolo.config import UserError, suggest
from tinyyolo.datasets.drawn import aerial as toy_aerial
from tinyyolo.datasets.drawn import easy as toy_easy
from tinyyolo.datasets.drawn import ground as toy_ground
from tinyyolo.datasets.drawn import school as toy_school
from tinyyolo.io import abandoned, current_umask, draft_file

VERSION = 2  # raise it when the same options give other pictures: old folders are then left alone
SPLITS = ("train", "val")
SIZES = (32, 4096)  # px
MOST_OBJECTS = 2000  # an image
CACHE_VARIABLE = "TINYYOLO_CACHE"

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Scenery:
    """A kind of scene: how it is drawn, its classes, and what it holds unless told otherwise."""

    draw: Callable[..., Drawn]
    names: tuple[str, ...]
    objects: tuple[int, int]
    side_px: tuple[float, float]


SCENES = {
    "aerial": Scenery(toy_aerial.draw_aerial, toy_ground.NAMES, (12, 30), (12.7, 5.6)),  # AI-TOD's mean and std
    "school": Scenery(toy_school.draw_school, toy_school.NAMES, (8, 40), (12.7, 5.6)),
    "easy": Scenery(toy_easy.draw_easy, toy_easy.NAMES, (18, 30), (12.0, 4.62)),  # 4 to 20 px
}


@dataclass(frozen=True)
class ToyOptions:
    """What decides the pictures. `objects`: fewest and most an image; `side_px`: mean and std of sqrt(w * h); `fresh`:
    pictures to learn from are drawn as they are asked for, others each time, and are not kept."""

    scene: str
    size: int
    images: Mapping[str, int]
    seed: int
    objects: tuple[int, int]
    side_px: tuple[float, float]
    fresh: bool = False

    def draw(self, rng: np.random.Generator, size: int | None = None) -> Drawn:
        """A picture of this set, see `draw_scene`; of another size if one is given."""
        return draw_scene(rng, size or self.size, self.scene, self.objects, self.side_px)

    def kept(self, split: str) -> bool:
        """Whether the pictures of a split are files."""
        return split != "train" or not self.fresh


def draw_scene(
    rng: np.random.Generator,
    size: int,
    scene: str = "aerial",
    objects: tuple[int, int] | None = None,
    side_px: tuple[float, float] | None = None,
) -> Drawn:
    """Draw one scene.

    Args:
        rng: decides everything; the same state gives the same bytes.
        size: height and width in px.
        scene: a name in SCENES.
        objects: fewest and most objects; fewer where there is no room. Default: the scene's own.
        side_px: mean and standard deviation over many scenes of the boxes' sqrt(w * h), px. Default: the scene's own.

    Returns:
        image (size, size, 3) uint8 BGR; boxes (M, 4) float64 xyxy px, the drawn shapes' extents to 1/8 px, without
        shadow and wake, cut at the border; labels (M,) int64, indices into `SCENES[scene].names`.

    Raises:
        UserError: an unknown scene.

    Examples:
        >>> image, boxes, labels = draw_scene(np.random.default_rng(0), 64, "easy", objects=(3, 3))
        >>> image.shape, image.dtype, boxes.shape, labels.shape
        ((64, 64, 3), dtype('uint8'), (3, 4), (3,))
    """
    if scene not in SCENES:
        raise UserError(f"toy.scene={scene}: unknown; {suggest(scene, SCENES)}")
    kind = SCENES[scene]
    return kind.draw(rng, size, objects or kind.objects, side_px or kind.side_px)


def ensure(toy: Mapping[str, Any]) -> Path:
    """The folder of a toy set with `train.json`, `val.json` and `images/`; drawn first if it is not there yet.

    It lies in $TINYYOLO_CACHE, else $XDG_CACHE_HOME/tinyyolo, else ~/.cache/tinyyolo, under a name made from the
    options. It appears whole or not at all, so that runs side by side do not disturb each other.

    Args:
        toy: the `toy:` of a data YAML: scene, size, images {train, val}, seed, objects [low, high],
            side_px [mean, std], fresh; all may be left out.

    Raises:
        UserError: an unknown key or a bad value; a folder that cannot be written or that has lost files.
    """
    options = resolve(toy)
    folder = cache_folder() / folder_name(options)
    if whole(folder, options):
        return folder
    if folder.exists():
        raise UserError(f"{folder}: a drawn set that has lost files; delete the folder, it is then drawn again")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(".toy-*"):  # by runs that were killed
            if abandoned(left):
                shutil.rmtree(left, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        held, mark = draft_file(draft)
    except OSError as error:
        raise UserError(f"{folder.parent}: cannot be written ({error}); set {CACHE_VARIABLE} to a folder") from error
    try:
        write_set(draft, options, folder)
        os.unlink(mark)
        os.chmod(draft, 0o777 & ~current_umask())
        os.rename(draft, folder)
    except OSError as error:
        if not whole(folder, options):  # otherwise another run has put the same set there meanwhile
            raise UserError(f"{folder}: cannot be written: {error}") from error
    finally:
        os.close(held)
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def cache_folder() -> Path:
    """Where drawn sets are kept."""
    given, xdg = os.environ.get(CACHE_VARIABLE), os.environ.get("XDG_CACHE_HOME")
    base = Path(given) if given else Path(xdg or "~/.cache") / "tinyyolo"
    return base.expanduser().resolve()


def folder_name(options: ToyOptions) -> str:
    """A name for the set that differs whenever its bytes may."""
    content = {key: value for key, value in asdict(options).items() if key != "fresh" or value}
    text = json.dumps({"version": VERSION, **content}, sort_keys=True)
    return f"toy-{options.scene}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def whole(folder: Path, options: ToyOptions) -> bool:
    """Whether the set is there with all its files."""
    if not all((folder / f"{split}.json").is_file() for split in SPLITS):
        return False
    return len(list((folder / "images").glob("*.png"))) == sum(
        count for split, count in options.images.items() if options.kept(split)
    )


def image_rng(seed: int, split: str, index: int) -> np.random.Generator:
    """The generator of one image: of this image alone, so that a larger set begins with the smaller one's images."""
    return np.random.default_rng([seed, zlib.crc32(split.encode()), index])


def write_set(draft: Path, options: ToyOptions, folder: Path) -> None:
    """Draw all images and both JSON files into `draft`, telling of it on stderr; `folder` is its name to be."""
    (draft / "images").mkdir()
    total, done = sum(options.images.values()), 0
    live = sys.stderr.isatty()
    print(f"Drawing {total} images, this once, into {folder}", file=sys.stderr)
    for split in SPLITS:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(options.images[split]):
            rng = image_rng(options.seed, split, index)
            image, boxes, labels = options.draw(rng)
            name = f"{split}_{index:05d}.png"
            if options.kept(split):
                (draft / "images" / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
            images.append({"id": index + 1, "file_name": name, "width": options.size, "height": options.size})
            annotations += records(boxes, labels, index + 1, len(annotations) + 1)
            done += 1
            if live and (done % 10 == 0 or done == total):
                print(f"\r  {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        names = SCENES[options.scene].names
        categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (draft / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")


def records(boxes: np.ndarray, labels: np.ndarray, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """COCO annotations of one image's boxes (M, 4) xyxy and labels (M,); category ids are labels + 1.

    Examples:
        >>> records(np.array([[1.0, 2.0, 4.0, 4.5]]), np.array([0]), image_id=3, first_id=7)
        [{'id': 7, 'image_id': 3, 'category_id': 1, 'bbox': [1.0, 2.0, 3.0, 2.5], 'area': 7.5, 'iscrowd': 0}]
    """
    out = []
    for number, ((x0, y0, x1, y1), label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True), first_id):
        box = [x0, y0, x1 - x0, y1 - y0]
        place = {"id": number, "image_id": image_id, "category_id": label + 1}
        out.append({**place, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    return out


def resolve(toy: Mapping[str, Any]) -> ToyOptions:
    """The `toy:` of a data YAML with defaults filled in.

    Raises:
        UserError: an unknown key or a bad value.

    Examples:
        >>> resolve({"scene": "easy", "seed": 3}).objects
        (18, 30)
    """
    if not isinstance(toy, Mapping):
        raise UserError(f"toy: expected a mapping such as {{scene: aerial, size: 320}}, found {toy!r}")
    known = [field.name for field in fields(ToyOptions)]
    for key in toy:
        if key not in known:
            raise UserError(f"toy.{key}: unknown; {suggest(key, known)}")
    scene = toy.get("scene", "aerial")
    if not isinstance(scene, str) or scene not in SCENES:
        raise UserError(f"toy.scene={scene}: unknown; {suggest(scene, SCENES)}")
    images = toy.get("images", {"train": 240, "val": 60})
    if not isinstance(images, Mapping) or set(images) != set(SPLITS):
        raise UserError(f"toy.images={images}: expected {{train: count, val: count}}")
    kind = SCENES[scene]
    return ToyOptions(
        scene=scene,
        size=whole_number("toy.size", toy.get("size", 320), *SIZES),
        images={split: whole_number(f"toy.images.{split}", images[split], 1) for split in SPLITS},
        seed=whole_number("toy.seed", toy.get("seed", 0), 0),
        objects=count_range(toy.get("objects", kind.objects)),
        side_px=mean_std(toy.get("side_px", kind.side_px)),
        fresh=switch(toy.get("fresh", False)),
    )


def whole_number(key: str, value: Any, low: int, high: int | None = None) -> int:
    """The value if it is an int of at least `low` and at most `high`; otherwise a UserError that names the key."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        bound = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise UserError(f"{key}={value}: expected a whole number {bound}")
    return value


def switch(value: Any) -> bool:
    """`fresh` as it is."""
    if not isinstance(value, bool):
        raise UserError(f"toy.fresh={value}: expected true or false")
    return value


def count_range(value: Any) -> tuple[int, int]:
    """`objects` as (low, high)."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise UserError(f"toy.objects={value}: expected [fewest, most]")
    low = whole_number("toy.objects", value[0], 0, MOST_OBJECTS)
    return low, whole_number("toy.objects", value[1], low, MOST_OBJECTS)


def mean_std(value: Any) -> tuple[float, float]:
    """`side_px` as (mean, std)."""
    numbers = isinstance(value, (list, tuple)) and len(value) == 2
    if not numbers or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in value):
        raise UserError(f"toy.side_px={value}: expected [mean, standard deviation] in px")
    mean, std = map(float, value)
    if not 0 <= std < mean < SIZES[0]:
        raise UserError(f"toy.side_px={value}: expected 0 <= standard deviation < mean < {SIZES[0]} px")
    return mean, std
