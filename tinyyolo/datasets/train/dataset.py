"""The engine's dataset over `Annotations`: nothing is written, tiny and duplicate boxes stay, ignore regions travel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info
from ultralytics.data.augment import Format, Mosaic, RandomHSV, RandomPerspective
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import DEFAULT_CFG, LOGGER

from tinyyolo import together
from tinyyolo.boxes.convert import to_fractions
from tinyyolo.compat import (
    TinyFormat,
    TinyHSV,
    TinyMosaic,
    TinyPerspective,
    own_albumentations,
    read_images_by,
    reading_by,
)
from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import IGNORED, Annotations, subset
from tinyyolo.datasets.audit.faults import astray
from tinyyolo.datasets.formats.doubts import REMARKS
from tinyyolo.datasets.images import NOT_DECODED, load, look
from tinyyolo.datasets.kinds import shrunk, told_kinds
from tinyyolo.datasets.scene_files import by_windows
from tinyyolo.datasets.spec import DataSpec
from tinyyolo.datasets.train.loader import Seeded, packed, place_of
from tinyyolo.datasets.train.opened import OpenScenes, bytes_of
from tinyyolo.datasets.train.padding import content_of, in_corner
from tinyyolo.datasets.train.paste import Crop, PasteTiny
from tinyyolo.datasets.train.windows import Cutting, boxes_of
from tinyyolo.io import in_threads, some
from tinyyolo.scenes.rendering import AS_DECLARED, Rendering
from tinyyolo.scenes.tiling import Tiling
from tinyyolo.scenes.windows import Window

read_images_by(load)
NO_IMAGE = np.zeros((1, 1, 3), np.uint8), (-1, -1), (1, 1)  # what stands in for one that is gone
OWN_STEPS: dict[type, type] = {
    Mosaic: TinyMosaic,
    RandomPerspective: TinyPerspective,
    RandomHSV: TinyHSV,
    Format: TinyFormat,
}
MOST_GONE = 0.5  # share of the images: a run does not go on without so many
MAX_LISTED = 10  # problems printed one by one; the rest is counted


class NoFile:
    """A file that is not there, without asking the disk each time an image is read."""

    def exists(self) -> bool:
        """Never."""
        return False


class Label(dict[str, Any]):
    """What is known of a sample. Upstream copies it deeply each time; only arrays are ever written into."""

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return {key: value.copy() if isinstance(value, np.ndarray) else value for key, value in self.items()}


class TinyDataset(YOLODataset):
    """One split of a data YAML as the engine reads it.

    Beside ultralytics' keys a sample holds "image_index" (its image in `annotations`) and "image_id" (the annotation
    file's), and a batch "ignore_bboxes" (J, 4) and "ignore_idx" (J,): ignore regions, never among "bboxes".

    Args:
        spec: the data YAML.
        split: "train", "val" or "test".
        skip_empty: leave images without objects out.
        min_side: leave boxes with a side under this many pixels of the original image out (published recipes: 1).
        rendering: which bands and values of the files are shown, and how.
        tiling: which images are cut into windows, each a sample; in validation one for each image, which is then to be
            looked at as a whole. None: none, they are shrunk.
        empty_tiles: windows without objects that are kept in training, as a share of those with objects.
        seed: of the choice among them.
        corner: images lie in the left upper corner of the network's input, whose sides are the least multiples of 32
            that hold the batch, instead of in the middle of a square: batches then hold "content_hw" (B, 2), height and
            width of each image in it.
        options: arguments of ultralytics' YOLODataset.

    Raises:
        UserError: not one readable image, or `cache="disk"`, which puts arrays beside the user's images.
    """

    ims: Any  # upstream starts with lists of None
    im_hw0: Any
    im_hw: Any
    placed = False  # whether batches say where their worker process stands

    def __init__(
        self,
        spec: DataSpec,
        split: str,
        *,
        skip_empty: bool = False,
        min_side: float = 0.0,
        rendering: Rendering = AS_DECLARED,
        tiling: Tiling | None = None,
        empty_tiles: float = 0.0,
        seed: int = 0,
        corner: bool = False,
        **options: Any,
    ):
        self.rendering, self.corner = rendering, corner
        self.spec, self.split, self.skip_empty, self.min_side = spec, split, skip_empty, min_side
        imgsz, train = int(np.max(options.get("imgsz", DEFAULT_CFG.imgsz))), options.get("augment", True)
        self.cutting = Cutting(tiling, imgsz, 0.0 if skip_empty else empty_tiles, seed, one=not train)
        self.scenes, self.wanted = OpenScenes(rendering), options.get("classes")
        self.annotations: Annotations = spec.measured(split)
        self.bad_images: list[str] = []
        self.crops: dict[tuple[int, int], Crop] = {}  # of PasteTiny; close_mosaic makes another
        self.lost: dict[int, str] = {}  # image -> why it could not be read at some time in the run
        self.gone: set[int] = set()  # those that could not be read at the last time
        self.news: list[tuple[int, str]] = []  # of `gone`, in this process
        if str(options.get("cache")).lower() == "disk":
            raise UserError("cache=disk: it puts arrays beside your images; use cache=ram")
        data = {"names": spec.names or self.annotations.names, "channels": 3}
        super().__init__(img_path=split, data=data, task="detect", **options)

    def get_img_files(self, img_path: str | list[str]) -> list[str]:
        """Paths of the readable images, in the annotation file's order; unreadable ones are listed and counted."""
        paths = [Path(self.spec.image_path(self.split, name)) for name in self.annotations.file_names]
        cut = [self.cutting.cuts((h, w)) for h, w in self.annotations.sizes_hw.tolist()]
        pairs = list(zip(paths, cut, strict=True))
        seen = together.once_per_node(
            lambda: in_threads(lambda pair: self.scenes.look_at(*pair), pairs, f"{self.prefix}checking images")
        )
        looks = [found for found, _ in seen]
        faults = [found.fault for found in looks]
        self.bad_images = [f"{path}: {fault}" for path, fault in zip(paths, faults, strict=True) if fault]
        report(self.prefix, "unreadable images left out", self.bad_images)
        self.problems = [problem for problem in self.annotations.problems if problem.kind not in REMARKS]
        report(self.prefix, "annotation problems", self.problems)
        doubts = [problem for problem in self.annotations.problems if problem.kind in REMARKS]
        shrinking = shrunk(subset(self.annotations, ~np.array(cut, bool)), self.cutting.imgsz)
        for line in (*doubts, *told_kinds(looks, self.rendering), *astray(self.annotations), *shrinking):
            LOGGER.warning(f"{self.prefix}{line}")
        owners = set(self.annotations.image_index[self.annotations.labels != IGNORED].tolist())
        rows = [i for i, fault in enumerate(faults) if not fault and (i in owners or not self.skip_empty)]
        most = self.fraction if isinstance(self.fraction, int) else max(1, round(len(rows) * self.fraction))
        images = rows[:most]
        self.sizes_hw = {str(path): found.size_hw for path, found in zip(paths, looks, strict=True)}
        self.scenes.sizes_hw = self.sizes_hw
        own = partial(boxes_of, self.annotations, least=self.min_side, classes=self.wanted)
        self.samples = self.cutting.samples(self.annotations, images, own)
        self.rows = [sample.row for sample in self.samples]
        shown = Counter(words for _, words in seen if words)
        told = [f"{count:,} of the images that are cut: {words}" for words, count in shown.items()]
        for line in (*self.cutting.words(self.samples, self.annotations, images), *told):
            LOGGER.info(f"{self.prefix}{line}")
        if not self.rows:
            raise UserError(f"{self.annotations.path}: no usable image in split '{self.split}', {len(paths)} listed")
        return [str(paths[i]) for i in self.rows]

    @property
    def npy_files(self) -> list[Any]:
        """Of every image a file that is not there: upstream reads, renews or deletes a `.npy` beside an image."""
        return self.no_files

    @npy_files.setter
    def npy_files(self, paths: Any) -> None:
        """Upstream's places beside the images are not taken."""
        self.no_files = [NoFile()] * len(paths)

    def load_image(self, i: int, *args: Any, **kwargs: Any) -> Any:
        """As upstream; for an image that cannot be read any more, or has another size than at the start, a stand-in.

        Such an image is then among `lost`, with the reason, and among `gone` until it can be read again.

        Raises:
            UserError: half of the images are gone.
        """
        path, fault, window = self.im_files[i], "", self.labels[i]["window"]
        if window is not None:
            return self.load_window(i, window)
        try:
            with reading_by(partial(load, rendering=self.rendering)):
                found = super().load_image(i, *args, **kwargs)
            if found[1] != self.sizes_hw[path]:
                fault = f"its size has changed from {self.sizes_hw[path]} to {found[1]}"
        except FileNotFoundError:
            fault = why_not(path, self.rendering)
        return found if not self.is_news(i, fault) else NO_IMAGE

    def load_window(self, i: int, window: Window) -> Any:
        """As `load_image`, of a window at its own resolution."""
        if self.ims[i] is not None:
            return self.ims[i], self.im_hw0[i], self.im_hw[i]
        fault, side, path = "", self.cutting.tile, self.im_files[i]
        try:
            pixels = self.scenes.read(path, window, self.cutting.zoom, side)
        except ValueError as error:
            fault = str(error).removeprefix(f"{path}: ")
        if self.is_news(i, fault):
            return NO_IMAGE
        if self.augment and self.cache != "ram":  # as upstream: mosaic draws from these
            self.ims[i], self.im_hw0[i], self.im_hw[i] = pixels, (side, side), (side, side)
            self.buffer.append(i)
            if 1 < len(self.buffer) >= self.max_buffer_length:
                j = self.buffer.pop(0)
                self.ims[j], self.im_hw0[j], self.im_hw[j] = None, None, None
        return pixels, (side, side), (side, side)

    def decoded(self) -> tuple[list[str | None], dict[str, int]]:
        """Of each sample the image that is decoded whole for one window, None for others; bytes of each such image."""
        cut = [label["im_file"] if label["window"] is not None else None for label in self.labels]
        sizes = {path: bytes_of(self.sizes_hw[path], self.cutting.zoom) for path in {*cut} - {None} if path}
        sizes = {path: size for path, size in sizes.items() if not by_windows(path)}
        return [path if path in sizes else None for path in cut], sizes

    def is_news(self, i: int, fault: str) -> bool:
        """Whether sample i cannot be read; takes it down where that was not known."""
        if bool(fault) != (i in self.gone):
            self.news.append((i, fault))
            self.note([(i, fault)])
        return bool(fault)

    def check_cache_ram(self, *args: Any, **kwargs: Any) -> bool:
        """As upstream, of images as this run reads them."""
        with reading_by(partial(load, rendering=self.rendering)):
            return bool(super().check_cache_ram(*args, **kwargs))

    def note(self, news: Sequence[tuple[int, str]]) -> None:
        """Take down which images can no longer be read, and why, or can again ("").

        Raises:
            UserError: half of the images are gone.
        """
        for i, fault in news:
            if fault:
                self.gone.add(i)
                self.lost.setdefault(i, fault)
            else:
                self.gone.discard(i)
        if len(self.gone) >= MOST_GONE * self.ni:
            i = max(self.gone)
            share = f"{len(self.gone):,} of the {self.ni:,} images of split '{self.split}' can no longer be read"
            raise UserError(f"{share}, such as {self.im_files[i]}: {self.lost[i]}")

    def __getitem__(self, index: int | Seeded) -> dict[str, Any]:
        """A sample; with a seed its augmentation depends on nothing else, but for the recent images of mosaic."""
        if isinstance(index, Seeded):
            index.sow()
            index = index.sample
        sample: dict[str, Any] = super().__getitem__(index)
        return sample

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """As upstream; in place of an image that is gone the next one that is there.

        In validation its "image_index" is then ~i, of the image i that is gone: it does not count.
        """
        for other in (*range(index, self.ni), *range(index)):
            sample = super().get_image_and_label(other)
            sample.pop("window")
            if other not in self.gone:
                break
        if other != index and self.rect:
            sample["rect_shape"] = self.batch_shapes[self.batch[index]]
        if other != index and not self.augment:
            sample["image_index"] = ~self.labels[index]["image_index"]
        return dict(sample)

    def get_labels(self) -> list[dict[str, Any]]:
        """One label dict per sample, boxes normalised cxcywh, ignore regions under class -1."""
        notes, labels = self.annotations, list[dict[str, Any]]()
        for sample, path in zip(self.samples, self.im_files, strict=True):
            row = sample.row
            label = {"im_file": path, "image_index": row, "image_id": notes.image_ids[row].item()}
            label |= {
                "window": sample.window,
                "shape": sample.size_hw,
                "cls": sample.labels.reshape(-1, 1).astype(np.float32),
                "bboxes": to_fractions(sample.boxes, np.array(sample.size_hw)).astype(np.float32),
                "bbox_format": "xywh",
            }
            labels.append(Label(label | {"normalized": True, "segments": [], "keypoints": None}))
        return labels

    def update_labels(self, include_class: Sequence[int] | None) -> None:
        """The wanted classes are chosen already; `single_cls` never turns a region into an object."""
        for label in self.labels:
            if self.single_cls:
                label["cls"][label["cls"] != IGNORED] = 0

    def build_transforms(self, hyp: Any) -> Any:
        """Ultralytics' transforms with the perspective step that keeps tiny objects; albumentations only if given."""
        with own_albumentations(getattr(hyp, "augmentations", None)):
            transforms = super().build_transforms(hyp)
        mixed = [key for key in ("mixup", "cutmix") if getattr(hyp, key)]
        if self.corner and self.augment and mixed:
            LOGGER.info(f"{self.prefix}{mixed[0]} takes squares: images are centred on grey instead of in a corner")
        replace_steps(transforms, own_size=self.corner and not mixed)
        if self.corner and not self.augment:
            transforms.transforms[0].center = False
        if self.augment and (count := getattr(hyp, "paste", 0)):
            transforms.transforms.insert(1, step := PasteTiny(self, count, self.crops))
            step.cut_ahead(self.prefix)
        return transforms

    def forget(self) -> None:
        """Empty the buffer of recent images that mosaic draws from, so that an epoch depends on its seed alone."""
        for i in self.buffer:
            if self.cache != "ram":
                self.ims[i], self.im_hw0[i], self.im_hw[i] = None, None, None
        self.buffer = []

    def collate_fn(self, batch: list[dict[str, Any]]) -> dict[str, Any]:  # type: ignore[override]  # a function there
        """Stack samples; ignore regions leave "cls" and "bboxes" for keys of their own.

        What is new of `gone` stands under "news"; with `placed`, under "place" where a worker process then stands.
        """
        out = YOLODataset.collate_fn(in_corner(batch) if self.corner else batch)
        if self.corner:
            sizes = [content_of(sample) if not self.augment else sample["img"].shape[1:] for sample in batch]
            out["content_hw"] = torch.tensor(sizes, dtype=torch.int64)
        regions = out["cls"].view(-1) == IGNORED
        out["ignore_bboxes"], out["ignore_idx"] = out["bboxes"][regions], out["batch_idx"][regions]
        for key in ("cls", "bboxes", "batch_idx"):
            out[key] = out[key][~regions]
        out["image_index"] = torch.tensor(out["image_index"], dtype=torch.int64)
        out["news"], self.news[:] = list(self.news), []
        if self.placed and (worker := get_worker_info()):
            out["place"] = packed({"worker": worker.id, **place_of(self)})
        return out


