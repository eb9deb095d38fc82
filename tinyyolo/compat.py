"""Every private or unstable ultralytics touch point, in one file, and what keeps it quiet (see also `__init__.py`)."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from copy import copy
from importlib import import_module
from typing import Any
from unittest import mock

import cv2
import numpy as np
import PIL.Image
import torch
import ultralytics.data.augment
import ultralytics.data.base
import ultralytics.data.loaders
import ultralytics.engine.model
import ultralytics.engine.trainer
import ultralytics.engine.validator
import ultralytics.optim.muon
import ultralytics.utils
import ultralytics.utils.events
import ultralytics.utils.patches
import ultralytics.utils.plotting
import ultralytics.utils.torch_utils
from ultralytics.data.augment import Compose, Format, Mosaic, RandomHSV, RandomPerspective
from ultralytics.data.loaders import LoadImagesAndVideos, SourceTypes
from ultralytics.nn.modules import SPPF, C2f, Conv
from ultralytics.utils import callbacks
from ultralytics.utils.torch_utils import initialize_weights

from tinyyolo import ranks

__all__ = ["SPPF", "C2f", "Conv", "initialize_weights"]  # for the folders that may not import ultralytics

NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS = (3.4445, -4.7750, 2.0315), 5  # Muon's polynomial, upstream's values
upstream_orthogonalised = ultralytics.optim.muon.zeropower_via_newtonschulz5
DECODERS: list[Callable[[str], np.ndarray]] = []  # see `read_images_by`; the last one counts
READS: ContextVar[Callable[[str], np.ndarray] | None] = ContextVar("READS", default=None)  # see `reading_by`
TO_CORNERS, TO_CENTRES = (np.array([[1, 0, d], [0, 1, d], [0, 0, 1]], dtype=np.float32) for d in (0.5, -0.5))
FLIPS = {(False, True): 0, (True, False): 1, (False, False): -1}  # OpenCV's codes; which ways rows and columns run
CANVAS = 114  # grey where a mosaic has no image; ultralytics' own value
MIN_VISIBLE = 0.1  # share of an object's area that must stay in the picture after augmentation; ultralytics' own value


def quiet() -> None:
    """Switch off what the environment cannot, for this process."""
    ultralytics.utils.events.events.enabled = False  # ultralytics may have been imported before us
    ultralytics.utils.plotting.check_font = local_font  # type: ignore[attr-defined]  # a name it imports
    PIL.Image.open = ultralytics.utils.patches._image_open  # theirs wants to pip-install pi-heif for a damaged file
    # A program whose name ends in "yolo" is taken for upstream's own command, whose predict() returns nothing.
    ultralytics.engine.model.ARGV = [""]  # type: ignore[attr-defined]  # a name it imports
    warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", FutureWarning)  # it is what we export
    ultralytics.optim.muon.zeropower_via_newtonschulz5 = orthogonalised  # type: ignore[assignment]  # only its names
    # Upstream trains on the CPU with one thread fewer than there are cores, whatever OMP_NUM_THREADS says.
    ultralytics.utils.torch_utils.NUM_THREADS = torch.get_num_threads()  # type: ignore[attr-defined]  # imported there


def imread(path: str, flags: int = cv2.IMREAD_COLOR) -> np.ndarray | None:
    """The pixels (H, W, 3) uint8 BGR that training, validation and prediction see of an image file; None for no image.

    Raises:
        ValueError: flags that ask for something else.
    """
    if not DECODERS:
        import_module("tinyyolo.datasets.train.dataset")  # which says what decodes; scripts outside import us alone
    return read_by(READS.get() or DECODERS[-1], path, flags)


@contextmanager
def reading_by(load: Callable[[str], np.ndarray]) -> Iterator[None]:
    """Within this context, in this thread, the engine's loaders of image files decode by `load`."""
    token = READS.set(load)
    try:
        yield
    finally:
        READS.reset(token)


