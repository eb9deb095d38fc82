"""The report: one HTML page that opens from disk, PNGs of the worst images, and the labels that may be missing."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import Annotations
from tinyyolo.evaluation.errors import CAUSES, FOUND, MISSED, REGION, TRUE, Errors, count_errors
from tinyyolo.evaluation.matching import scores_of
from tinyyolo.io import as_file_name, name_fault, new_file, place_in

TEMPLATE = Path(__file__).with_name("report.html")
PLACE = '<script type="application/json" id="data">{}</script>'
KINDS = ("TP", "FN", *CAUSES.values())
KIND_OF = {TRUE: 0, **{cause: KINDS.index(word) for cause, word in CAUSES.items()}}
COLOURS = {"TP": (0, 200, 83), "FP": (41, 121, 255), "FN": (255, 23, 68)}  # RGB; green, blue, red as in Fig. 9
MIME = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".gif": "gif", ".bmp": "bmp"}  # browsers show
PNG_SIDE = 1600  # a PNG is enlarged by a whole factor up to this side, so that tiny boxes can be seen
PNG_FACTORS = 8


def worst_images(errors: Errors) -> np.ndarray:
    """All images by falling number of false positives and missed objects."""
    images = len(errors.truth)
    wrong = np.isin(errors.verdict, list(CAUSES))
    count = np.bincount(errors.detections.image_index[wrong], minlength=images)
    count = count + np.bincount(errors.truth.image_index[errors.state == MISSED], minlength=images)
    return np.argsort(-count, kind="stable")


def find_image(folder: Path | None, name: str) -> Path | None:
    """The image file: `folder/name`, or `folder/` and the last part of the name; never one outside the folder.

    Neither a name nor a link leads out of it, and what is no image is none: the page may be sent away.
    """
    from tinyyolo.datasets.images import look

    names = [] if folder is None else [one for one in (name, Path(name).name) if not name_fault(one)]
    for path in (Path(str(folder), one) for one in names):
        if path.is_file() and path.resolve().is_relative_to(Path(str(folder)).resolve()) and not look(path).fault:
            return path
    return None


def write_report(
    errors: Errors, path: Path, images: Path | None = None, limit: int = 200, embed: bool = False
) -> tuple[int, int]:
    """Write the page with the worst images.

    Args:
        errors: verdicts.
        path: the HTML file.
        images: folder of the image files, which the page refers to by relative path; None draws boxes alone.
        limit: how many images.
        embed: put the images into the page, which then can be sent away alone.

    Returns:
        how many images the page has, and how many of their files were not found.

    Raises:
        UserError: `images` is no folder, or has none of the images.
    """
    if images is not None and not images.is_dir():
        raise UserError(f"images={images}: no such folder")
    chosen = worst_images(errors)[:limit]
    files = [find_image(images, errors.truth.file_names[i]) for i in chosen]
    missing = sum(file is None for file in files) if images is not None else 0
    if len(files) and missing == len(files):
        first = errors.truth.file_names[chosen[0]]
        raise UserError(f"images={images}: has no {first!r}, nor any other of the images; links out of it do not count")
    sources = [image_source(file, path.parent, embed) for file in files]
    page = TEMPLATE.read_text(encoding="utf-8").replace(
        PLACE, PLACE.replace("{}", script_json(page_data(errors, chosen, sources)))
    )
    with new_file(path, overwrite=True) as file:
        file.write(page)
    return len(chosen), missing


def script_json(content: Any) -> str:
    """JSON that cannot end the script element it stands in.

    Examples:
        >>> script_json("</script>")
        '"\\\\u003c/script>"'
    """
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def image_source(file: Path | None, folder: Path, embed: bool) -> str | None:
    """What the page loads: a relative path, or the image itself; formats no browser shows become PNG."""
    from tinyyolo.datasets.images import encode, opened

    if file is None:
        return None
    kind = MIME.get(file.suffix.lower())
    if kind is None:
        return data_url("png", encode(opened(file)))
    if embed:
        return data_url(kind, file.read_bytes())
    try:
        return quote(Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix())
    except ValueError:  # on another drive
        return file.resolve().as_uri()


def data_url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def page_data(errors: Errors, chosen: np.ndarray, sources: Sequence[str | None]) -> dict[str, Any]:
    """What the page's script reads; boxes are [x, y, w, h, class, size, kind, score, IoU]."""
    truth = errors.truth
    return {
        "source": truth.path.name,
        "classes": list(truth.names.values()),
        "sizes": list(errors.sizes),
        "unsized": bool((errors.dt_size < 0).any() or (errors.gt_size < 0).any()),
        "kinds": list(KINDS),
        "thresholds": dict(zip(truth.names.values(), errors.thresholds.tolist(), strict=True)),
        "counts": count_errors(errors),
        "total": len(truth),
        "images": [
            image | {"source": source} for image, source in zip(image_entries(errors, chosen), sources, strict=True)
        ],
    }


