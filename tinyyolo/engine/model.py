"""`Model`: one object to train, validate and predict with any detector of the package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from ultralytics.cfg import get_save_dir
from ultralytics.engine.model import Model as EngineModel
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER
from ultralytics.utils.callbacks import get_default_callbacks

from tinyyolo import ranks, together
from tinyyolo.config import NO_TUNER, UserError, find_yaml, load_model_yaml, path_of, shipped_weights, shown
from tinyyolo.detectors import tensor_files
from tinyyolo.detectors.base import Detector
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.postprocess import AUTO, Postprocess
from tinyyolo.detectors.transfer import Start, carry_over
from tinyyolo.detectors.weights import class_names, load_reference
from tinyyolo.engine import checkpoint
from tinyyolo.engine.arguments import check_device, engine_args, resolve, with_file
from tinyyolo.engine.checkpoint import plain
from tinyyolo.engine.contents import check_content, own_yaml
from tinyyolo.engine.deploy.calibrate import beside, calibration
from tinyyolo.engine.deploy.opened import opened
from tinyyolo.engine.deploy.write import refuse_format, to_onnx, to_openvino
from tinyyolo.engine.keys import OWN
from tinyyolo.engine.many.devices import check_shared, gpus_of, on_gpu, own_device
from tinyyolo.engine.many.launch import start
from tinyyolo.engine.many.restart import last_of_run, remember_run
from tinyyolo.engine.predict.maps import checked
from tinyyolo.engine.predict.results import WRITES, run_folder
from tinyyolo.engine.predict.sources import check_source, is_files, named
from tinyyolo.engine.predictor import TinyPredictor
from tinyyolo.engine.prepare import data_of, looked_at, with_gains
from tinyyolo.engine.stopping import stoppable
from tinyyolo.engine.track.files import check_form
from tinyyolo.engine.track.following import Following
from tinyyolo.engine.track.predictor import TinyTracker
from tinyyolo.engine.track.settings import constant_of, settings_of
from tinyyolo.engine.trainer import TinyTrainer
from tinyyolo.engine.validator import TinyMetrics, TinyValidator
from tinyyolo.export.graph import sides
from tinyyolo.export.openvino import FOLDER
from tinyyolo.export.safetensors import safetensors
from tinyyolo.export.torchscript import check_trust, metadata, torchscript
from tinyyolo.io import some, sweep

FORMATS = ("onnx", "openvino", "torchscript", "safetensors")
DEPLOYED = ("onnx", "openvino")  # formats with suppression, of several precisions
SETTINGS = {"nms": DEPLOYED, "half": DEPLOYED, "int8": ("onnx",)}  # keys of some formats alone
NNCF = "; OpenVINO computes its graph otherwise and loses AP: use nncf.quantize on the folder of float32"
CALIBRATION = ("data", "split", "fraction")  # keys of int8 alone
FILES = (
    ".pt",
    ".pth",
    ".safetensors",
    ".torchscript",
    ".ts",
    ".onnx",
    FOLDER,
    f"{FOLDER}_model",
    ".yaml",
    ".yml",
)  # others: names in cfg/models
SMALLEST = "tinyyolo-n.yaml"  # what is trained where no model is named
SHOWN = ("bands", "stretch")  # of the files, which a model sees as in its training
KEPT = ("imgsz", "data", "single_cls", *SHOWN)  # training arguments that validation and prediction start from
KEPT_OWN = ("tile", "overlap", "zoom")  # the same, of our own keys
PARTS = {"model": Detector, "trainer": TinyTrainer, "validator": TinyValidator, "predictor": TinyPredictor}
# A 2 px line and a label would hide what they mark.
DRAWING = {"line_width": 1, "show_labels": False, "show_conf": False}


class Model(EngineModel):
    """A detector by name, YAML or checkpoint.

    `.model` is built when it is first asked for: training builds its own, for the classes of its data.

    Args:
        model: a name in cfg/models ("tinyyolo-n.yaml"), a path to a model YAML, to a checkpoint (.pt, .safetensors)
            or to an export (.onnx, .torchscript, NAME_openvino); "tinyyolo-n.pt" is the one that comes with the
            package, where there is no file of that name.
        overrides: dotted keys of the model YAML, {"head.assigner.topk": 3}; strings are parsed.
        verbose: print the model's summary.
        trust: run a .torchscript file that this process has not written: it is code, and could do anything.

    Raises:
        UserError: no such model, a damaged file or one of another kind, an override in a section that the model does
            not have, or an export that is not trusted.

    Examples:
        >>> from tinyyolo import Model
        >>> model = Model("tinyyolo-n.yaml", overrides={"head.assigner.topk": "2"})
        >>> model.model.yaml["head"]["assigner"]["topk"]
        2
    """

    # Upstream sets these to None or a path first, which is all that their types know.
    model: Any
    cfg: Any
    ckpt: Any
    ckpt_path: Any
    metrics: Any
    model_name: Any
    task: Any
    trainer: Any

    def __init__(
        self,
        model: str | Path = "tinyyolo-n.yaml",
        overrides: Mapping[str, Any] | None = None,
        task: str | None = "detect",
        verbose: bool = False,
        trust: bool = False,
    ):
        if task not in {None, "detect"}:
            raise UserError(f"task={task}: every tinyyolo model is task=detect")
        self._given = dict(overrides or {})
        self.spec: dict[str, Any] = {}  # the resolved model YAML
        self.shown: dict[str, Any] = {}  # the bands and stretch of its training
        self.looks: dict[str, Any] = {}  # how it looked at large images when it was trained
        self.exported: dict[str, Any] = {}  # what an export says of itself
        self._trust, self._loaded = trust, False  # whether load() has changed the weights of what it is from
        self._own: dict[str, Any] = dict(OWN)  # what the last prediction was asked for
        self.following: Following | None = None  # the tracks of the last call
        model = str(model).rstrip("/\\") or str(model)
        known = model.lower().endswith(FILES)
        super().__init__(model if known else f"{model}.yaml", task="detect", verbose=verbose)

    @property
    def task_map(self) -> dict[str, dict[str, Any]]:
        """The engine's parts; one task for every detector."""
        return {"detect": PARTS}

    def _new(self, cfg: str, task: str | None = None, verbose: bool = False) -> None:
        """Read a model YAML."""
        if self._trust:
            LOGGER.info(f"trust=true: not needed, {cfg} is a YAML, which holds no code")
        path = find_yaml(cfg, "cfg/models")
        self.spec = load_model_yaml(path, self._given)
        self.cfg = str(path)
        self._from(path)
        if verbose:
            self.model.info()

    def _load(self, weights: str, task: str | None = None) -> None:
        """Load a checkpoint, or keep the path of an export."""
        if given := ", ".join(self._given):
            raise UserError(f"{weights}: a model's YAML cannot be overridden once it is trained; found {given}")
        if (runtime := opened(Path(weights).expanduser())) is not None:
            self._run(runtime.path, runtime.said)
            self.model = runtime
            if self._trust:
                LOGGER.info(f"trust=true: not needed, {runtime.path} holds no code")
            return
        path, *_ = tensor_files.start(weights)
        if path.suffix.lower() not in {".torchscript", ".ts"}:
            self._hold(path, checkpoint.load(path))
            if self._trust:
                LOGGER.info(f"trust=true: not needed, {path} holds no code")
            return
        self.exported = metadata(path)
        if path.suffix != ".torchscript":
            raise UserError(f"{path}: TorchScript: rename it NAME.torchscript, and give trust=true if you trust it")
        check_trust(path, self._trust)
        self._run(path, self.exported)
        self.model = str(path)

    def _run(self, path: Path, said: dict[str, Any]) -> None:
        """Be an export that says this of itself."""
        self.exported = said
        height, width = self.exported["imgsz"]
        shown_by = {key: value for key, value in (self.exported.get("rendering") or {}).items() if key in SHOWN}
        self.looks = {key: value for key, value in (self.exported.get("looks") or {}).items() if key in KEPT_OWN}
        self._from(path, imgsz=height if height == width else [height, width], **shown_by)
        self.ckpt_path, self.ckpt = str(path), None

    def _hold(self, path: Path, content: dict[str, Any]) -> None:
        """Be the model of a checkpoint."""
        self.ckpt, self.spec, self._given, self.predictor = content, own_yaml(content), {}, None
        self.ckpt_path, self._loaded = str(path), False
        kept = {key: content["train_args"].get(key) for key in KEPT}
        self._from(path, **{key: value for key, value in kept.items() if value is not None})
        self.looks = {key: content["train_args"][key] for key in KEPT_OWN if content["train_args"].get(key) is not None}

    def _from(self, path: Path, **kept: Any) -> None:
        """Remember where this model is from and how to run it; the network is built when it is asked for."""
        self.shown = {key: kept.pop(key, None) for key in SHOWN}
        self.model_name, self.overrides = str(path), {"model": str(path), "task": "detect", **kept}
        self.__dict__.pop("model", None)
        self._modules.pop("model", None)

    def __getattr__(self, name: str) -> Any:
        """As upstream, which looks up the network's attributes; builds it first."""
        if name == "model" and "model" not in self._modules:
            if self.ckpt:
                self.model = checkpoint.to_model(self.ckpt, self.ckpt_path)
            else:
                self.model = build_model(self.spec)
                self.model.args = {**DEFAULT_CFG_DICT, **self.overrides}
        return super().__getattr__(name)

    def load(self, weights: Any) -> Model:  # type: ignore[override]  # upstream's default is a file it downloads
        """Copy weights into this model: a tinyyolo checkpoint, or the authors' by name ({"state_dict": ...}).

        Args:
            weights: a path (.pt, .pth, .safetensors), a state dict (bare, or under "state_dict"), or a module.

        Raises:
            UserError: no such file, or weights of another model.
        """
        self._check_is_pytorch_model()
        source, content = "state dict", weights.state_dict() if isinstance(weights, torch.nn.Module) else weights
        if isinstance(weights, (str, Path)):
            source, content = str(weights), tensor_files.read(weights)
        if isinstance(content, dict) and "yaml" in content:
            content = check_content(content, Path(source))
            fits = carry_over(self.model, Start(source, content["model"]))
            if (count := len(fits.loaded)) < (total := fits.total) // 2:
                raise UserError(f"{source}: the weights of another model: {count} of {total} tensors fit")
            same = count == total and content["names"] == self.model.names
            self.model.thresholds = content.get("thresholds") if same else None
        else:
            self._load_reference(content, source)
            self.model.thresholds = None
        self.predictor = None
        self._loaded, self.ckpt = True, self.ckpt or {"loaded": True}  # training then starts from these weights
        return self

    def _load_reference(self, content: Any, source: str) -> None:
        """Load the authors' weights, for the classes that their checkpoint names."""
        names = class_names(content)
        if names and len(names) != self.model.nc and not self.ckpt:
            self.spec = {**self.spec, "nc": len(names)}
            del self.model  # built anew for its classes
        print(load_reference(self.model, content, source))
        if names:
            self.model.names = dict(enumerate(names))
        else:
            print(f"{source}: names no classes; they stay {', '.join(some([*self.model.names.values()], 3, ''))}")

    def save(self, filename: str | Path = "saved_model.pt") -> None:
        """Write a checkpoint that predicts."""
        self._check_is_pytorch_model()
        checkpoint.save(Path(filename), checkpoint.of_model(self.model, dict(self.model.args or {})))

    def train(  # type: ignore[override]  # upstream's own trick: an nn.Module whose train() trains
        self, trainer: type[TinyTrainer] | None = None, **kwargs: Any
    ) -> TinyMetrics | None:
        """Train; the best checkpoint becomes this model.

        Args:
            trainer: a subclass of `TinyTrainer`.
            kwargs: training arguments, over the model YAML's `train:` and cfg/default.yaml; `data` is a data YAML.
                `resume=True` continues the checkpoint this model was loaded from, `resume=path` another. A YAML's model
                starts from weights that come with the package, if there are any of its size, or from `pretrained=path`;
                `pretrained=False` is from scratch.

        Returns:
            The best checkpoint's metrics.

        Raises:
            UserError: an unknown key, a bad value, missing data, or nothing to resume.
        """
        self._check_is_pytorch_model()
        self.trainer = None
        with stoppable(lambda: self.trainer.way_on() if self.trainer else "nothing has been saved yet"):
            self._train(trainer, kwargs)
        return self.metrics

    def _train(self, trainer: type[TinyTrainer] | None, kwargs: dict[str, Any]) -> None:
        """Train, see `train`."""
        parts: dict[str, Any] = {}
        if (last := kwargs.get("resume")) is not None and last is not False:
            given = {key: value for key, value in kwargs.items() if key != "resume"}
            parts["content"], args = checkpoint.to_resume(self.ckpt_path if last is True else last, given)
            parts["spec"] = parts["content"]["yaml"]
        else:
            given = with_file("train", kwargs)
            recipe = self.spec.get("train") or {}
            args = resolve("train", {**self.test_keys(), **recipe}, given)
            self.tell_other_pixels(args)
            parts["spec"], gains = with_gains(self.spec, {**recipe, **given})
            args |= {**gains, "model": self.overrides["model"]}
            if isinstance(first := args["pretrained"], (str, Path)):
                parts["weights"] = checkpoint.start_of(first)
            elif self.ckpt and first is not False:
                state = self.model.state_dict() if "model" in self._modules else self.ckpt["model"]
                parts["weights"] = Start(self.ckpt_path or "the loaded weights", state, self.ckpt.get("names"))
            elif first is not False:
                parts["weights"] = checkpoint.shipped_for(self.spec, asked="pretrained" in given)
        check_device(args["device"])
        check_shared(args)
        if count := gpus_of(args["device"]):
            self._train_apart(count, trainer, kwargs, get_save_dir(SimpleNamespace(**args)))
            return
        with together.joined(on_gpu(own_device(args["device"]))):
            if together.several():
                together.once_per_node(lambda: data_of({**args}) and None)  # a drawn set is drawn once
            if ranks.restarts() and "content" not in parts and (last := together.from_first(last_of_run)):
                LOGGER.info(f"torchrun has started the processes again: going on with {last}")
                parts["content"], args = checkpoint.to_resume(last, {})
                parts["spec"] = parts["content"]["yaml"]
                parts.pop("weights", None)
            parts["data"] = data_of(args)
            with self._folder(args) as folder:
                remember_run(folder)
                args["save_dir"] = str(folder)
                self.trainer = (trainer or TinyTrainer)(overrides=args, _callbacks=self.callbacks, **parts)
                self.trainer.train()
        if ranks.first():
            best = self.trainer.best if self.trainer.best.exists() else self.trainer.last
            self._hold(best, checkpoint.load(best))
            self.model, self.metrics = self.trainer.detector, self.trainer.validator.metrics

    @staticmethod
    @contextmanager
    def _folder(args: Mapping[str, Any]) -> Iterator[Path]:
        """The folder of a run, in which the first process alone makes order."""
        folder = together.from_first(lambda: get_save_dir(SimpleNamespace(**args)))
        with run_folder(folder) if ranks.first() else nullcontext():
            if ranks.first():
                sweep(folder, deep=True)
            yield folder

    def _train_apart(self, count: int, trainer: Any, kwargs: Mapping[str, Any], folder: Path) -> None:
        """Train on several GPUs, by a process for each, which know what is typed and nothing of this process."""
        stock = get_default_callbacks()
        own = [name for name, calls in self.callbacks.items() if len(calls) > len(stock.get(name, []))]
        unknown = {
            "trainer=": trainer,
            "callbacks": own,
            "load()": self._loaded,
            "augmentations=": kwargs.get("augmentations"),
        }
        for words in (words for words, given in unknown.items() if given):
            run = f"start this script by torchrun --nproc-per-node={count}, without device="
            raise UserError(
                f"device={shown(kwargs.get('device'))}: its processes know nothing of {words} in this one; {run}"
            )
        keys = {**self._given, **with_file("train", kwargs), "save_dir": str(folder)}
        if keys.get("resume") is True:
            keys["resume"] = self.ckpt_path
        if resuming := bool(keys.get("resume")):
            folder = path_of(keys["resume"], "resume=").resolve().parent.parent
            del keys["save_dir"]
        start(count, SMALLEST if resuming else str(self.overrides["model"]), plain(keys))
        best = next(path for name in ("best.pt", "last.pt") if (path := folder / "weights" / name).exists())
        self._hold(best, checkpoint.load(best))
        self.metrics = TinyMetrics.of_run(folder)

    def val(self, validator: type[TinyValidator] | None = None, **kwargs: Any) -> TinyMetrics:
        """Validate on `data` (by default the training data), `split=` val or test.

        Returns:
            Metrics by name: `.AP`, `.AP50`, `.AP_vt`, `.AR1500`, `.per_class["ship"]["AP"]`, fractions.

        Raises:
            UserError: a key or value that does not fit, missing data, or no class in common with it.
        """
        given = with_file("val", kwargs)
        args = self.arguments("val", {"plots": True, "rect": True}, given)
        own = {key: args[key] for key in OWN} | {"max_det": given.get("max_det")}
        args = engine_args(args)
        data_of(args)
        if isinstance(args["imgsz"], list):
            args["imgsz"] = max(args["imgsz"])  # the engine then takes both sides from the export
        args["device"] = own_device(args["device"])
        with together.joined(on_gpu(args["device"])), self._folder(args) as folder:
            self.validator = (validator or TinyValidator)(save_dir=folder, args=args, _callbacks=self.callbacks)
            vars(self.validator.args).update({key: own[key] for key in OWN})
            self.validator.own, self.validator.pad_colour = own, self.exported.get("pad_colour")
            self.validator(model=self.model)
        self.metrics = self.validator.metrics
        return self.metrics

    def predict(self, source: Any = None, stream: bool = False, predictor: Any = None, **kwargs: Any) -> Any:
        """Ultralytics Results of images, folders, globs, videos, arrays; see its documentation.

        Raises:
            UserError: no source, one that does not exist, or a key or value that does not fit.
        """
        return self._look("predict", source, stream, predictor, kwargs)

    def track(self, source: Any = None, stream: bool = False, persist: bool = False, **kwargs: Any) -> Any:
        """Ultralytics Results of the frames of videos, folders and lists of images, streams or arrays, with `boxes.id`.

        Detections continue a track by `association=`, nwd unless told otherwise, under ByteTrack or BoT-SORT
        (`tracker=`, a name or your own YAML, see docs/track.md). Images of one folder are the frames of one video.

        Args:
            source: as `predict` takes it.
            stream: a generator instead of a list: a video's frames are then not held in memory.
            persist: go on with the tracks of the last call, for frames that come one by one.
            kwargs: as `predict` takes them, and `tracker`, `association`; `out` is NAME.txt for MOT text, or NAME.json.

        Raises:
            UserError: as `predict`, or no such tracker, or a key or value in its YAML that does not fit.
        """
        return self._look("track", source, stream, None, kwargs | ({"persist": persist} if persist else {}))

    def _look(self, mode: str, source: Any, stream: bool, predictor: Any, kwargs: Mapping[str, Any]) -> Any:
        """Predict or track."""
        given = with_file(mode, kwargs)
        args = self.arguments(mode, {"conf": AUTO, "batch": 1, "rect": True, "save": False, **DRAWING}, given)
        check_source(source)  # after the keys: surce= is told, not that source= is missing
        if said := [
            f"{key}={shown(given[key])}" for key in SHOWN if given.get(key) is not None and not is_files(source)
        ]:
            LOGGER.warning(f"{' '.join(said)}: bands and values are for files, not for source={named(source)}")
        if args["embed"] is not None:
            self._check_is_pytorch_model()
            if written := [key for key in WRITES if args.get(key)]:
                raise UserError(f"embed={args['embed']}: gives vectors, in Python; {written[0]}= needs detections")
        del args["source"]
        self._own = {key: args.pop(key) for key in OWN} | {"max_det": given.get("max_det"), "conf": args["conf"]}
        if mode == "track":
            self._own |= self._to_follow(args, given)
        self._own["out"] = checked(self._own["out"], args["exist_ok"])
        if isinstance(self.predictor, TinyTracker) != (mode == "track"):
            self.predictor = None
        args["conf"] = conf if isinstance(conf := args["conf"], (int, float)) else None  # upstream knows numbers alone
        if self.predictor is not None:  # kept from the last call
            self.predictor.own = self._own
        return super().predict(source, stream, predictor and partial(predictor, own=self._own), **args)

    def _to_follow(self, args: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """What a tracker follows by, and the files of `out=`, which are no maps."""
        settings = settings_of(args["tracker"], association=self._own["association"])
        if not isinstance(high := settings.track_high_thresh, str):
            if "conf" in given:
                said = f"conf={shown(given['conf'])}: {args['tracker']} says track_high_thresh={high}"
                raise UserError(f"{said}; {AUTO} there takes conf=")
            self._own["conf"] = args["conf"] = high
        following = Following(settings, constant_of(self.spec), self._own["persist"])
        if not following.goes_on(self.following):
            self.following = following
        tracks = checked(self._own["out"], args["exist_ok"], check_form)
        return {"following": self.following, "tracks": tracks, "out": None}

    def _smart_load(self, key: str) -> Any:
        """As upstream, which builds a predictor only when there is none that can be kept; ours knows more keys."""
        part = TinyTracker if key == "predictor" and "following" in self._own else super()._smart_load(key)
        return partial(part, own=self._own) if key == "predictor" else part

    def embed(self, source: Any = None, stream: bool = False, embed: Sequence[int] | None = None, **kwargs: Any) -> Any:
        """One vector (D,) an image: the means of the neck's maps, from the finest to the coarsest, in a row.

        Args:
            source: as `predict` takes it.
            stream: a generator instead of a list.
            embed: only these maps, 0 the finest.
            kwargs: as `predict` takes them.

        Raises:
            UserError: no source, no such map, or an export, which has no maps to look at.
        """
        self._check_is_pytorch_model()
        levels = range(len(self.model.neck.channels)) if embed is None else embed
        return self.predict(source, stream, embed=list(levels), **kwargs)

    def test_keys(self) -> dict[str, Any]:
        """The model's own test settings as keys of a run; its least score is the validator's to look up."""
        own = Postprocess.of(self.exported.get("test") or self.spec.get("test") or {})
        return {"iou": own.iou, "max_det": own.max_det}

    def arguments(self, mode: str, recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of a validation or prediction; an export takes its own image size alone."""
        args = resolve(mode, {**self.test_keys(), **recipe, **self.overrides, **self.shown, **self.looks}, given)
        self.tell_other_pixels(args)
        conf, least = given.get("conf"), (self.spec.get("roi") or {}).get("least_score", 0)
        if isinstance(conf, (int, float)) and conf < least:
            LOGGER.warning(f"conf={conf}: {self.model_name} scores no box {least} or less: roi.least_score={least}")
        sides = [imgsz] if isinstance(imgsz := args["imgsz"], int) else list(imgsz)
        fixed = self.exported and not self.exported.get("dynamic")
        if fixed and (sides * 2)[:2] != (own := self.exported["imgsz"]):
            raise UserError(f"imgsz={imgsz}: {self.model_name} takes height, width {own}; export the checkpoint again")
        if args["half"] and self.exported:
            own = self.exported.get("precision", "float32")
            words = f"{self.model_name} has a precision of its own, {own}; leave half= out, or give it to export"
            raise UserError(f"half=true: {words}")
        return args

    def tell_other_pixels(self, args: Mapping[str, Any]) -> None:
        """Warn where a run shows the bands or values of files otherwise than the training of this model did."""
        for key in SHOWN:
            known, asked = self.shown[key], args[key]
            if known is not None and plain(asked) != plain(known):
                LOGGER.warning(f"{key}={shown(asked)}: {self.model_name} was trained with {key}={shown(known)}")

    def export(self, **kwargs: Any) -> str:
        """Write a file beside the checkpoint: ONNX, OpenVINO and TorchScript are networks, safetensors weights.

        `Model(path)` predicts and validates with all; in another process `Model(path, trust=True)` with TorchScript.
        ONNX and OpenVINO are compared with the checkpoint first, and not written if they find something else.

        Args:
            kwargs: `format`, onnx, openvino, torchscript or safetensors; `imgsz`, the size that TorchScript takes. For
                the first two `nms=False` leaves suppression out, `half=True` is for weights of 16 bits. For onnx
                `int8=True` is for those of 8, by the images of `data=`; AP and AP_vt on its `split=` are then printed.

        Returns:
            The path of the file.

        Raises:
            UserError: another format, a key that does nothing here, or a file that cannot be written.
        """
        self._check_is_pytorch_model()
        args = resolve("export", self.overrides, kwargs)
        refuse_format(args, FORMATS)
        stem = Path(self.ckpt_path or Path(self.model_name).name)
        if stem in shipped_weights().values():
            stem = Path(stem.name)  # in the current folder, not in the package
        path = stem.with_suffix(f".{args['format']}")
        if args["format"] == "openvino":
            path = stem.with_name(f"{stem.stem}{FOLDER}")
        if path == stem:
            raise UserError(f"{path}: it is a {args['format']} file already")
        given = with_file("export", kwargs)
        for key, formats in SETTINGS.items():
            if given.get(key) is not None and args["format"] not in formats:
                more = NNCF if key == "int8" and args["format"] == "openvino" else ""
                raise UserError(f"{key}={shown(given[key])}: a setting of format={', '.join(formats)}{more}")
        for key in CALIBRATION:
            if given.get(key) is not None and not args["int8"]:
                raise UserError(f"{key}={shown(given[key])}: an export asks for images with int8=true alone")
        if args["format"] in DEPLOYED:
            write: Any = {"onnx": to_onnx, "openvino": to_openvino}[args["format"]]
            how = self.model, path, args["imgsz"], args["nms"] is not False, args["half"]
            with self._calibrated(args, given, path) if args["int8"] else nullcontext(()) as images:
                write(*how, *images)
        elif args["format"] == "torchscript":
            torchscript(self.model, path, args["imgsz"], path.stem)
        elif "imgsz" in kwargs:
            raise UserError(f"imgsz={kwargs['imgsz']}: safetensors holds weights, which take images of any size")
        else:
            content = checkpoint.of_model(self.model, dict(self.model.args or {}))
            safetensors(checkpoint.plain(content), path)
        return str(path)

    @contextmanager
    def _calibrated(self, args: Mapping[str, Any], given: Mapping[str, Any], path: Path) -> Iterator[Any]:
        """Images by which an export is quantised; behind it its AP is printed beside that of the checkpoint."""
        if args["half"]:
            raise UserError("half=true: int8=true is another precision; give one of them")
        side, known = max(sides(args["imgsz"])), {key: given[key] for key in ("data", "split") if key in given}
        looks = self.arguments("val", {"rect": True}, {"imgsz": side, **known})
        data = data_of(looks)
        yield (calibration(self.model, looks, given.get("fraction")),)
        split = known.get("split") or looked_at(data)
        print(f"{path}: {beside(self, Model(path), looks['data'], split, side)}")

    def info(self, detailed: bool = False, verbose: bool = True, imgsz: int | list[int] = 640) -> Any:
        """Layers, parameters, gradients, GFLOPs; printed when verbose."""
        self._check_is_pytorch_model()
        return self.model.info(detailed=detailed, verbose=verbose, imgsz=imgsz)

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        """What upstream has and this package has not: its tuner trains in processes of upstream's own command."""
        raise UserError(NO_TUNER)

    def _compare(self, *args: Any, **kwargs: Any) -> Any:
        """What upstream has here and this package has as a command."""
        raise UserError("benchmark: not a method; run `tinyyolo benchmark model=best.pt data=my.yaml`")

    tune, benchmark = _refuse, _compare

    def _check_is_pytorch_model(self) -> None:
        """Raise UserError for an export, which can only predict and validate."""
        if not self.spec:
            raise UserError(
                f"{self.model_name}: an export predicts and validates; use the .pt checkpoint for anything else"
            )
