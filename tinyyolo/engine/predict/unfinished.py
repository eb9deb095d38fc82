"""Predictions of scenes that were interrupted, and their shards: the same command finds what was found and goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from tinyyolo import __version__
from tinyyolo.config import UserError, shown
from tinyyolo.datasets.formats.decode import parse_json
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.engine.keys import KEYS, OWN
from tinyyolo.engine.predict.scenes import device_of
from tinyyolo.export.runtime import Runtime
from tinyyolo.io import locked, new_file, sweep, tell, write_json
from tinyyolo.scenes.bands import Bands
from tinyyolo.scenes.raster import RASTERS
from tinyyolo.scenes.tiling import Tiling

STORE = ".tinyyolo-predict-"  # beside the run folders, before the key of a run
MARK = ".tinyyolo-unfinished"  # in a run folder, with the key of its store, until the run is done
NOTES, LOCK = "run.json", "lock"  # in a store
OUTPUTS = ("out", "save_geojson", "shard", "engine", "actors")  # keys of ours on which no detection depends
KEY = 16  # characters
MASK = ".msk"  # what stands behind the name of a TIFF whose mask is a file
STATISTICS = ".aux.xml"  # what a viewer writes beside a scene that is looked at
FOLDERS = ("labels", "crops")  # that a prediction adds files to, or lines to files


class Unfinished:
    """What is kept of a run until it is done: the bands of its scenes, in a folder beside the run folders.

    Its name is a hash of what the detections depend on, so that only the same command finds it: the source, the run's
    name, the weights and all settings. While it is in use it is locked: alone by the run itself, together by shards.

    Args:
        parent: the folder of the run folders.
        settings: what the detections depend on, plain values.
        shard: whether this process computes a share alone.
    """

    def __init__(self, parent: Path, settings: Mapping[str, Any], shard: bool):
        self.settings = plain(settings)
        self.key = digest(json.dumps(self.settings, sort_keys=True))
        self.parent, self.folder, self.shard = parent, parent / f"{STORE}{self.key}", shard
        self.lock, self.begun, self.free = -1, False, True  # free: nobody else writes this run

    def run_folder(self, otherwise: Path) -> Path:
        """The folder into which the interrupted run wrote; else `otherwise`.

        What the interrupted run has appended to is removed there: it is written anew.

        Raises:
            UserError: shards of the run, or for a shard the run itself, are at work.
        """
        if not self.folder.is_dir() or not self._take() or self.shard:
            return otherwise
        notes = self._notes(self.folder)
        folder = self.parent / str(notes.get("folder"))
        mark = folder / MARK
        if not mark.is_file() or mark.read_text(encoding="utf-8") != self.key:
            return otherwise
        sweep(folder, deep=True)
        for path in appended(folder):
            if path.relative_to(folder).as_posix() not in notes["there"]:
                path.unlink()
        return folder

    def begin(self, folder: Path, there: Sequence[str]) -> None:
        """Make the store, if this run has none yet, and mark the run folder as unfinished.

        Args:
            folder: of the run.
            there: the files that it appends to and that were there before the run, by their paths in it.

        Raises:
            UserError: as `run_folder`.
        """
        if self.begun or not self.free:
            return
        self.begun = True
        for other in sorted(self.parent.glob(f"{STORE}*")):
            self._compare(other)
        if self.lock < 0 and not self._take():
            return
        if self.shard:
            if not (self.folder / NOTES).is_file():
                write_json(self.folder / NOTES, {"settings": self.settings})
            return
        write_json(self.folder / NOTES, {"folder": folder.name, "there": list(there), "settings": self.settings})
        with new_file(folder / MARK, overwrite=True) as file:
            file.write(self.key)

    def scene(self, path: str | Path) -> Bands | None:
        """Where the bands of a scene are kept; None where another process writes the same run."""
        if not self.free:
            return None
        return Bands(self.folder / digest(f"{path} {state_of(path)}"), self.key)

    def release(self) -> None:
        """Let go of the store; it stays."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def finish(self, folder: Path) -> None:
        """Remove the store and the mark in the run folder: the run is done."""
        if self.lock >= 0 and not self.shard:
            (folder / MARK).unlink(missing_ok=True)
            shutil.rmtree(self.folder)
        self.release()

    def _take(self) -> bool:
        """Lock the store; False where the run itself goes on in another process.

        Raises:
            UserError: see `run_folder`.
        """
        path = self.folder / LOCK
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            if locked(handle, self.shard):
                if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                    self.lock = handle
                    return True
                os.close(handle)  # of a run that was done between the two
                continue
            shards = not self.shard and locked(handle, shared=True)
            os.close(handle)
            if shards:
                raise UserError(f"{self.folder}: shards of this run are still at work: run it again when they are done")
            if self.shard:
                raise UserError(f"{self.folder}: the run itself is at work: a shard has nothing to add")
            tell(f"{self.folder}: the same run is at work in another process: this one cannot be taken up again")
            self.free = False
            return False

    def _compare(self, other: Path) -> None:
        """Tell what another store of the same source has been made with."""
        theirs = self._notes(other).get("settings")
        if other == self.folder or not isinstance(theirs, dict) or theirs.get("source") != self.settings["source"]:
            return
        for key, value in self.settings.items():
            if theirs.get(key) != value:
                words = f"unfinished, with {key}={shown(theirs.get(key))} where this run has {shown(value)}"
                tell(f"{other}: {words}, which starts anew; it can be deleted")
                return

    @staticmethod
    def _notes(folder: Path) -> dict[str, Any]:
        try:
            notes = parse_json((folder / NOTES).read_bytes(), folder / NOTES)
        except (OSError, UserError):
            return {}
        return notes if isinstance(notes, dict) else {}


