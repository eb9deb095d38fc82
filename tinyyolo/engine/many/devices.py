"""Which device a process of a run computes on, and what several processes cannot do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from ultralytics.utils.torch_utils import parse_device

from tinyyolo import ranks
from tinyyolo.config import UserError, shown

ONE = ("cpu", "mps")  # device words that are no numbers of GPUs


def own_device(asked: Any) -> Any:
    """The device of this process, as `device=` takes it: of several processes each has a GPU of its own, or the CPU.

    Raises:
        UserError: fewer GPUs than processes on this node.
    """
    if ranks.size() == 1:
        return asked
    word = parse_device(asked)
    if word in ONE or (not word and not torch.cuda.is_available()):
        return word or ONE[0]
    named = word.split(",") if word else [str(i) for i in range(torch.cuda.device_count())]
    here = int(os.environ.get("LOCAL_WORLD_SIZE") or ranks.size())
    if len(named) < here:
        choices = f"--nproc-per-node={len(named)}, or device=cpu"
        raise UserError(f"device={shown(asked)}: {here} processes on this node, {len(named)} GPUs; Choices: {choices}")
    return named[ranks.local_rank()]


def on_gpu(device: Any) -> bool:
    """Whether a device of `own_device` is a GPU."""
    word = parse_device(device)
    return word not in ONE and (bool(word) or torch.cuda.is_available())


def gpus_of(device: Any) -> int:
    """How many GPUs `device=` names, for each of which a process is to be started; 0 where it names none or one."""
    named = parse_device(device).split(",")
    return len(named) if len(named) > 1 and ranks.size() == 1 else 0


def check_shared(args: Mapping[str, Any]) -> None:
    """Raise UserError for training arguments that several processes cannot share."""
    count, batch = ranks.size(), args["batch"]
    if count == 1:
        return
    if batch < 1:
        raise UserError(f"batch={batch}: several processes share a batch: give its images, such as batch={8 * count}")
    if batch % count:
        down, up = batch - batch % count, batch - batch % count + count
        choices = " or ".join(str(value) for value in (down, up) if value)
        raise UserError(f"batch={batch}: the images of a step, which {count} processes share; Choices: {choices}")
    if args["time"]:
        raise UserError(f"time={args['time']}: the clocks of {count} processes differ; use epochs=")
