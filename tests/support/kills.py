"""Runs that kill themselves at a chosen call of a chosen function, and what two runs must have in common."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tinyyolo import Model
from tinyyolo.engine import checkpoint

# Forks of a process that has done the imports and nothing else: a fork of this one hangs where torch has used threads.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])
LIMIT = 100  # s
KILLED = -signal.SIGKILL


class Point(NamedTuple):
    """Where a run dies: at the n-th call of module:name, before it, behind it, or with half of its bytes written."""

    place: str
    call: int
    when: str = "before"

    @property
    def name(self) -> str:
        return f"{self.when} call {self.call} of {self.place.rpartition(':')[2]}"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: Point, at: Callable[[], None] = die) -> None:
    """Replace the function of a point by one that dies there, for the rest of this process."""
    module, _, path = point.place.partition(":")
    *owners, name = path.split(".")
    owner: Any = import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    real, count = getattr(owner, name), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] != point.call:
            return real(*args, **kwargs)
        if point.when == "half":  # of torch.save(content, file)
            buffer = io.BytesIO()
            real(args[0], buffer)
            args[1].write(buffer.getvalue()[: len(buffer.getvalue()) // 2])
            args[1].flush()
        elif point.when == "behind":
            real(*args, **kwargs)
        at()
        raise AssertionError("still alive")

    setattr(owner, name, counted)


def apart(work: Callable[..., None], *args: Any) -> int | None:
    """The exit code of `work` in a process of its own."""
    process = CONTEXT.Process(target=work, args=args)
    process.start()
    process.join(LIMIT)
    alive = process.is_alive()
    process.kill()
    assert not alive, "hangs"
    return process.exitcode


def train(model: str, overrides: dict[str, Any], keys: dict[str, Any], workers: int = 0, point: Point | None = None):
    """Train, or resume with keys["resume"]; what the trainer then holds goes to keys["name"].pt, outside the run."""
    if point:
        arm(point)
    out = Model(f"{model}.yaml", overrides=overrides) if "resume" not in keys else Model(f"{model}.yaml")
    out.add_callback("on_pretrain_routine_start", lambda t: setattr(t.args, "workers", workers))  # a CPU has none
    out.train(**keys)
    trainer = out.trainer
    held = {"optimizer": trainer.optimizer.state_dict(), "model": trainer.model.state_dict()}
    held |= {"ema": trainer.ema.ema.state_dict(), "updates": trainer.ema.updates}
    torch.save(held, f"{trainer.save_dir.name}.pt")


def go_on(model: str, overrides: dict[str, Any], keys: dict[str, Any], workers: int = 0) -> None:
    """Resume the run of `keys`, or start it again where nothing was saved."""
    last = Path("runs") / keys["name"] / "weights" / "last.pt"
    more = {"resume": str(last)} if last.exists() else {**keys, "exist_ok": True}
    code = apart(train, model, overrides, more, workers)
    assert code == 0, f"resuming ended with {code}"


def rows(folder: Path) -> list[list[str]]:
    """results.csv without the column of time."""
    lines = [line.split(",") for line in (folder / "results.csv").read_text().splitlines()]
    return [line[:1] + line[2:] for line in lines]


def same(found: Any, expected: Any, where: str = "") -> None:
    """Equal to the last bit, in every tensor."""
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, msg=lambda text: f"{where}: {text}")
    elif isinstance(expected, dict):
        assert set(found) == set(expected), where
        for key, value in expected.items():
            same(found[key], value, f"{where}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for i, value in enumerate(expected):
            same(found[i], value, f"{where}.{i}")
    else:
        assert found == expected, where


def same_runs(found: Path, expected: Path) -> None:
    """Two finished runs: the same files, none left over, the same weights, optimiser, rows and figures."""
    files = [sorted(p.relative_to(run).as_posix() for p in run.rglob("*")) for run in (found, expected)]
    assert files[0] == files[1]
    assert rows(found) == rows(expected)
    for name in ("last.pt", "best.pt"):
        a, b = (checkpoint.load(run / "weights" / name) for run in (found, expected))
        assert a["resume"] is b["resume"] is None and a["epoch"] == b["epoch"]
        same(a["model"], b["model"], name)
        same(a["metrics"], b["metrics"], name)
        same(a["thresholds"], b["thresholds"], name)
    for name in ("metrics.json", "predictions.json"):
        same(*(json.loads((run / name).read_text()) for run in (found, expected)), name)
    same(*(torch.load(Path(f"{run.name}.pt"), weights_only=False) for run in (found, expected)), "trainer")
