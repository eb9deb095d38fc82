"""The predictor: ultralytics' sources and Results, our suppression."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from ultralytics.data.augment import LetterBox
from ultralytics.engine.results import Results
from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.utils import LOGGER
from ultralytics.utils.ops import convert_torch2numpy_batch, scale_boxes

from tinyyolo.compat import FileLoader
from tinyyolo.config import UserError
from tinyyolo.datasets import images
from tinyyolo.datasets.images import MISSING, look, save
from tinyyolo.datasets.kinds import lines_of_kinds, remarks
from tinyyolo.datasets.train.dataset import MAX_LISTED, report, why_not
from tinyyolo.detectors.base import filled
from tinyyolo.detectors.postprocess import AUTO, SHOWN_SCORE, of_run, score_words
from tinyyolo.engine.keys import OWN, share_of
from tinyyolo.engine.predict.fleet import Fleet, check_ray
from tinyyolo.engine.predict.maps import maps_of
from tinyyolo.engine.predict.results import WRITES, SceneResults, TinyResults, run_folder, scene_result
from tinyyolo.engine.predict.rows import name_in, write_rows
from tinyyolo.engine.predict.scenes import (
    Damaged,
    detect,
    fault_of,
    iou_inside,
    is_fixed,
    load,
    look_at,
    scene_of,
    set_half,
    size_of,
    stride_of,
)
from tinyyolo.engine.predict.shards import FOLDER, Share, file_of
from tinyyolo.engine.predict.sources import files_of, is_video, parted
from tinyyolo.engine.predict.unfinished import FOLDERS, Unfinished, any_left, appended, settings_of
from tinyyolo.engine.predict.videos import VIDEO, check_videos
from tinyyolo.export.runtime import Runtime, detections_in
from tinyyolo.io import place_in, tell
from tinyyolo.scenes.bands import rows_of
from tinyyolo.scenes.rendering import Rendering
from tinyyolo.scenes.tiling import Tiling
from tinyyolo.sizes import filled_up

NO_FRAMES = "not one frame can be read"
SHOW = 80  # characters of a wrong source in a message


class TinyPredictor(DetectionPredictor):
    """Predicts with any tinyyolo detector or its TorchScript export."""

    resumes = True  # what an interrupted run has found of its scenes is kept
    # Upstream starts these as None.
    dataset: Any
    batch: Any
    model: Any
    imgsz: Any
    plotted_img: Any

    def __init__(self, *args: Any, own: Mapping[str, Any] = OWN, **kwargs: Any) -> None:
        """As upstream; `own` are the keys that upstream does not know, `conf`, and the `max_det` that was asked for."""
        super().__init__(*args, **kwargs)
        self.own = own
        self.fleet: Fleet | None = None  # of engine=ray
        self.share: Share | None = None  # of shard=
        self.depends: dict[str, Any] | None = None
        self.others = False  # the small images of a batch are another shard's
        self.looked_at: dict[int, SceneResults] = {}  # by their places in a batch
        self.fitted: Any = ()  # of each image, height and width in the input
        self.unfinished: Unfinished | None = None  # what is kept of scenes until the run is done

    def settle(self, source: Any) -> None:
        """Find the rules, the files and what is left of an interrupted run; see `setup_source`."""
        self.rules = of_run(self.model, {**vars(self.args), "conf": self.own.get("conf", AUTO)}, SHOWN_SCORE)
        if isinstance(runtime := getattr(self.model, "model", None), Runtime):
            runtime.rules = self.rules
        self.tell_scores()
        set_half(self.model, self.own["half"])
        holders = (self.model, self.model.model)  # the engine's wrapper holds what an export says of itself
        self.pad_colour = next((found for one in holders if (found := getattr(one, "pad_colour", None))), None)
        self.rendering = Rendering.of(self.own)
        tiling = Tiling.of({**vars(self.args), **self.own}, stride_of(self.model), is_fixed(self.model))
        self.tiling = replace(tiling, inside=iou_inside(self.model))
        self.shown, self.found = str(source)[:SHOW], files_of(source)
        self.unfinished, self.share = None, None
        self.depends = None
        if self.own["engine"]:
            check_ray(self.model, self.own, self.found)
        keys = {**vars(self.args), **self.own}
        cut = self.resumes and self.found and self.tiling.tile
        self.keeps = bool(cut and any(keys.get(key) for key in (*WRITES, "shard")))
        if self.own["shard"]:
            self.share = self.shared(self.own["shard"])
        if self.keeps and (self.share or any_left(self.save_dir.parent)):
            self.save_dir = self.kept().run_folder(self.save_dir)

    def shared(self, shard: str) -> Share:
        """What a shard does, whose images alone are then looked at, and of which nothing but its file is written.

        Raises:
            UserError: not of image files.
        """
        if self.found is None:
            raise UserError(f"shard={shard}: of image files alone; source={self.shown}")
        files, root = self.found
        settings = self.settings()
        more = {"max_det": self.own.get("max_det"), "store": self.kept().key if self.keeps else ""}
        share = Share(share_of(shard) or (1, 1), files, root, self.args.batch, settings, more)
        if later := [f"{key}=" for key in WRITES[1:] if vars(self.args).get(key) or self.own.get(key)]:
            LOGGER.info(f"{share.words}: no {' '.join(later)} of a shard: `tinyyolo merge` writes the whole run's")
        self.args.save = self.args.save_txt = self.args.save_crop = self.args.show = False
        self.found = share.part, root
        base = getattr(self.args, "save_dir", None) or Path(self.args.project, self.args.name or self.args.mode)
        self.shard_file = file_of(Path(f"{base}{FOLDER}"), (share.number, share.count))
        return share

    def settings(self) -> dict[str, Any]:
        """What the detections depend on; made once, as a hash of all weights is in it."""
        if self.depends is None:
            files, _ = self.found or ([], None)
            self.depends = settings_of(self.model, {**vars(self.args), **self.own}, files, self.tiling, self.rules)
        return self.depends

    def kept(self) -> Unfinished:
        """`unfinished`, made when it is first needed: its settings are of no use to small images."""
        if self.unfinished is None:
            self.unfinished = Unfinished(self.save_dir.parent, self.settings(), bool(self.own["shard"]))
        return self.unfinished

    def setup_source(self, source: Any, stride: int | None = None) -> None:
        """As upstream; files are read one by one, and what cannot be read is noted in `bad_images`.

        Raises:
            UserError: nothing to read there, no kind of source, or a class that the model does not have.
        """
        self.bad_images: list[str] = []
        self.kinds: Counter[str] = Counter()  # of pictures that are not simply decoded
        self.frames: Counter[Path] = Counter()  # of each video that is written
        self.maps: Counter[str] = Counter()  # by the names of their pictures
        self.folder = None
        if self.found is not None:
            files, self.folder = self.found
            images, videos, absent = parted(files)
            if not files:
                raise UserError(f"source={self.shown}: No images or videos found")
            self.bad_images += [f"{path}: {MISSING}" for path in absent]
            decode = partial(load, rendering=self.rendering)
            source = FileLoader(images, videos, self.args.batch, self.args.vid_stride, self.bad, self.good, decode)
        try:
            super().setup_source(source, stride)
        except (OSError, TypeError, ValueError) as error:
            raise UserError(" ".join(f"source={self.shown}: {error}".split())) from error

    def tell_scores(self) -> None:
        """Which scores detections need, in a line, where the user has not given one number."""
        conf, score = self.own.get("conf"), self.rules.score
        said = ""
        if isinstance(score, tuple):
            said = score_words(score, self.model.names, self.rules.classes)
        elif conf == AUTO:
            said = f"{score} for every class, as {self.args.model} has no scores by a validation"
        if said and self.args.embed is None and self.args.verbose:
            LOGGER.info(f"{'conf=auto' if conf == AUTO else 'conf by class'}: {said}")

    def bad(self, path: str) -> None:
        """Note a file that cannot be read."""
        line = f"{path}: {NO_FRAMES if is_video(path) else fault_of(path, self.rendering) or why_not(path)}"
        self.bad_images += [] if line in self.bad_images else [line]

    def good(self, path: str) -> None:
        """Note what kind of image was read."""
        self.kinds.update(remarks(look(path), self.rendering))

    def stream_inference(self, source: Any = None, model: Any = None, *args: Any, **kwargs: Any) -> Iterator[Results]:
        """As upstream, then predictions.json with `save_json` and the images that could not be read.

        A run with scenes that is interrupted is taken up by the same command: see `Unfinished`. A shard gives nothing.

        Raises:
            UserError: not one could, or a video could not be written to its end.
        """
        if self.model is None:
            self.setup_model(model)
        self.settle(source if source is not None else self.args.source)
        if self.share and self.share.done(self.shard_file, self.args.exist_ok):
            LOGGER.info(f"{self.share.words}: done already: {self.shard_file}")
            return
        try:
            yield from self.whole_run(source, model, *args, **kwargs)
        finally:
            if self.fleet:
                self.fleet.close()
                self.fleet = None
            if self.unfinished:
                self.unfinished.release()

    def whole_run(self, *args: Any, **kwargs: Any) -> Iterator[Results]:
        """See `stream_inference`."""
        for name in FOLDERS:
            place_in(self.save_dir, f"{name}/file")  # no link there leads elsewhere
        self.there = [path.relative_to(self.save_dir).as_posix() for path in appended(self.save_dir)]
        with run_folder(self.save_dir):
            every: Iterator[Any] = super().stream_inference(*args, **kwargs)
            if self.share:
                self.leave(every, self.share)
                return
            results = (result for result in every if not getattr(result, "dropped", False))
            count = 0
            rows = self.save_dir / "predictions.json"
            paths = self.own["out"]
            with maps_of(paths) as maps:
                for result in write_rows(results, rows, lambda: self.folder) if self.args.save_json else results:
                    count += 1
                    if self.own["save_geojson"]:
                        self.save_map(result)
                    if paths:
                        maps.add(result, name_in(self.folder, result.path))
                    yield result
            if self.bad_images and not count:
                raise UserError(f"source={self.shown}: no readable image: {'; '.join(self.bad_images[:MAX_LISTED])}")
            check_videos(self.frames)
        if self.unfinished:
            self.unfinished.finish(self.save_dir)
        self.last_words()

    def leave(self, results: Iterator[Any], share: Share) -> None:
        """Write what a shard finds into its file."""
        with share.writing(self.shard_file, self.model.names, lambda: self.bad_images) as written:
            for result in results:
                written.add(result)
        self.last_words()

    def last_words(self) -> None:
        """What kinds of pictures there were, and which could not be read."""
        for line in lines_of_kinds(self.kinds):
            LOGGER.warning(line)
        report("", "unreadable images left out", self.bad_images)

    def save_map(self, result: Any) -> None:
        """Write a picture's GeoJSON; of two with one name the second is NAME-2. A video has no place on a map."""
        if self.dataset.mode == "video":
            tell(f"save_geojson=true: not of videos such as {result.path}")
            return
        stem = Path(result.path).stem
        self.maps[stem] += 1
        count = self.maps[stem]
        result.save_geojson(self.save_dir / f"{stem}{f'-{count}' if count > 1 else ''}.geojson")

    def save_predicted_images(self, save_path: Path, frame: int | None = 0) -> None:
        """As upstream, which does not look whether OpenCV could write.

        Raises:
            UserError: a video cannot be written.
        """
        if self.dataset.mode == "image":
            save(save_path.with_suffix(".jpg"), self.plotted_img, overwrite=True)
            return
        each, self.args.save_frames = self.args.save_frames, False  # upstream would write those itself
        super().save_predicted_images(save_path, frame)
        self.args.save_frames = each
        if not self.vid_writer[save_path].isOpened():
            raise UserError(f"{save_path}: the video cannot be written")
        self.frames[save_path.with_suffix(VIDEO)] += 1
        if each:
            stem = save_path.stem
            save(place_in(self.save_dir, f"{stem}_frames/{stem}_{frame}.jpg"), self.plotted_img, overwrite=True)

    def construct_result(self, *args: Any) -> TinyResults:
        """As upstream, as a `TinyResults`; of an image in a corner of the input its boxes as they lie there."""
        pred, img, image, path = args
        if self.pad_colour is None:
            result = super().construct_result(*args)
        else:
            fit = [new / old for new, old in zip(self.fitted.popleft(), image.shape[:2], strict=True)]
            pred[:, :4] = scale_boxes(img.shape[2:], pred[:, :4], image.shape, ratio_pad=(fit, (0, 0)))
            result = Results(image, path=path, names=self.model.names, boxes=pred[:, :6])
        result.__class__ = TinyResults
        return result

    def preprocess(self, im: Any) -> torch.Tensor:
        """As upstream, of the images that are not `scenes`; one that the network would shrink much is a scene."""
        whole = isinstance(im, torch.Tensor)
        self.scenes = [] if whole else [i for i, image in enumerate(im) if self.tiling.cuts(size_of(image))]
        for i, image in enumerate([] if whole else im):
            said, raster = [self.tiling.words(size_of(image))], getattr(image, "raster", None)
            if raster is not None and i in self.scenes:
                said.append(raster.words)
            elif raster is not None:
                raster.close()
                at_its_size = image.shape[:2] == raster.size_hw
                im[i] = np.asarray(image) if at_its_size else images.opened(raster.path, self.rendering)
            if words := ", ".join(filter(None, said)):
                LOGGER.info(words)
        small = im if not self.scenes else [image for i, image in enumerate(im) if i not in self.scenes]
        if not len(small):
            return torch.zeros(1, 3, self.tiling.tile, self.tiling.tile)
        batch = super().preprocess(small)
        self.fitted = deque([tuple(batch.shape[2:])] * len(batch) if whole else self.fitted)
        return batch if self.pad_colour is None else filled(batch, torch.tensor([*self.fitted]), self.pad_colour)

    def pre_transform(self, im: list[np.ndarray]) -> list[np.ndarray]:
        """As upstream; for a model that wants it in the left upper corner, grey beyond until `preprocess` fills it."""
        if self.pad_colour is None:
            return super().pre_transform(im)
        steps = LetterBox(self.imgsz, center=False)
        params = [steps.get_params({"img": one}) for one in im]
        self.fitted = [found["new_unpad"][::-1] for found in params]
        boxed = [steps.apply_image({"img": one}, found)["img"] for one, found in zip(im, params, strict=True)]
        if is_fixed(self.model) or not self.args.rect:
            return boxed
        height, width = (filled_up(max(sides)) for sides in zip(*self.fitted, strict=True))
        return [one[:height, :width] for one in boxed]

    def inference(self, im: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """As upstream, and scenes window by window; small images of other shards are not looked at."""
        others = self.share and not self.share.whole and not self.share.has((self.dataset.count - 1) // self.args.batch)
        self.others = bool(others)
        paths, pictures = cast(Any, self.batch)[:2]
        alone = self.others or len(self.scenes) == len(paths)
        found = None if alone else super().inference(im, *args, **kwargs)
        self.looked_at = {i: self.detect_scene(pictures[i], paths[i]) for i in self.scenes}
        return found

    def detect_scene(self, scene: np.ndarray, path: str) -> SceneResults:
        """The result of a scene; a `dropped` one where it cannot be read to its end, which is noted.

        Raises:
            UserError: what is found cannot be kept.
        """
        bands, started = None, time.perf_counter()
        if self.keeps and not is_video(path):  # whose frames have one name
            self.kept().begin(self.save_dir, self.there)
            bands = self.kept().scene(path)
        if self.own["engine"]:
            bands = self.by_ray().until(path, bands)
        parts, what = (self.tiling, self.model, self.rules, scene_of(scene), self.args.batch), Path(path).name
        try:
            if self.share and not self.share.whole and bands is not None:
                count = len(rows_of(self.tiling.windows(size_of(scene))))
                own = self.share.rows(self.dataset.count - 1, count)
                look_at(*parts, bands, what, own)
                result = scene_result(torch.zeros(0, 6), scene, path, self.model.names)
                result.bands = {i: found for i in own if (found := bands.get(i))}
            else:
                rows = detect(*parts, self.own.get("max_det"), bands, what)
                result = scene_result(rows, scene, path, self.model.names)
        except Damaged as error:
            self.bad_images.append(str(error))
            return self.dropped(scene, path)
        result.took = 1e3 * (time.perf_counter() - started)
        return result

    def by_ray(self) -> Fleet:
        """The actors, which look at all scenes of the run; they start with the first."""
        if self.fleet is None:
            rest = {"batch": self.args.batch, "rendering": self.rendering, "actors": self.own["actors"]}
            self.fleet = Fleet(self.model, self.tiling, self.rules, **rest)
            kept = self.kept().scene if self.keeps else None
            files = dict.fromkeys(self.dataset.files[: self.dataset.ni])
            self.fleet.start(list(files), kept)
        return self.fleet

    def dropped(self, image: np.ndarray, path: str) -> SceneResults:
        """What stands for an image without a result."""
        result = scene_result(torch.zeros(0, 6), image, path, self.model.names)
        result.dropped = True
        return result

    def write_results(self, i: int, p: Path, im: torch.Tensor, s: list[str]) -> str:
        """As upstream; nothing of a `dropped` result, and of a scene its own size and time."""
        results: Any = self.results
        result = results[i]
        if self.dataset.mode == "image":  # frames of a video stay of one size
            result.__dict__["plot"] = result.picture
        try:
            return self.written(result, i, p, im, s)
        finally:
            result.__dict__.pop("plot", None)

    def written(self, result: Any, i: int, p: Path, im: torch.Tensor, s: list[str]) -> str:
        """What `write_results` gives, of a result whose `plot` draws what is written."""
        if not isinstance(result, SceneResults):
            return super().write_results(i, p, im, s)
        if result.dropped:
            return ""
        cast(Any, result.speed)["inference"] = result.took
        return super().write_results(i, p, torch.empty((1, 3, *result.orig_shape), device="meta"), s)

    def postprocess(self, preds: Any, img: torch.Tensor, orig_imgs: Any, **_: Any) -> list[Results]:
        """Ultralytics Results per image; boxes in pixels of the original image."""
        small = detections_in(preds, self.rules) if preds is not None else []
        found = [
            torch.cat([boxes, scores[:, None], labels[:, None].to(boxes)], dim=1) for boxes, scores, labels in small
        ]
        if not isinstance(orig_imgs, list):
            orig_imgs = convert_torch2numpy_batch(orig_imgs)[..., ::-1]
        if not self.scenes and not self.others:
            return self.construct_results(found, img, orig_imgs)
        names: Any = self.batch[0]
        results, out = iter(found), list[Results]()
        for i, (image, path) in enumerate(zip(orig_imgs, names, strict=True)):
            if i in self.scenes:
                out.append(self.looked_at.pop(i))
            elif self.others:
                out.append(self.dropped(image, path))
            else:
                out.append(self.construct_result(next(results), img, image, path))
        return out
