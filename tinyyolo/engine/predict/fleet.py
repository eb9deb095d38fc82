"""Windows of scenes as a Ray dataset: actors find the candidates, which lie where those of an interrupted run would.

So the rest of a prediction is what it is without Ray, and its boxes are the same.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir, mkdtemp
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from ultralytics.utils import LOGGER

from tinyyolo.config import UserError
from tinyyolo.datasets.images import look
from tinyyolo.datasets.scene_files import open_scene
from tinyyolo.detectors.postprocess import Postprocess
from tinyyolo.engine.predict.scenes import WHOLE, as_rows, device_of, is_export, look_at
from tinyyolo.engine.predict.unfinished import digest
from tinyyolo.io import Bar, in_threads, tell
from tinyyolo.scenes import need
from tinyyolo.scenes.bands import COLUMNS, Bands, rows_of
from tinyyolo.scenes.rendering import Rendering
from tinyyolo.scenes.sweep import Found
from tinyyolo.scenes.tiling import Tiling

AT_LEAST = 64  # windows of a task, where a scene has so many: opening a scene is then a small part of it
MOST_TASKS = 10_000  # of a run; of more, several are one block of the dataset
LEAST_STORE = 256 << 20  # bytes of the object store that is started here
COPIES = 3  # of the model for which there is room in it
SHORT = 30  # characters of a temporary folder in which there is room for Ray's sockets
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_DEDUP_LOGS": "1"}
ROW = ("path", "band", "rows", "empty", "fault")  # of what an actor gives
NO_BAND = -1
LOGGERS = ("ray", "ray.data")
ADDRESS = "RAY_ADDRESS"
# Else Ray starts a Python for each CPU beforehand, none of which is asked for anything, and its actors give way to all
# other programs of the machine (nice 15).
SYSTEM = {"enable_worker_prestart": False, "prestart_worker_first_driver": False, "worker_niceness": 0}


def check_ray(model: Any, own: Mapping[str, Any], files: Any) -> None:
    """Raise UserError where Ray is not installed, or cannot take this model or source."""
    need("ray", "engine=ray", "'tinyyolo[ray]'")
    if is_export(model):
        raise UserError("engine=ray: of checkpoints; an export runs in the process that opens it: use shard=i/n")
    if files is None:
        raise UserError("engine=ray: of image files alone")
    if own["shard"]:
        raise UserError(f"engine=ray shard={own['shard']}: one of the two: Ray shares the scenes out by itself")


class Memory(Bands):
    """The candidates of a scene's bands, held."""

    def __init__(self) -> None:
        super().__init__(Path())
        self.held: dict[int | str, tuple[Found, int]] = {}

    def put(self, part: int | str, found: Found, empty: int = 0) -> None:
        """See `Bands`."""
        self.held[part] = found, empty

    def get(self, part: int | str) -> tuple[Found, int] | None:
        """See `Bands`."""
        return self.held.get(part)


