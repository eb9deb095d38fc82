"""The report: one HTML page that opens from disk, PNGs of the worst images, and the labels that may be missing."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Iterator, Sequence
from importlib.resources import files as packaged
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import Annotations
from tinyyolo.evaluation.errors import CAUSES, FOUND, MISSED, REGION, TRUE, Errors, count_errors
from tinyyolo.evaluation.matching import scores_of
from tinyyolo.io import as_file_name, name_fault, new_file, place_in

TEMPLATE = packaged("tinyyolo.evaluation") / "report.html"
PLACE = '<script type="application/json" id="data">{}</script>'
KINDS = ("TP", "FN", *CAUSES.values())
KIND_OF = {TRUE: 0, **{cause: KINDS.index(word) for cause, word in CAUSES.items()}}
COLOURS = {"TP": (0, 200, 83), "FP": (41, 121, 255), "FN": (255, 23, 68)}  # RGB; green, blue, red as in Fig. 9
MIME = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".gif": "gif", ".bmp": "bmp"}  # browsers show
PNG_SIDE = 1600  # a PNG is enlarged by a whole factor up to this side, so that tiny boxes can be seen
PNG_FACTORS = 8
LARGE, MOST_LINKED = 2400, 8000  # px, longer side of an image that is in the page whole, or that the page refers to
PART, RIM = 256, 32  # px of a part of a larger one, and around it
MOST_PARTS, MOST_INSIDE = 200, 96  # of an image, as files and in the page
LEAST_MARK = 5  # px, of a box on a picture that is shrunk
LARGEST_BLANK = 2**25  # px of a PNG without an image


def worst_images(*found: Errors) -> np.ndarray:
    """All images by falling number of false positives and missed objects, of several detectors together."""
    images = len(found[0].truth)
    count = np.zeros(images, np.int64)
    for errors in found:
        wrong = np.isin(errors.verdict, list(CAUSES))
        count += np.bincount(errors.detections.image_index[wrong], minlength=images)
        count += np.bincount(errors.truth.image_index[errors.state == MISSED], minlength=images)
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
    entries = list(image_entries(errors, chosen))
    for rank, (file, entry) in enumerate(zip(files, entries, strict=True), 1):
        if file is not None and is_large(file, embed):
            entry |= in_parts(file, entry, path.parent, None if embed else f"{path.stem}_parts/{rank:03d}")
        else:
            entry["source"] = image_source(file, path.parent, embed)
    page = TEMPLATE.read_text(encoding="utf-8").replace(
        PLACE, PLACE.replace("{}", script_json(page_data(errors, entries)))
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
    """An image file as an address that holds it whole."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def is_large(file: Path, embed: bool) -> bool:
    """Whether an image would make the page too heavy, or is more than browsers show."""
    from tinyyolo.datasets.images import look

    inside = embed or file.suffix.lower() not in MIME
    return max(look(file).size_hw) > (LARGE if inside else MOST_LINKED)


def in_parts(file: Path, entry: dict[str, Any], folder: Path, name: str | None) -> dict[str, Any]:
    """Size, an overview as `source`, and `parts`, [x, y, w, h, source] around the boxes at the image's own size.

    Args:
        file: the image.
        entry: its boxes, see `image_entries`.
        folder: of the page.
        name: in it, how the files begin that are written; None puts them into the page.

    Raises:
        UserError: it cannot be read.
    """
    from tinyyolo.datasets.images import encode, save
    from tinyyolo.datasets.views import opened_view, part, whole

    def source(image: np.ndarray, mark: str) -> str:
        if name is None:
            return data_url("jpeg", encode(image, ".jpg"))
        return quote(save(place_in(folder, f"{name}_{mark}.jpg"), image, overwrite=True).relative_to(folder).as_posix())

    view = opened_view(file)
    height, width = view.size_hw
    parts = []
    for column, row in part_places(entry["boxes"], width, height)[: MOST_PARTS if name else MOST_INSIDE]:
        left, top = max(0, column * PART - RIM), max(0, row * PART - RIM)
        right, bottom = min(width, (column + 1) * PART + RIM), min(height, (row + 1) * PART + RIM)
        pixels = part(view, left, top, right, bottom)
        parts.append([left, top, right - left, bottom - top, source(pixels, f"{column}_{row}")])
    overview = source(whole(view, PNG_SIDE), "all")
    view.close()
    return {"size": [width, height], "source": overview, "parts": parts}


