"""Work through a list in threads, with a bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tinyyolo.datasets.images import THREADS

Item = TypeVar("Item")
Result = TypeVar("Result")
WIDTH = 30


def bar(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """The items, while one line of stderr says how many are done; silent where stderr is no terminal."""
    shown = -1
    live = sys.stderr.isatty()
    for done, item in enumerate(items, 1):
        yield item
        part = WIDTH * done // max(total, 1)
        if live and (part != shown or done == total):
            shown = part
            print(f"\r{what} {'#' * part}{'.' * (WIDTH - part)} {done}/{total}", end="", file=sys.stderr, flush=True)
    if live and shown >= 0:
        print(file=sys.stderr)


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], what: str) -> list[Result]:
    """`work` on every item, results in order.

    Examples:
        >>> in_threads(abs, [-1, 2], "counting")
        [1, 2]
    """
    with ThreadPoolExecutor(THREADS) as pool:
        return list(bar(pool.map(work, items), len(items), what))
