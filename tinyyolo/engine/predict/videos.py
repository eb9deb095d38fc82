"""Videos that a prediction writes: whole, or removed and told."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

import cv2

from tinyyolo.config import UserError

VIDEO = {"Darwin": ".mp4"}.get(platform.system(), ".avi")  # upstream's
RIFF_HEAD = 8  # bytes of an AVI before those that its length counts


def check_videos(frames: Mapping[Path, int]) -> None:
    """Remove videos that are shorter than what was written: OpenCV says nothing of a full disk.

    Raises:
        UserError: there is one; names it.
    """
    short = [path for path, count in frames.items() if not whole_video(path, count)]
    for path in short:
        path.unlink(missing_ok=True)
    if short:
        raise UserError(f"{short[0]}: the video could not be written to its end; is the disk full?")


def whole_video(path: Path, frames: int) -> bool:
    """Whether a video has its last frame, and an AVI the length that its header says."""
    with path.open("rb") as file:
        kind, length = file.read(4), int.from_bytes(file.read(4), "little")
    video = cv2.VideoCapture(str(path))
    video.set(cv2.CAP_PROP_POS_FRAMES, frames - 1)
    return (kind != b"RIFF" or length + RIFF_HEAD <= path.stat().st_size) and bool(video.grab())
