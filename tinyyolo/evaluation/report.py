"""The report: one HTML page that opens from disk, PNGs of the worst images, and the labels that may be missing."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.evaluation.errors import CAUSES, FOUND, MISSED, REGION, TRUE, Errors, count_errors
from tinyyolo.evaluation.matching import scores_of
from tinyyolo.io import new_file

TEMPLATE = Path(__file__).with_name("report.html")
PLACE = '<script type="application/json" id="data">{}</script>'
KINDS = ("TP", "FN", *CAUSES.values())
KIND_OF = {TRUE: 0, **{cause: KINDS.index(word) for cause, word in CAUSES.items()}}
COLOURS = {"TP": (0, 200, 83), "FP": (41, 121, 255), "FN": (255, 23, 68)}  # RGB; green, blue, red as in Fig. 9
MIME = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".gif": "gif", ".bmp": "bmp"}  # browsers show
PNG_SIDE = 1600  # a PNG is enlarged by a whole factor up to this side, so that tiny boxes can be seen
PNG_FACTORS = 8


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one array for each image: those of image i are `order[starts[i]:starts[i + 1]]`."""

    order: np.ndarray
    starts: np.ndarray

    def of(self, image: int) -> np.ndarray:
        return self.order[self.starts[image] : self.starts[image + 1]]


def rows_by_image(image: np.ndarray, wanted: np.ndarray, images: int) -> Rows:
    """The rows where `wanted`, image by image."""
    rows = np.flatnonzero(wanted)
    order = rows[np.argsort(image[rows], kind="stable")]
    return Rows(order, np.searchsorted(image[order], np.arange(images + 1)))


def worst_images(errors: Errors) -> np.ndarray:
    """All images by falling number of false positives and missed objects."""
    images = len(errors.truth)
    wrong = np.isin(errors.verdict, list(CAUSES))
    count = np.bincount(errors.detections.image_index[wrong], minlength=images)
    count = count + np.bincount(errors.truth.image_index[errors.state == MISSED], minlength=images)
    return np.argsort(-count, kind="stable")


def find_image(folder: Path | None, name: str) -> Path | None:
    """The image file: `folder/name`, or `folder/` and the last part of the name."""
    if folder is None:
        return None
    return next((path for path in (folder / name, folder / Path(name).name) if path.is_file()), None)


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
        raise UserError(f"images={images}: has no {errors.truth.file_names[chosen[0]]}, nor any other of the images")
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
    if file is None:
        return None
    kind = MIME.get(file.suffix.lower())
    if kind is None:
        return data_url("png", encode_png(read_image(file)))
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
    truth, images = errors.truth, len(errors.truth)
    own, found = truth.xywh, errors.detections.xywh
    judged = np.isin(errors.verdict, list(KIND_OF))
    detections = rows_by_image(errors.detections.image_index, judged, images)
    objects = {
        state: rows_by_image(truth.image_index, errors.state == state, images) for state in (REGION, FOUND, MISSED)
    }
    for i in chosen:
        height, width = truth.sizes_hw[i].tolist()
        boxes = [detection_entry(errors, row, found[row]) for row in detections.of(i)]
        boxes += [object_entry(errors, row, own[row]) for row in objects[MISSED].of(i)]
        plain = {state: own[objects[state].of(i)] for state in (REGION, FOUND)}
        if not (height and width):
            every: list[Any] = [
                truth.boxes[truth.rows(i), 2:],
                errors.detections.boxes[detections.of(i), 2:],
                [[1.0, 1]],
            ]
            width, height = np.ceil(np.concatenate(every).max(0)).astype(int).tolist()
        yield {
            "name": truth.file_names[i],
            "size": [width, height],
            "boxes": boxes,
            "regions": np.round(plain[REGION], 2).tolist(),
            "found": np.round(plain[FOUND], 2).tolist(),
        }


def detection_entry(errors: Errors, row: int, xywh: np.ndarray) -> list[Any]:
    kind = KIND_OF[int(errors.verdict[row])]
    size = place_of_size(errors, int(errors.dt_size[row]))
    figures = [
        int(errors.detections.labels[row]),
        size,
        kind,
        round(float(scores_of(errors.detections)[row]), 4),
        round(float(errors.iou[row]), 3),
    ]
    return [*np.round(xywh, 2).tolist(), *figures]


def object_entry(errors: Errors, row: int, xywh: np.ndarray) -> list[Any]:
    size = place_of_size(errors, int(errors.gt_size[row]))
    return [*np.round(xywh, 2).tolist(), int(errors.truth.labels[row]), size, KINDS.index("FN"), None, None]


def place_of_size(errors: Errors, index: int) -> int:
    """Index among the page's sizes; those in no range come last."""
    return index if index >= 0 else len(errors.sizes)


def read_image(file: Path) -> np.ndarray:
    """(H, W, 3) uint8 BGR.

    Raises:
        UserError: not readable as an image.
    """
    import cv2

    image = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{file}: not readable as an image")
    return image


def encode_png(image: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".png", image)[1].tobytes()


def write_pngs(errors: Errors, folder: Path, images: Path | None, limit: int) -> list[Path]:
    """Draw the worst images, enlarged without smoothing: TP green, FP blue, FN red.

    Returns:
        the files, named by rank and image.
    """
    chosen = worst_images(errors)[:limit]
    paths = []
    for rank, entry in enumerate(image_entries(errors, chosen), 1):
        file = find_image(images, entry["name"])
        width, height = entry["size"]
        image = np.full((height, width, 3), 32, np.uint8) if file is None else read_image(file)
        paths.append(folder / f"{rank:03d}_{Path(entry['name']).stem}.png")
        with new_file(paths[-1], overwrite=True, mode="wb") as stream:
            stream.write(encode_png(draw_boxes(image, entry["boxes"])))
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
