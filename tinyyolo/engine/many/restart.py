"""Where a run goes on that torchrun starts again (`--max-restarts`): in the folder that its processes had."""

from __future__ import annotations

from pathlib import Path

from tinyyolo import ranks

FOLDER = "folder"  # what it is called in the run's store


def remember_run(folder: Path) -> None:
    """Let those who come after know in which folder this run writes."""
    if ranks.size() > 1 and ranks.first():
        ranks.store().set(FOLDER, str(folder))


def last_of_run() -> Path | None:
    """The checkpoint of the run that this one's former processes wrote; None if there is none yet."""
    store = ranks.store()
    if not store.check([FOLDER]):
        return None
    last = Path(store.get(FOLDER).decode(), "weights", "last.pt")
    return last if last.is_file() else None