def read_by(load: Callable[[str], np.ndarray], path: str, flags: int = cv2.IMREAD_COLOR) -> np.ndarray | None:
    """What `load` makes of a file; None where it raises ValueError. Flags that ask for something else are one too."""
    if flags != cv2.IMREAD_COLOR:
        raise ValueError(f"{path}: flags {flags}: our detectors take three bands")
    try:
        return load(path)
    except ValueError:
        return None


def read_images_by(load: Callable[[str], np.ndarray]) -> None:
    """Let `imread`, and with it the engine's loaders of image files, decode by `load`; its ValueError means no image.

    Upstream's own is stopped by too many pixels, misled by floats and two bands, and fills up a JPEG that is cut short.
    """
    DECODERS.append(load)
    for module in (ultralytics.data.base, ultralytics.data.loaders):
        vars(module).update(imread=imread)


class FileLoader(LoadImagesAndVideos):
    """The engine's loader of these files, images first; upstream's stops at a damaged video and forgets a bad image.

    Args:
        images: paths, in the order in which they are read.
        videos: paths.
        batch: images at a time.
        vid_stride: every which frame of a video.
        bad: called with the path of a file that cannot be read.
        good: called with the path of an image that was.
        load: decodes an image; what training reads by unless given.
    """

    files: Any  # upstream's types know what it starts with
    cap: Any

    def __init__(
        self,
        images: Sequence[str],
        videos: Sequence[str],
        batch: int,
        vid_stride: int,
        bad: Callable[[str], None],
        good: Callable[[str], None],
        load: Callable[[str], np.ndarray] | None = None,
    ):
        self.files, self.ni, self.nf = [*images, *videos], len(images), len(images) + len(videos)
        self.video_flag = [False] * len(images) + [True] * len(videos)
        self.mode, self.bs, self.vid_stride = "image" if images else "video", batch, vid_stride
        self.cv2_flag, self.cap, self.source_type = cv2.IMREAD_COLOR, None, SourceTypes()
        self.bad, self.good, self.load, self.batch = bad, good, load, batch

    def __next__(self) -> Any:
        """As upstream, decoding by `load`; the images of a batch are always the same files, some of which may be bad.

        So a part of the files that begins at a batch has the batches of all files.
        """
        with nullcontext() if self.load is None else reading_by(self.load):
            while True:
                self.bs = self.batch
                found = super().__next__()
                if found[0]:
                    return found

    def _append_image(self, paths: Any, images: Any, info: Any, path: str, image: Any, index: int) -> None:
        """As upstream; tells of the image."""
        if image is None:
            self.bs -= 1  # nothing comes in its place
            self.bad(path)
            return
        self.good(path)
        super()._append_image(paths, images, info, path, image, index)

    def _new_video(self, path: str) -> None:
        """As upstream; one without a frame is told, and left to the loop, which goes on where there is none."""
        try:
            super()._new_video(path)
            if not self.cap.grab():
                self.bad(path)
                return
            self.cap.release()
            super()._new_video(path)  # from its first frame
        except FileNotFoundError:
            self.bad(path)