class Looker:
    """One actor: has the model, and finds the candidates of some rows of a scene's windows."""

    def __init__(self, detector: Any, rest: Mapping[str, Any]):
        if not isinstance(detector, torch.nn.Module):  # where Ray keeps it
            import ray

            detector = ray.get(detector)
        torch.set_num_threads(rest["threads"])  # with another number the last bits of sums would differ
        self.model, self.rest = SimpleNamespace(model=detector.to(rest["device"]).eval()), rest

    def __call__(self, tasks: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
        """For each band its scene, number, candidates (P, 6) float32 as bytes, and how many windows were not valid.

        A scene that cannot be read has a row with the reason, of no band.
        """
        found: list[tuple[Any, ...]] = []
        for path, start, stop in zip(*(tasks[name].tolist() for name in ("path", "start", "stop")), strict=True):
            own, bands, rest, fault = range(start, stop), Memory(), self.rest, ""
            try:
                with torch.inference_mode():
                    scene = open_scene(path, rest["rendering"])
                    look_at(rest["tiling"], self.model, rest["rules"], scene, rest["batch"], bands, "", own)
            except ValueError as error:
                fault = f"{path}: {str(error).removeprefix(f'{path}: ')}"
            for band, (one, empty) in bands.held.items():
                found.append((path, band, as_rows(one).cpu().numpy().tobytes(), empty, ""))
            found += [(path, NO_BAND, b"", 0, fault)] if fault else []
        return dict(zip(ROW, map(list, zip(*found, strict=True)), strict=True))


class Fleet:
    """Actors of Ray that look at the scenes of a run.

    Args:
        model: the engine's wrapper of a Detector.
        tiling, rules, rendering: of the run.
        batch: windows at once.
        actors: how many; None for as many as the CPUs or GPUs hold.
    """

    def __init__(
        self, model: Any, tiling: Tiling, rules: Postprocess, batch: int, rendering: Rendering, actors: int | None
    ):
        self.model, self.tiling, self.actors = model, tiling, actors
        self.rest: dict[str, Any] = {"tiling": tiling, "rules": rules, "batch": batch, "rendering": rendering}
        self.rest |= {"threads": torch.get_num_threads(), "device": device_of(model).type}
        self.own = TemporaryDirectory(prefix="tinyyolo-")  # where a run keeps its bands that keeps nothing
        self.before = {name: os.environ.get(name) for name in QUIET}
        self.session = ""  # folder of the Ray that was started here
        self.bands: dict[str, Bands] = {}
        self.missing: dict[str, int] = {}  # bands that are yet to come, by scene
        self.rows: Iterator[Mapping[str, Any]] = iter(())
        self.bar: Bar | None = None

    def start(self, files: Sequence[str], kept: Callable[[str], Bands | None] | None) -> Fleet:
        """Start Ray, and the actors on all bands that are not there yet.

        Args:
            files: the images of the run.
            kept: where the bands of a scene are kept, None for nowhere.

        Raises:
            UserError: the cluster cannot be reached, or has no room for an actor.
        """
        if not (tasks := self.tasks(files, kept)):
            return self
        self.connect()
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        needs = self.needs(ray.cluster_resources())
        found = ray.data.from_items(tasks, override_num_blocks=min(len(tasks), MOST_TASKS)).map_batches(
            Looker, fn_constructor_args=(ray.put(self.model.model), self.rest), batch_size=1, **needs
        )
        self.bar = Bar(sum(self.missing.values()), f"engine=ray, {needs['concurrency']} actors", 0, "rows of tiles")
        self.rows = iter(found.iter_rows())
        return self

    def tasks(self, files: Sequence[str], kept: Callable[[str], Bands | None] | None) -> list[dict[str, Any]]:
        """What is to be done: the bands of scenes, some at a time, that are not there yet."""
        tasks, whole = [], 0
        sizes = in_threads(lambda path: look(path).size_hw, files, "sizes of images")
        for path, size_hw in zip(files, sizes, strict=True):
            if not self.tiling.cuts(size_hw):
                whole += min(size_hw) > 0
                continue
            bands = self.bands[path] = (kept(path) if kept else None) or Bands(Path(self.own.name) / digest(path))
            rows = rows_of(self.tiling.windows(size_hw))
            step = -(-AT_LEAST // len(rows[0]))
            known = bands.get(WHOLE) is not None
            left = [range(i, min(i + step, len(rows))) for i in range(0, len(rows), step)]
            left = [some for some in left if not known and any(bands.get(i) is None for i in some)]
            self.missing[path] = sum(map(len, left))
            tasks += [{"path": path, "start": some.start, "stop": some.stop} for some in left]
        if whole:
            LOGGER.info(f"engine=ray: {whole:,} of {len(files):,} images are not cut into tiles: looked at here")
        return tasks

    def connect(self) -> None:
        """Start Ray on this machine, unless the caller has started it, or RAY_ADDRESS says where it runs.

        Raises:
            UserError: it cannot be started or reached.
        """
        os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
        import ray

        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        if ray.is_initialized():
            return
        # A short name: the system's limit for sockets is 107 characters, of which Ray takes some 65.
        self.session = mkdtemp(prefix="tyr-", dir=None if len(gettempdir()) < SHORT else "/tmp")
        store = max(LEAST_STORE, COPIES * sum(t.nbytes for t in self.model.model.state_dict().values()))
        local: dict[str, Any] = {"_temp_dir": self.session, "include_dashboard": False, "object_store_memory": store}
        local["_system_config"] = SYSTEM
        quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
        try:
            if os.environ.get(ADDRESS):
                ray.init(**quiet)
            else:
                ray.init("local", **quiet, **local)
        except Exception as error:  # a node that starts too slowly is a bare one
            if not isinstance(error, (ConnectionError, RuntimeError, ValueError)) and "timed out" not in str(error):
                raise
            where = f"{ADDRESS}={os.environ[ADDRESS]}: " if os.environ.get(ADDRESS) else ""
            raise UserError(f"engine=ray: {where}{' '.join(str(error).split())[:200]}") from error

    def needs(self, there: Mapping[str, float]) -> dict[str, Any]:
        """How many actors, and what each of them takes of the cluster.

        Raises:
            UserError: there is none of it.
        """
        unit = "CPU" if self.rest["device"] == "cpu" else "GPU"
        have, one = there.get(unit, 0), self.rest["threads"] if unit == "CPU" else 1
        if not have:
            raise UserError(f"engine=ray device={self.rest['device']}: the cluster has no {unit}")
        count = self.actors or max(1, int(have // one))
        share = min(one, have / count)
        return {"concurrency": count, "num_cpus" if unit == "CPU" else "num_gpus": share}

    def until(self, path: str, bands: Bands | None) -> Bands | None:
        """Take what comes until all bands of a scene are there; where they are kept.

        Raises:
            UserError: Ray has given up, after its own retries.
        """
        if not self.missing.get(path):
            return self.bands.get(path, bands)
        from ray.exceptions import RayError

        try:
            while self.missing.get(path):
                self.take(next(self.rows))
        except (RayError, StopIteration) as error:
            said = " ".join(str(error).split())[:200] or "it has ended early"
            raise UserError(f"engine=ray: {said}; what was found is kept where the run writes something") from error
        return self.bands[path]

    def take(self, row: Mapping[str, Any]) -> None:
        """Keep a band that an actor has found."""
        path = row["path"]
        if row["band"] == NO_BAND:
            tell(f"engine=ray: {row['fault']}: tried again here")
            self.missing[path] = 0
            return
        rows = torch.from_numpy(np.frombuffer(row["rows"], np.float32).reshape(-1, COLUMNS).copy())
        self.bands[path].put(int(row["band"]), Found(rows[:, :4], rows[:, 4], rows[:, 5].long()), int(row["empty"]))
        self.missing[path] = max(0, self.missing[path] - 1)
        if self.bar:
            self.bar.add()

    def close(self) -> None:
        """Let go of the actors, and of the Ray that was started here with all its files."""
        self.rows = iter(())
        if self.bar:
            self.bar.__exit__()
        if self.session:
            import ray

            ray.shutdown()
            shutil.rmtree(self.session, ignore_errors=True)
        for name, value in self.before.items():
            if value is None:
                os.environ.pop(name, None)
        self.own.cleanup()
