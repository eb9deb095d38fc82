"""`Model`: one object to train, validate and predict with any detector of the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from ultralytics.engine.model import Model as EngineModel
from ultralytics.utils import RANK

from tinyyolo.compat import DEFAULT_CFG_DICT, engine_args
from tinyyolo.config import UserError, find_yaml, load_model_yaml, suggest
from tinyyolo.datasets import spec as data_yaml
from tinyyolo.detectors.base import Detector
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.detectors.weights import load_reference
from tinyyolo.engine import checkpoint, resume
from tinyyolo.engine import recipe as recipes
from tinyyolo.engine.arguments import OWN, resolve, with_file
from tinyyolo.engine.predictor import TinyPredictor
from tinyyolo.engine.trainer import TinyTrainer
from tinyyolo.engine.validator import TinyMetrics, TinyValidator
from tinyyolo.export.torchscript import metadata, torchscript
from tinyyolo.io import named

FORMATS = ("torchscript",)
KEPT = ("imgsz", "data", "single_cls")  # training arguments that validation and prediction start from
WRITES = ("save", "save_txt", "save_crop", "save_json")  # what predict makes of detections
# A 2 px line and a label would hide what they mark.
DRAWING = {"line_width": 1, "show_labels": False, "show_conf": False}


class Model(EngineModel):
    """A detector by name, YAML or checkpoint.

    `.model` is built when it is first asked for: training builds its own, for the classes of its data.

    Args:
        model: a name in cfg/models ("tinyyolo-n.yaml"), a path to a model YAML, to a checkpoint (.pt) or to an export.
        overrides: dotted keys of the model YAML, {"head.assigner.topk": 3}; strings are parsed.
        verbose: print the model's summary.

    Raises:
        UserError: no such model, or an override in a section that it does not have.

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
    ):
        if task not in {None, "detect"}:
            raise UserError(f"task={task}: every tinyyolo model is task=detect")
        self._given = dict(overrides or {})
        self.spec: dict[str, Any] = {}  # the resolved model YAML
        self.exported: dict[str, Any] = {}  # what an export says of itself
        name = str(model)
        if not name.endswith((".pt", ".pth", ".torchscript", ".yaml", ".yml")):
            name += ".yaml"
        super().__init__(name, task="detect", verbose=verbose)

    @property
    def task_map(self) -> dict[str, dict[str, Any]]:
        """The engine's parts; one task for every detector."""
        return {
            "detect": {
                "model": Detector,
                "trainer": TinyTrainer,
                "validator": TinyValidator,
                "predictor": TinyPredictor,
            }
        }

    def _new(self, cfg: str, task: str | None = None, verbose: bool = False) -> None:
        """Read a model YAML."""
        path = find_yaml(cfg, "cfg/models")
        self.spec = load_model_yaml(path, self._given)
        self.cfg = self.model_name = str(path)
        self.task, self.overrides = "detect", {"model": str(path), "task": "detect"}
        self.__dict__.pop("model", None)
        if verbose:
            self.model.info()

    def __getattr__(self, name: str) -> Any:
        """As upstream, which looks up the network's attributes; builds it first."""
        if name == "model" and "model" not in self._modules:
            self.model = self._build()
        return super().__getattr__(name)

    def _build(self) -> Detector:
        """The network of the model YAML or the checkpoint."""
        if self.ckpt:
            return checkpoint.to_model(self.ckpt, self.ckpt_path)
        model = build_model(self.spec)
        model.args = {**DEFAULT_CFG_DICT, **self.overrides}
        return model

    def _load(self, weights: str, task: str | None = None) -> None:
        """Load a checkpoint, or keep the path of an export."""
        if self._given:
            raise UserError(
                f"{weights}: a model's YAML cannot be overridden once it is trained; found {', '.join(self._given)}"
            )
        path = Path(weights).expanduser()
        self.task, self.model_name, self.ckpt_path = "detect", str(path), str(path)
        self.overrides = {"model": str(path), "task": "detect"}
        if path.suffix == ".torchscript":
            self.exported = metadata(path)
            height, width = self.exported["imgsz"]
            self.overrides["imgsz"] = height if height == width else [height, width]
            self.model, self.ckpt = str(path), None
            return
        self._hold(path, checkpoint.load(path))
        self.__dict__.pop("model", None)

    def _hold(self, path: Path, content: dict[str, Any]) -> None:
        """Be the model of a checkpoint."""
        self.task, self.model_name, self.ckpt_path = "detect", str(path), str(path)
        self.ckpt, self.spec, self._given, self.predictor = content, checkpoint.own_yaml(content), {}, None
        kept = {key: content["train_args"].get(key) for key in KEPT}
        self.overrides = {"model": str(path), "task": "detect"} | {k: v for k, v in kept.items() if v is not None}

    def load(self, weights: Any) -> Model:  # type: ignore[override]  # upstream's default is a file it downloads
        """Copy weights into this model: a tinyyolo checkpoint, or the authors' by name ({"state_dict": ...}).

        Args:
            weights: a path, a state dict (bare, or under "state_dict"), or a module.

        Returns:
            This object.

        Raises:
            UserError: no such file, or weights of another model.
        """
        self._check_is_pytorch_model()
        if isinstance(weights, torch.nn.Module):
            weights = weights.state_dict()
        own = isinstance(weights, (str, Path)) and Path(weights).suffix == ".pt"
        content = checkpoint.load(weights)["model"] if own else weights
        if own:
            count = checkpoint.transfer(self.model, content)
            if count < len(self.model.state_dict()) // 2:
                raise UserError(
                    f"{weights}: the weights of another model: {count} of {len(self.model.state_dict())} tensors fit"
                )
        else:
            print(load_reference(self.model, content))
        self.predictor = None
        self.ckpt = self.ckpt or {"loaded": True}  # training then starts from these weights
        return self

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
                `resume=True` continues the checkpoint this model was loaded from, `resume=path` another.

        Returns:
            The best checkpoint's metrics.

        Raises:
            UserError: an unknown key, a bad value, missing data, or nothing to resume.
        """
        self._check_is_pytorch_model()
        if kwargs.get("resume") is not None and kwargs["resume"] is not False:
            given = {key: value for key, value in kwargs.items() if key != "resume"}
            content, args = resume.arguments(self.to_resume(kwargs["resume"]), given)
            spec, weights = content["yaml"], None
        else:
            given = with_file("train", kwargs)
            recipe = self.spec.get("train") or {}
            args, content = resolve("train", {**self.test_keys(), **recipe}, given), None
            spec = recipes.with_gains(self.spec, {**recipe, **given})
            args |= recipes.gains(spec)
            args["model"], weights = self.overrides["model"], self.first_weights(args["pretrained"])
        if args["data"] is None:
            raise UserError(f"data= is missing; a data YAML, its path or its name. {data_names()}")
        data = data_yaml.load(args["data"])
        args["data"] = str(data.file)
        parts = {"spec": spec, "data": data, "weights": weights, "content": content}
        with named(args["project"]):
            self.trainer = (trainer or TinyTrainer)(overrides=args, _callbacks=self.callbacks, **parts)
        with named(self.trainer.save_dir):
            self.trainer.train()
        if RANK in {-1, 0}:
            best = self.trainer.best if self.trainer.best.exists() else self.trainer.last
            self._hold(best, checkpoint.load(best))
            self._modules.pop("model", None)
            if self.trainer.detector is not None:  # several GPUs train in processes of their own
                self.model = self.trainer.detector
            self.metrics = getattr(self.trainer.validator, "metrics", None)
        return self.metrics

    def first_weights(self, pretrained: bool | str | Path) -> Mapping[str, torch.Tensor] | None:
        """What training starts from: a file's weights, this checkpoint's, or None for new ones.

        Raises:
            UserError: no such checkpoint.
        """
        if isinstance(pretrained, (str, Path)):
            return checkpoint.load(pretrained)["model"]
        if not self.ckpt or pretrained is False:
            return None
        return self.model.state_dict() if "model" in self._modules else self.ckpt["model"]

    def to_resume(self, given: bool | str | Path) -> str | Path:
        """The checkpoint to go on from.

        Raises:
            UserError: it is not named.
        """
        path = self.ckpt_path if given is True else given
        if not path:
            raise UserError("resume= needs the checkpoint of the run: resume=runs/train/weights/last.pt")
        return path

    def val(self, validator: type[TinyValidator] | None = None, **kwargs: Any) -> TinyMetrics:
        """Validate on `data` (by default the training data), `split=` val or test.

        Returns:
            Metrics by name: `.AP`, `.AP50`, `.AP_vt`, `.AR1500`, `.per_class["ship"]["AP"]`, fractions.

        Raises:
            UserError: a key or value that does not fit, missing data, or no class in common with it.
        """
        args = resolve("val", {**self.test_keys(), "plots": True, "rect": True, **self.kept()}, kwargs)
        self.check_size(args["imgsz"])
        if args["data"] is None:
            raise UserError(f"data= is missing: this model was not trained on a set that is here. {data_names()}")
        args["data"] = str(data_yaml.load(args["data"]).file)
        self.validator = (validator or TinyValidator)(args=engine_args(args, OWN), _callbacks=self.callbacks)
        with named(self.validator.save_dir):
            self.validator(model=self.model)
        self.metrics = self.validator.metrics
        return self.metrics

    def predict(self, source: Any = None, stream: bool = False, predictor: Any = None, **kwargs: Any) -> Any:
        """Ultralytics Results of images, folders, globs, videos, arrays; see its documentation.

        Raises:
            UserError: no source, one that does not exist, or a key or value that does not fit.
        """
        if source is None:
            raise UserError("source= is missing: an image, a folder, a glob, a video or a list of paths")
        check_source(source)
        recipe = {"conf": 0.25, "batch": 1, "rect": True, "save": False, **DRAWING}
        args = resolve("predict", {**self.test_keys(), **recipe, **self.kept()}, kwargs)
        self.check_size(args["imgsz"])
        if args["embed"] is not None:
            self._check_is_pytorch_model()
            if written := [key for key in WRITES if args[key]]:
                raise UserError(f"embed={args['embed']}: gives vectors, in Python; {written[0]}= needs detections")
        settings = {key: value for key, value in engine_args(args, OWN).items() if key != "source"}
        return super().predict(source, stream, predictor, **settings)

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

    def kept(self) -> dict[str, Any]:
        """What this model's training says of how to run it."""
        return {key: self.overrides[key] for key in KEPT if key in self.overrides}

    def test_keys(self) -> dict[str, Any]:
        """The model's own test settings as keys of a run; its least score is the validator's to look up."""
        own = Postprocess.of(self.exported.get("test") or self.spec.get("test") or {})
        return {"iou": own.iou, "max_det": own.max_det}

    def check_size(self, imgsz: int | Sequence[int]) -> None:
        """Raise UserError for another image size than that of an export."""
        sides = [imgsz] * 2 if isinstance(imgsz, int) else list(imgsz)
        if self.exported and (sides * 2)[:2] != (own := self.exported["imgsz"]):
            raise UserError(f"imgsz={imgsz}: {self.model} takes height, width {own}; export the checkpoint again")

    def export(self, **kwargs: Any) -> str:
        """Write a TorchScript file beside the checkpoint; `Model(path)` predicts and validates with it.

        Args:
            kwargs: `imgsz`, the size that it takes; `format`, torchscript.

        Returns:
            The path of the file.

        Raises:
            UserError: another format, a key that does nothing here, or a file that cannot be written.
        """
        self._check_is_pytorch_model()
        args = resolve("export", self.kept(), kwargs)
        if args["format"] not in FORMATS:
            raise UserError(f"format={args['format']}: not supported yet; {suggest(args['format'], FORMATS)}")
        name = Path(str(self.model_name))
        path = Path(self.ckpt_path or name.name).with_suffix(".torchscript")
        torchscript(self.model, path, args["imgsz"], name.stem)
        return str(path)

    def info(
        self, detailed: bool = False, verbose: bool = True, imgsz: int | list[int] = 640
    ) -> tuple[int, int, int, float] | None:
        """Layers, parameters, gradients, GFLOPs; printed when verbose."""
        self._check_is_pytorch_model()
        return deepcopy(self.model).info(detailed=detailed, verbose=verbose, imgsz=imgsz)

    def track(self, *args: Any, **kwargs: Any) -> Any:
        """Not supported yet."""
        raise UserError("track: not supported yet; use predict")

    def tune(self, *args: Any, **kwargs: Any) -> Any:
        """Not supported yet."""
        raise UserError("tune: not supported yet; use train with the values to compare")

    def benchmark(self, *args: Any, **kwargs: Any) -> Any:
        """Not supported yet."""
        raise UserError("benchmark: not supported yet; see benchmarks/ in the repository")

    def _check_is_pytorch_model(self) -> None:
        """Raise UserError for an export, which can only predict and validate."""
        if not self.spec:
            raise UserError(f"{self.model}: an export predicts and validates; use the .pt checkpoint for anything else")


def data_names() -> str:
    """The data YAMLs that come with the package, in words."""
    from tinyyolo.config import yaml_names

    return "Choices: " + ", ".join(yaml_names("data"))


def check_source(source: Any) -> None:
    """Raise UserError for a path that does not exist; other kinds of source are the engine's."""
    if not isinstance(source, (str, Path)):
        return
    text = str(source)
    if "*" in text or "://" in text or text.isnumeric() or text.startswith("screen"):
        return
    path = Path(text).expanduser()
    if not path.exists():
        raise UserError(f"source={text}: no such file or folder")
    if path.is_dir() and not any(path.iterdir()):
        raise UserError(f"source={text}: the folder is empty")