def local_font(font: str = "") -> str:
    """The font that comes with matplotlib, whatever was asked for: upstream downloads Arial."""
    from matplotlib import get_data_path

    return os.path.join(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def orthogonalised(matrices: torch.Tensor, eps: float = 1e-7) -> torch.Tensor:
    """Muon's update: singular values brought near 1 by five Newton-Schulz steps (Jordan et al., 2024).

    As upstream, of (..., m, n); but its bfloat16 takes three times as long on a CPU without it: there in float32.
    """
    if matrices.device.type != "cpu":
        return upstream_orthogonalised(matrices, eps)
    x = matrices.float() / (matrices.float().norm(dim=(-2, -1), keepdim=True) + eps)
    wide = x if x.shape[-2] <= x.shape[-1] else x.mT
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = wide @ wide.mT
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if x.shape[-2] <= x.shape[-1] else wide.mT


def own_amp_check() -> AbstractContextManager[Any]:
    """Within this context mixed precision is on wherever there is a GPU: upstream's check downloads a model."""
    on_gpu = lambda model: next(model.parameters()).device.type == "cuda"  # noqa: E731
    return mock.patch.object(ultralytics.engine.trainer, "check_amp", on_gpu)


@contextmanager
def own_args_yaml() -> Iterator[None]:
    """Within this context upstream's trainer writes no args.yaml: it would before a start that may yet fail. Nor does
    it print its 120 keys.
    """
    nothing = lambda *args, **kwargs: None  # noqa: E731
    trainer = ultralytics.engine.trainer
    with mock.patch.object(ultralytics.utils.YAML, "save", nothing), mock.patch.object(trainer, "print_args", nothing):
        yield


@contextmanager
def own_ranks() -> Iterator[None]:
    """Within this context upstream's loop and validator run in every process as if it were alone.

    So all come to the same decisions, by figures that are the same; who speaks, writes and saves is ours to say. Theirs
    wraps models, shards and reduces for GPUs only, reduces figures to one process, and lets the others guess.
    """
    modules = (ultralytics.engine.trainer, ultralytics.engine.validator)
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(mock.patch.multiple(module, RANK=-1, LOCAL_RANK=-1))
        if not ranks.first():  # loggers of experiments
            stack.enter_context(mock.patch.object(callbacks, "add_integration_callbacks", lambda _: None))
        yield


def own_data(load: Callable[[Any], dict[str, Any]]) -> AbstractContextManager[Any]:
    """Within this context the engine's validator reads data YAMLs by `load` instead of its own checker.

    The engine's checker knows no COCO JSON, downloads missing sets, and falls back to coco8; its call is not a method.
    """
    return mock.patch.object(ultralytics.engine.validator, "check_det_dataset", lambda data, **_: load(data))


def own_albumentations(given: Sequence[Any] | None) -> AbstractContextManager[Any]:
    """Within this context only the albumentations that are `given` enter a training.

    Upstream adds Blur, MedianBlur, ToGray and CLAHE of its own accord wherever the package happens to be installed.
    """
    none = mock.patch.object(ultralytics.data.augment, "Albumentations", lambda **_: Compose([]))
    return nullcontext() if given else none


class TinyPerspective(RandomPerspective):
    """RandomPerspective that keeps tiny objects and moves pixels and boxes alike.

    Upstream drops every box of 2 px or less and leaves its pixels in the picture as background, and it warps pixel
    centres by the matrix of pixel corners, which shifts the picture against its boxes by up to half the change in
    scale: .25 px at scale .5, a tenth of a 5 px object's IoU. A picture that is only moved, it resamples at half pixels
    where the margin is odd: 128x65 px in the middle of 128x128 become a blur of themselves.

    Attributes:
        own_size: an image keeps its size, but for the part beyond `size`, instead of being centred in `size`.
    """

    own_size = False

    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        """As upstream; a plain shift goes by whole pixels, of a margin those that `LetterBox` puts before an image."""
        if self.own_size and self.size:
            (height, width), most = labels["img"].shape[:2], self.size
            labels = {**labels, "rect_shape": (min(height, most[1]), min(width, most[0]))}
        params = super().get_params(labels)
        shift = params["M"][:2, 2]
        if (params["M"] == np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]])).all():
            params["M"][:2, 2] = np.ceil(shift - 0.5)
        return params

    def apply_image(self, labels: dict[str, Any], params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Warp by the same map as the boxes: corners at integers, pixel centres at halves."""
        given = params or {}
        centred = TO_CENTRES @ given["M"] @ TO_CORNERS  # of pixels
        return super().apply_image(labels, {**given, "M": centred.astype(np.float32)})

    @staticmethod
    def box_candidates(  # type: ignore[override]  # its other limits are what tiny boxes must not meet
        box1: np.ndarray, box2: np.ndarray, area_thr: float = MIN_VISIBLE, **_: Any
    ) -> np.ndarray:
        """(N,) bool: of which of the boxes (4, N) xyxy, before and after clipping, enough area is left."""
        before = (box1[2] - box1[0]) * (box1[3] - box1[1])
        width, height = box2[2] - box2[0], box2[3] - box2[1]
        return (width > 0) & (height > 0) & (width * height > area_thr * before)


class TinyMosaic(Mosaic):
    """Mosaic that draws its four images into one canvas again and again: new memory takes longer than what it holds.

    The perspective step, which comes next, makes an image of its own out of it.
    """

    canvas: np.ndarray | None = None

    def apply_image(self, labels: dict[str, Any], params: dict[str, Any] | None = None) -> dict[str, Any]:
        """As upstream."""
        if self.n != 4 or params is None:  # upstream's other mosaic is of nine
            return super().apply_image(labels, params)
        shape = (2 * self.imgsz, 2 * self.imgsz, labels["img"].shape[2])
        if self.canvas is None or self.canvas.shape != shape:
            self.canvas = np.empty(shape, np.uint8)
        self.canvas.fill(CANVAS)
        for part in params["layout"]:
            rows, columns = slice(part["y1b"], part["y2b"]), slice(part["x1b"], part["x2b"])
            self.canvas[part["y1a"] : part["y2a"], part["x1a"] : part["x2a"]] = part["labels_patch"]["img"][
                rows, columns
            ]
        labels["img"] = self.canvas
        return labels


class TinyHSV(RandomHSV):
    """RandomHSV that takes a grey image, as thermal cameras make, for what it is: only its brightness can change."""

    def apply_image(self, labels: dict[str, Any], params: dict[str, Any] | None = None) -> dict[str, Any]:
        """As upstream, into the same pixels."""
        image = labels["img"]
        if not (self.hgain or self.sgain or self.vgain) or (plane := grey_of(image)) is None:
            return super().apply_image(labels, params)
        gains = np.random.uniform(-1, 1, 3) * [self.hgain, self.sgain, self.vgain]  # noqa: NPY002 - upstream's state
        values = np.clip(np.arange(256, dtype=gains.dtype) * (gains[2] + 1), 0, 255).astype(np.uint8)
        cv2.cvtColor(cv2.LUT(plane, values), cv2.COLOR_GRAY2BGR, dst=image)
        return labels


def grey_of(image: np.ndarray) -> np.ndarray | None:
    """The one band (H, W) of an image (H, W, 3) uint8 whose three are the same; None of any other."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or (image[0, :, 1:] != image[0, :, :1]).any():
        return None
    blue, green, red = cv2.split(image)
    return blue if np.array_equal(blue, green) and np.array_equal(green, red) else None


class TinyFormat(Format):
    """Format with the same tensors in less time: it takes a tenth of what upstream's makes an image in."""

    def apply_instances(self, labels: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        """As upstream; boxes become fractions as arrays, which for a few of them is done ten times as fast."""
        if self.normalize and params["nl"]:
            params["instances"].bboxes[:, 0::2] /= params["w"]
            params["instances"].bboxes[:, 1::2] /= params["h"]
        upstream = copy(self)
        upstream.normalize = False
        return Format.apply_instances(upstream, labels, params)

    def _format_img(self, img: np.ndarray) -> torch.Tensor:
        """As upstream, of (H, W, 3), mirrored or not: OpenCV takes bands apart and turns them round faster."""
        if img.ndim != 3 or img.shape[2] != 3:
            return super()._format_img(img)
        down, right = (step > 0 for step in img.strides[:2])
        bands = cv2.split(np.ascontiguousarray(img[:: 1 if down else -1, :: 1 if right else -1]))
        out = np.empty((3, *img.shape[:2]), img.dtype)
        for plane, band in zip(out, bands[::-1] if random.uniform(0, 1) > self.bgr else bands, strict=True):
            if down and right:
                plane[:] = band
            else:
                cv2.flip(band, FLIPS[down, right], dst=plane)
        return torch.from_numpy(out)


quiet()
