"""Prediction of images too large for the network, in windows at their own resolution."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.utils import LOGGER

from tinyyolo.boxes.convert import Core, centres
from tinyyolo.boxes.nms import electorate
from tinyyolo.boxes.sparse import among
from tinyyolo.config import UserError
from tinyyolo.datasets.scene_files import open_scene
from tinyyolo.detectors.base import Detector
from tinyyolo.detectors.postprocess import Postprocess, boxes_and_scores
from tinyyolo.detectors.two_stage import centred_in
from tinyyolo.export.runtime import Runtime
from tinyyolo.io import Bar, tell
from tinyyolo.scenes.bands import Bands, rows_of
from tinyyolo.scenes.picture import Picture, Scene
from tinyyolo.scenes.raster import Raster, overview
from tinyyolo.scenes.rendering import AS_DECLARED, Rendering, thinned
from tinyyolo.scenes.sweep import Found, gathered, give_back, joined, sweep
from tinyyolo.scenes.tiling import Tiling
from tinyyolo.scenes.windows import Span, Window
from tinyyolo.sizes import ENGINE_STRIDE, PAD

SHOWN = 1600  # px of the longer side of a scene that is drawn at its own size; of a larger one an overview of so many
MOST_HELD = 1_000_000  # candidates of a scene, 24 bytes each, of which none is left out
WHOLE = "detections"  # of a scene, beside its bands


class SceneImage(np.ndarray):
    """An image (h, w, 3) uint8 BGR with more to it.

    Attributes:
        raster: the scene that is read by windows. Its overview is drawn when it is asked for (`blank`): until then all
            of it is grey, of one byte.
        masked: the picture with its mask.
    """

    raster: Raster | None = None
    masked: Picture | None = None
    blank = False


def load(path: str, rendering: Rendering = AS_DECLARED) -> np.ndarray:
    """An image as training reads it; of what is read by windows its overview, `blank` where that is not all of it.

    Raises:
        ValueError: it cannot be read; says why.
    """
    scene = open_scene(path, rendering)
    if isinstance(scene, Picture):
        if scene.valid is None:
            return scene.pixels
        scene.pixels[~scene.valid] = PAD
        image = scene.pixels.view(SceneImage)
        image.masked = scene
        return image
    if max(scene.size_hw) <= SHOWN:
        image = overview(scene, SHOWN).view(SceneImage)
    else:
        scene.read(Window(*(Span(0, 1, 0, 1),) * 2))  # what cannot be read at all is told at once
        image = np.broadcast_to(np.full((1, 1, 3), PAD, np.uint8), (*thinned(scene.size_hw, SHOWN), 3)).view(SceneImage)
        image.blank = True
    image.raster = scene
    return image


def fault_of(path: str, rendering: Rendering = AS_DECLARED) -> str:
    """Why `load` cannot read a file; "" if it can."""
    try:
        load(path, rendering)
    except ValueError as error:
        return str(error).removeprefix(f"{path}: ")
    return ""


def scene_of(image: np.ndarray) -> Scene:
    """The scene that an image is, or that stands behind it."""
    own = (image.raster or image.masked) if isinstance(image, SceneImage) else None
    return own or Picture(np.asarray(image))


def size_of(image: np.ndarray) -> tuple[int, int]:
    """Height and width of an image, or of the scene behind it."""
    raster = image.raster if isinstance(image, SceneImage) else None
    height, width = image.shape[:2] if raster is None else raster.size_hw
    return height, width


class Damaged(UserError):
    """A part of a scene that cannot be read; the run goes on without the scene."""


def detect(
    tiling: Tiling,
    model: Any,
    rules: Postprocess,
    scene: Scene,
    batch: int,
    max_det: int | None = None,
    bands: Bands | None = None,
    what: str = "",
) -> Tensor:
    """Detections (K, 6) xyxy px of a scene, score, class.

    They do not depend on the order of the windows nor on which bands were there before; on a CPU neither on `batch`,
    as windows are looked at one by one there, which is quicker, too.

    Args:
        tiling: how it is cut.
        model: the engine's wrapper of a Detector or of an export.
        rules: what of the candidates is a detection.
        scene: an open one; it is closed at the end.
        batch: windows at once.
        max_det: at most so many; a model's own limit is that of an image, and does not count for scenes.
        bands: what has been found already, and where the rest is kept; None for a folder that goes with the call.
        what: the words before the bar; "" for none.

    Raises:
        Damaged: a part of the scene cannot be read.
        UserError: the disk is full.
    """
    if bands is None:
        with TemporaryDirectory(prefix="tinyyolo-") as folder:
            return detect(tiling, model, rules, scene, batch, max_det, Bands(Path(folder)), what)
    if (known := bands.get(WHOLE)) is None:
        look_at(tiling, model, rules, scene, batch, bands, what)
        known = whole_scene(replace(tiling, inside=iou_inside(model)), rules, scene.size_hw, bands, max_det)
        bands.put(WHOLE, *known)
        bands.drop(len(rows_of(tiling.windows(scene.size_hw))))
    found, empty = known
    if empty:
        LOGGER.info(f"{empty} of {len(tiling.windows(scene.size_hw))} tiles have no valid pixel: left out")
    return as_rows(found).to(device_of(model))


def as_rows(found: Found) -> Tensor:
    """(K, 6) xyxy px, score, class."""
    return torch.cat([found.boxes, found.scores[:, None], found.labels[:, None].to(found.boxes)], 1)


def whole_scene(
    tiling: Tiling, rules: Postprocess, size_hw: tuple[int, int], bands: Bands, max_det: int | None
) -> tuple[Found, int]:
    """Detections in pixels of a scene from all its bands, and how many of its windows had no valid pixel."""
    windows = tiling.windows(size_hw)
    found, empty = united(rules, bands, len(rows_of(windows)), max_det)
    if tiling.inside is not None:
        found = once_at_seams(found, windows, tiling.inside)
    height, width = tiling.scaled(size_hw)
    scale = found.boxes.new_tensor([size_hw[1] / width, size_hw[0] / height] * 2)
    return found._replace(boxes=found.boxes * scale), empty


def look_at(
    tiling: Tiling,
    model: Any,
    rules: Postprocess,
    scene: Scene,
    batch: int,
    bands: Bands,
    what: str = "",
    own: Sequence[int] | None = None,
) -> None:
    """Find the candidates of those bands of a scene that are not there yet: see `detect`.

    Args:
        own: only these bands; None for all.
    """
    every = rows_of(tiling.windows(scene.size_hw))
    own = range(len(every)) if own is None else own
    missing = [i for i in own if bands.get(i) is None] if bands.get(WHOLE) is None else []
    total, left = (sum(len(every[i]) for i in some) for some in (own, missing))
    if what and 0 < left < total:
        LOGGER.info(f"{what}: goes on, {total - left} of {total} tiles are done")
    scene.close()  # the thread that reads opens it for itself
    ground = Ground(scene, tiling.zoom)
    pad = tiling.tile if is_fixed(model) else ENGINE_STRIDE
    todo = [window for i in missing for window in every[i]]
    at_once = 1 if device_of(model).type == "cpu" else batch
    swept = sweep(todo, ground.read, net_of(model, rules), tiling.scaled(scene.size_hw), pad, at_once)
    shown = Bar(total, what, total - left, "tiles") if what else nullcontext()
    with closing(swept), closing(scene), shown as bar:
        for i in missing:
            parts: list[Found] = []
            empty = seen = 0
            while seen < len(every[i]):
                for window, found in (group := next(swept)):
                    empty += found is None
                    parts += [] if found is None else [ground.on(window, found)]
                seen += len(group)
                if bar is not None:
                    bar.add(len(group))
            bands.put(i, joined(parts), empty)
            give_back()


def united(rules: Postprocess, bands: Bands, count: int, max_det: int | None) -> tuple[Found, int]:
    """Detections from all bands, and how many windows had no valid pixel.

    Where there are very many candidates, those that nobody can hear are left out band by band, which changes nothing.
    """
    total = empty = 0
    parts: list[Found] = []
    for found, without in bands.all(count):
        total, empty = total + len(found.scores), empty + without
        parts += [found] if total <= MOST_HELD else []
    if total > MOST_HELD:
        able = joined([found.of(rules.able(found.scores, found.labels)) for found, _ in bands.all(count)])
        parts = [heard(rules, able, found) for found, _ in bands.all(count)]
    every, rows = gathered(parts, rules.able)
    return Found(*rules.of_candidates(*every, max_det, rows)), empty


def once_at_seams(found: Found, windows: Sequence[Window], iou: float) -> Found:
    """Detections without those that overlap a better one of their class by more than `iou` over a seam of cores.

    For a head that suppresses inside: it sees one window, and two windows may box one object on either side of a seam.

    Args:
        found: by falling score, px of the windows' scene.
        windows: of the scene, whose cores part it.
        iou: that of the head itself.

    Examples:
        >>> y = Span(0, 64, 0, 64)
        >>> left, right = Window(Span(0, 80, 0, 64), y), Window(Span(48, 128, 64, 128), y)
        >>> boxes = torch.tensor([[59.0, 0, 68, 8], [60, 0, 69, 8], [58, 0, 67, 8]])  # centres at x = 63.5, 64.5, 62.5
        >>> found = Found(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 0]))
        >>> once_at_seams(found, [left, right], 0.5).boxes[:, 0].tolist()
        [59.0, 58.0]
    """
    cores = []
    for name, middle in zip("xy", centres(found.boxes).T.contiguous(), strict=True):
        starts = sorted({getattr(window, name).core_start for window in windows})
        cores.append(torch.bucketize(middle, middle.new_tensor(starts), right=True))
    core, across = torch.stack(cores, 1), []
    for i, j in among(found.boxes, found.labels, iou):
        other = (core[i] != core[j]).any(1)
        across += torch.stack([i[other], j[other]], 1).tolist()
    keep = torch.ones(len(core), dtype=torch.bool, device=core.device)
    for better, worse in sorted(across):
        if keep[better]:
            keep[worse] = False
    return found.of(keep)


def heard(rules: Postprocess, able: Found, part: Found) -> Found:
    """Of the candidates of a band those that may become detections, or vote on one of the `able` of the scene."""
    if not len(part.scores):
        return part
    near = able.of((able.boxes[:, 3] > part.boxes[:, 1].min()) & (able.boxes[:, 1] < part.boxes[:, 3].max()))
    own = rules.able(part.scores, part.labels)
    voters = part.of(~own)
    voters = voters.of(electorate(voters.boxes, voters.labels, near.boxes, near.labels))
    return joined([part.of(own), voters])


class Ground:
    """Reads the windows of a scene, and knows where they are valid."""

    def __init__(self, scene: Scene, zoom: float):
        self.scene, self.zoom = scene, zoom
        self.valid: dict[Window, np.ndarray] = {}  # of the windows that are read and valid in part

    def read(self, window: Window) -> np.ndarray | None:
        """The pixels of a window, what is not valid as grey as what the engine pads with; None where nothing is.

        Raises:
            Damaged: it cannot be read.
        """
        try:
            pixels, valid = self.scene.read(window, self.zoom)
        except UserError as error:
            raise Damaged(str(error)) from error
        if not valid.any():
            return None
        if not valid.all():
            pixels[~valid], self.valid[window] = PAD, valid
        return pixels

    def on(self, window: Window, found: Found) -> Found:
        """The candidates of a window whose centre is valid."""
        if (valid := self.valid.pop(window, None)) is None:
            return found
        middle = (centres(found.boxes) - found.boxes.new_tensor(window.origin)).long().cpu().numpy()
        x, y = (middle[:, axis].clip(0, valid.shape[1 - axis] - 1) for axis in (0, 1))
        kept = torch.from_numpy(valid[y, x]).to(found.boxes.device)
        return found.of(kept)


def net_of(model: Any, rules: Postprocess) -> Any:
    """What `sweep` asks of a model: candidates of the core of each window."""

    def detector(images: Tensor, core: Core) -> list[tuple[Tensor, Tensor, Tensor]]:
        net = model.model
        images = images.to(next(net.parameters()))
        _, *found = net.look(images, core, rules.least)
        return [rules.candidates(*one) for one in zip(*found, strict=True)]

    def export(images: Tensor, core: Core) -> list[tuple[Tensor, Tensor, Tensor]]:
        """An export does not say where its candidates come from: they belong where their centre lies."""
        look = partial(model.model.candidates, rules=rules) if isinstance(model.model, Runtime) else model
        found = boxes_and_scores(look(images.to(model.device)))
        owned = ((boxes, scores * centred_in(boxes, core)[:, None]) for boxes, scores in zip(*found, strict=True))
        return [rules.candidates(boxes, scores) for boxes, scores in owned]

    return export if is_export(model) else detector


def set_half(model: Any, half: bool) -> None:
    """Let the engine's wrapper of a Detector compute as `half=` says, and tell what that is."""
    if is_export(model):  # has its own precision: `Model.arguments` refuses half=true
        return
    model.model.half_maps = half
    if half:
        device = device_of(model).type
        slow = ", which most processors take longer for than for float32" if device == "cpu" else ""
        tell(f"half=true: maps in float16 on {device}{slow}; boxes and suppression in float32")


def device_of(model: Any) -> torch.device:
    """Where the engine's wrapper of a Detector or of an export runs."""
    device: torch.device = model.device if is_export(model) else next(model.model.parameters()).device
    return device


def iou_inside(model: Any) -> float | None:
    """The IoU that a detector's head suppresses at inside, over one window at a time; None for all others."""
    return None if is_export(model) else getattr(getattr(model.model, "roi_head", None), "nms_iou", None)


def is_export(model: Any) -> bool:
    """Whether the engine's wrapper holds an export instead of a Detector."""
    return not isinstance(model.model, Detector)


def is_fixed(model: Any) -> bool:
    """Whether the engine's wrapper holds an export that takes one size alone."""
    return is_export(model) and not isinstance(model.model, Runtime)


def stride_of(model: Any) -> int:
    """The largest stride of a detector's maps; of an export the engine's."""
    if is_export(model):
        return ENGINE_STRIDE
    neck: Any = model.model.neck
    return max(ENGINE_STRIDE, *map(int, neck.strides))