def part_places(boxes: Sequence[Sequence[Any]], width: int, height: int) -> list[tuple[int, int]]:
    """Column and row of squares of PART px with boxes, those with the most wrong ones first, then the most right ones.

    Examples:
        >>> part_places([[300, 5, 9, 9, 0, 0, 1], [2, 2, 4, 4, 0, 0, 0], [299, 7, 9, 9, 0, 0, 1]], 600, 600)
        [(1, 0), (0, 0)]
    """
    counts: dict[tuple[int, int], list[int]] = {}
    for x, y, w, h, _, _, kind, *_ in boxes:
        middle = min(max(x + w / 2, 0), width - 1), min(max(y + h / 2, 0), height - 1)
        counts.setdefault((int(middle[0]) // PART, int(middle[1]) // PART), [0, 0])[int(kind == 0)] += 1
    return sorted(counts, key=lambda place: (*(-count for count in counts[place]), place))


def page_data(errors: Errors, images: Sequence[dict[str, Any]]) -> dict[str, Any]:
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
        "images": list(images),
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
        the files, named by rank and image; none of an image that is not there and said to be larger than LARGEST_BLANK.

    Raises:
        UserError: an image cannot be read.
    """
    from tinyyolo.datasets.images import save
    from tinyyolo.datasets.views import opened_view, whole

    paths = []
    for rank, entry in enumerate(image_entries(errors, worst_images(errors)[:limit]), 1):
        file = find_image(images, entry["name"])
        if file is None and math.prod(entry["size"]) > LARGEST_BLANK:
            continue
        if file is None:
            image, shrunk = np.full((*entry["size"][::-1], 3), 32, np.uint8), 1.0
        else:
            view = opened_view(file)
            height, width = view.size_hw
            image = whole(view, PNG_SIDE if max(height, width) > LARGE else max(height, width))
            shrunk = image.shape[1] / width
            view.close()
        path = place_in(folder.parent, f"{folder.name}/{rank:03d}_{as_file_name(Path(entry['name']).stem)}.png")
        paths.append(save(path, draw_boxes(image, entry["boxes"], shrunk), overwrite=True))
    return paths


def draw_boxes(image: np.ndarray, boxes: Sequence[Sequence[Any]], shrunk: float = 1.0) -> np.ndarray:
    """A copy of `image` (H, W, 3) BGR, enlarged by a whole factor, with the page's boxes; right ones first.

    Boxes on an image that was shrunk by `shrunk` are no smaller than LEAST_MARK.
    """
    import cv2

    times = max(1, min(PNG_FACTORS, PNG_SIDE // max(image.shape[:2])))
    canvas, factor = np.ascontiguousarray(image.repeat(times, 0).repeat(times, 1)), times * shrunk
    for x, y, w, h, _, _, kind, *_ in sorted(boxes, key=lambda box: box[6] != 0):
        red, green, blue = COLOURS[KINDS[kind] if KINDS[kind] in COLOURS else "FP"]
        more_x, more_y = (max(0, LEAST_MARK - side * factor) / 2 * (shrunk < 1) for side in (w, h))
        first = round(x * factor - more_x), round(y * factor - more_y)
        last = round((x + w) * factor + more_x), round((y + h) * factor + more_y)
        cv2.rectangle(canvas, first, last, (blue, green, red), 1)
    return canvas
