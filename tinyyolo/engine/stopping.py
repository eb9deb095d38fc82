"""How a training is stopped from outside: Ctrl-C, SIGTERM and SIGHUP end it at once, in one line that goes on."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType

from tinyyolo import ranks

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
GRACE = 5.0  # s in which further signals do not disturb the tidying up


class Stopped(KeyboardInterrupt):
    """A signal came."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def command(path: Path) -> str:
    """What one types to go on with a run.

    Examples:
        >>> command(Path("runs/my run/weights/last.pt"))
        "tinyyolo train 'resume=runs/my run/weights/last.pt'"
    """
    return f"{ranks.command()} train {shlex.quote(f'resume={path}')}"


@contextmanager
def stoppable(way_on: Callable[[], str]) -> Iterator[None]:
    """Within this context the three signals end the work, in a line that ends with `way_on()`.

    Ctrl-C stays a KeyboardInterrupt, with the line as its text; for the others the line goes to stderr and SystemExit
    follows, with the code that shells expect: 143, 129. A signal that somebody else handles or ignores (nohup) is left
    to them, and all of them outside the main thread.
    """
    ours = threading.current_thread() is threading.main_thread()
    free = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: old for number in SIGNALS if ours and (old := signal.getsignal(number)) in free}
    owner, first, told = os.getpid(), [0.0], sys.excepthook

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            return  # a process that loads images: it ends when this one closes it
        now = time.monotonic()
        if now - first[0] < GRACE and first[0]:
            return
        first[0] = now
        raise Stopped(number)

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if os.getpid() == owner:
            told(kind, error, trace)
        # In a process that loads images only the thread that hands tensors over comes here, when this one is gone; what
        # goes wrong there otherwise is an error of this one, too.

    try:
        sys.excepthook = tell
        for number in before:
            signal.signal(number, stop)
        yield
    except KeyboardInterrupt as error:
        number = getattr(error, "number", signal.SIGINT)
        line = f"stopped by {'Ctrl-C' if number == signal.SIGINT else signal.Signals(number).name}; {way_on()}"
        if number == signal.SIGINT:
            raise KeyboardInterrupt(line) from None
        if ranks.first_to_tell():
            print(f"tinyyolo: {line}", file=sys.stderr)
        raise SystemExit(128 + number) from None
    finally:
        sys.excepthook = told
        for number, old in before.items():
            signal.signal(number, old)