def image_entries(errors: Errors, chosen: np.ndarray) -> Iterator[dict[str, Any]]:
    """Name, size and boxes of each chosen image; `regions` are ignore regions, `found` the objects found."""
    truth, found = errors.truth, errors.detections
    places, new_places = np.round(truth.xywh, 2).tolist(), np.round(found.xywh, 2).tolist()
    for i in chosen.tolist():
        own, new = truth.rows(i), found.rows(i)
        objects = {state: np.flatnonzero(errors.state[own] == state) + own.start for state in (REGION, FOUND, MISSED)}
        judged = np.isin(errors.verdict[new], list(KIND_OF))
        detections = np.arange(new.start, new.stop)[judged]
        height, width = truth.sizes_hw[i].tolist()
        if not (height and width):
            ends = np.concatenate([truth.boxes[own, 2:], found.boxes[detections, 2:], [[1.0, 1]]])
            width, height = np.ceil(ends.max(0)).astype(int).tolist()
        boxes = [new_places[row] + figures(errors, found, row) for row in detections.tolist()]
        yield {
            "name": truth.file_names[i],
            "size": [width, height],
            "boxes": boxes + [places[row] + figures(errors, truth, row) for row in objects[MISSED].tolist()],
            "regions": [places[row] for row in objects[REGION].tolist()],
            "found": [places[row] for row in objects[FOUND].tolist()],
        }


def figures(errors: Errors, boxes: Annotations, row: int) -> list[Any]:
    """[class, size, kind, score, IoU] of one of the objects or of the detections; of sizes in no range the last."""
    found = boxes is errors.detections
    size = int((errors.dt_size if found else errors.gt_size)[row])
    size = size if size >= 0 else len(errors.sizes)
    label = int(boxes.labels[row])
    if not found:
        return [label, size, KINDS.index("FN"), None, None]
    score, iou = float(scores_of(boxes)[row]), float(errors.iou[row])
    return [label, size, KIND_OF[int(errors.verdict[row])], round(score, 4), round(iou, 3)]


def write_pngs(errors: Errors, folder: Path, images: Path | None, limit: int) -> list[Path]:
    """Draw the worst images, enlarged without smoothing: TP green, FP blue, FN red.

    Returns:
        the files, named by rank and image.

    Raises:
        UserError: an image cannot be read.
    """
    from tinyyolo.datasets.images import opened, save

    paths = []
    for rank, entry in enumerate(image_entries(errors, worst_images(errors)[:limit]), 1):
        file = find_image(images, entry["name"])
        image = np.full((*entry["size"][::-1], 3), 32, np.uint8) if file is None else opened(file)
        path = place_in(folder.parent, f"{folder.name}/{rank:03d}_{as_file_name(Path(entry['name']).stem)}.png")
        paths.append(save(path, draw_boxes(image, entry["boxes"]), overwrite=True))
    return paths


def draw_boxes(image: np.ndarray, boxes: Sequence[Sequence[Any]]) -> np.ndarray:
    """A copy of `image` (H, W, 3) BGR, enlarged by a whole factor, with the page's boxes; right ones first."""
    import cv2

    factor = max(1, min(PNG_FACTORS, PNG_SIDE // max(image.shape[:2])))
    canvas = np.ascontiguousarray(image.repeat(factor, 0).repeat(factor, 1))
    for x, y, w, h, _, _, kind, *_ in sorted(boxes, key=lambda box: box[6] != 0):
        red, green, blue = COLOURS[KINDS[kind] if KINDS[kind] in COLOURS else "FP"]
        first, last = (round(x * factor), round(y * factor)), (round((x + w) * factor), round((y + h) * factor))
        cv2.rectangle(canvas, first, last, (blue, green, red), 1)
    return canvas
