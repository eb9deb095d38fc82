"""What one image's detections write: names from a checkpoint stay inside the folder, files are whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ultralytics.engine.results import Results
from ultralytics.utils.files import increment_path
from ultralytics.utils.plotting import save_one_box

from tinyyolo.datasets.images import save
from tinyyolo.io import as_file_names, named, new_file, place_in

BEGUN = {"args.yaml"}  # what a run writes before it has a result


class TinyResults(Results):
    """Ultralytics' Results, whose `save_txt` and `save_crop` write by our rules for files."""

    def save_txt(self, txt_file: str | Path, save_conf: bool = False) -> str:
        """Add `class cx cy w h [score]`, fractions of the image, to a text file; none is made without detections."""
        boxes: Any = self.boxes
        path, rows = Path(txt_file), boxes.xywhn.tolist() if boxes is not None else []
        if rows:
            old = path.read_text(encoding="utf-8") if path.is_file() else ""
            columns = zip(boxes.cls.int().tolist(), rows, boxes.conf.tolist(), strict=True)
            lines = [" ".join(f"{v:g}" for v in (c, *row, *[conf] * save_conf)) + "\n" for c, row, conf in columns]
            with new_file(path, overwrite=True) as file:
                file.write(old + "".join(lines))
        return str(txt_file)

    def save_crop(self, save_dir: str | Path, file_name: str | Path = "im.jpg") -> None:
        """Write each detection as `save_dir`/CLASS/NAME.jpg, NAME2.jpg, ...; CLASS as `io.as_file_name` makes it."""
        folders, boxes = as_file_names(self.names), self.boxes
        for box in boxes.cpu() if boxes is not None else []:
            name = f"{folders[int(box.cls.item())]}/{Path(file_name).with_suffix('.jpg').name}"
            path = increment_path(place_in(save_dir, name), sep="")
            save(path, save_one_box(box.xyxy, self.orig_img.copy(), BGR=True, save=False))


@contextmanager
def run_folder(folder: Path) -> Iterator[None]:
    """Within this context a run that fails before it has a result leaves no folder where there was none.

    A folder that was there stays, with all that is in it.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with named(folder):
            yield
    except BaseException:
        inside = [path for path in folder.rglob("*") if missing]
        if all(path.is_dir() or path.name in BEGUN for path in inside):
            for path in (*sorted(inside, reverse=True), *missing):
                with suppress(OSError):  # another run has put something there
                    path.rmdir() if path.is_dir() else path.unlink()
        raise