def any_left(parent: Path) -> bool:
    """Whether there is the store of any unfinished run among these run folders."""
    return any(parent.glob(f"{STORE}*"))


def settings_of(
    model: Any, args: Mapping[str, Any], files: Sequence[str], tiling: Tiling, rules: Postprocess
) -> dict[str, Any]:
    """What the detections of a run depend on, and its name.

    Args:
        model: the engine's wrapper of a Detector or of an export.
        args: the run's arguments, ours among them.
        files: its source.
        tiling, rules: as they follow from the arguments.
    """
    device = device_of(model).type
    own = {key: args[key] for key in OWN if key in KEYS and "p" in KEYS[key].modes and key not in OUTPUTS}
    return {
        "name": args["name"],
        "source": list(files),
        **{key: args[key] for key in ("conf", "iou", "classes", "agnostic_nms")},
        **own,
        **asdict(tiling),
        **asdict(rules),
        "weights": weights_of(model.model, args["model"]),
        "device": device if device == "cpu" else f"{device}, batch {args['batch']}",  # see `scenes.detect`
        "versions": f"{__version__}, torch {torch.__version__}",
    }


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back."""
    made: dict[str, Any] = parse_json(json.dumps(settings, default=str).encode(), Path())
    return made


def state_of(path: str | Path) -> str:
    """Size and time of the files that a scene is made of; "[]" of one that is not there."""
    return json.dumps([[file.name, os.stat(file).st_size, os.stat(file).st_mtime_ns] for file in files_of(path)])


def digest(text: str) -> str:
    """A short hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:KEY]


def appended(folder: Path) -> list[Path]:
    """The files of a run folder that runs append to."""
    return [path for name in FOLDERS for path in sorted((folder / name).rglob("*")) if path.is_file()]


def files_of(path: str | Path) -> list[Path]:
    """The files that a scene is made of: a mask beside it, or what a VRT names, are of it, too."""
    files = {Path(path)}
    if Path(path).suffix.lower() in RASTERS and find_spec("rasterio") is not None:
        import rasterio

        with suppress(rasterio.RasterioIOError), rasterio.open(path) as source:
            files |= {Path(f"{path}{MASK}"), *map(Path, source.files)}  # GDAL names no mask
    return sorted(file for file in files if file.is_file() and not file.name.endswith(STATISTICS))


def weights_of(model: Any, path: str) -> str:
    """A hash of the weights of a detector, or of an export's file at `path`."""
    if not isinstance(model, torch.nn.Module) or isinstance(model, (torch.jit.ScriptModule, Runtime)):
        files = sorted(Path(path).glob("*")) if Path(path).is_dir() else [Path(path)]
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    total = hashlib.sha256(repr(getattr(model, "yaml", "")).encode())
    for name, tensor in model.state_dict().items():
        total.update(name.encode() + str(tensor.dtype).encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
