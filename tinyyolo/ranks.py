"""Which of the processes of a run this one is, by the environment that torchrun sets; and which of them speaks."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

AGENT = "TORCHELASTIC_RUN_ID"  # torchrun sets it, and its store outlives the processes that it starts
LOST = "another process of this run has ended"


def size() -> int:
    """How many processes the run has."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def rank() -> int:
    """The number of this process among all."""
    return int(os.environ.get("RANK") or 0) if size() > 1 else 0


def local_rank() -> int:
    """The number of this process on its node."""
    return int(os.environ.get("LOCAL_RANK") or 0) if size() > 1 else 0


def first() -> bool:
    """Whether this process is the one that prints, writes and saves."""
    return rank() == 0


def restarts() -> int:
    """How often torchrun has started the processes anew (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)


def command() -> str:
    """How one starts the program again, with as many processes.

    Examples:
        >>> command()
        'tinyyolo'
    """
    if size() == 1:
        return "tinyyolo"
    nodes = int(os.environ.get("GROUP_WORLD_SIZE") or 1)
    words = [f"--nnodes={nodes} --rdzv-backend=c10d --rdzv-endpoint=HOST:PORT"] if nodes > 1 else []
    return " ".join(
        ["torchrun", *words, f"--nproc-per-node={os.environ.get('LOCAL_WORLD_SIZE', size())}", "-m tinyyolo"]
    )


def store(part: str = "tinyyolo") -> Any:
    """Words that all processes of a run can read and set, torchrun's or the first process's; those of one `part`.

    Raises:
        RuntimeError: there is none any more.
    """
    distributed: Any = import_module("torch.distributed")  # heavy, and for a run of several processes alone
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    found = distributed.TCPStore(address, port, is_master=False, wait_for_workers=False)
    return distributed.PrefixStore(part, found)


CLAIMED: list[bool] = []  # whether this process is the first to tell, once it has asked


def first_to_tell() -> bool:
    """Whether this process is the first that says why the run ends: one message, not one from each.

    Where nobody can be asked, as the first process kept the store and was killed, the second one tells.
    """
    if size() == 1:
        return True
    if not CLAIMED:
        try:
            CLAIMED.append(store().add(f"told/{restarts()}", 1) == 1)
        except (KeyError, RuntimeError):
            CLAIMED.append(rank() == (1 if AGENT not in os.environ else 0))
    return CLAIMED[0]