def replace_steps(transforms: Any, own_size: bool = False) -> None:
    """Swap every step of OWN_STEPS in a Compose, however deep, for ours with the same settings."""
    for i, step in enumerate(transforms.transforms):
        if own := OWN_STEPS.get(type(step)):
            tiny: Any = copy(step)
            tiny.__class__ = own
            if own is TinyPerspective:
                tiny.own_size = own_size
            transforms.transforms[i] = tiny
        for inner in (step, getattr(step, "pre_transform", None)):
            if isinstance(getattr(inner, "transforms", None), list):
                replace_steps(inner, own_size)


def must_have_objects(notes: Annotations) -> None:
    """Raise UserError for annotations without an object to learn; says what may be the cause."""
    if (notes.labels != IGNORED).any():
        return
    causes = "; ".join(str(problem) for problem in notes.problems[:1])
    raise UserError(f"{notes.path}: no object to train on in {len(notes):,} images{causes and f'; {causes}'}")


def why_not(path: str | Path, rendering: Rendering | None = None) -> str:
    """The reason in words why an image cannot be used that could not be read."""
    return look(path, to_end=True, rendering=rendering).fault or NOT_DECODED


def report(prefix: str, what: str, lines: Sequence[str]) -> None:
    """Warn of problems: how many, and the first of them."""
    if lines:
        LOGGER.warning("\n".join([f"{prefix}{len(lines)} {what}:", *some(lines, MAX_LISTED, "  ")]))
