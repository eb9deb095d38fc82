"""xView's GeoJSON to arrays: one file for all scenes, a feature an object, corners in pixels of its scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.datasets.annotations import Annotations, Problem, assemble, box_faults, raise_fatal, select_classes
from tinyyolo.datasets.formats.base import Format
from tinyyolo.datasets.formats.decode import parse_json, read_bytes, whole
from tinyyolo.datasets.formats.text import numbers, readable

CORNERS = "x1,y1,x2,y2"
CATEGORIES = {
    11: "Fixed-wing Aircraft",
    12: "Small Aircraft",
    13: "Cargo Plane",
    15: "Helicopter",
    17: "Passenger Vehicle",
    18: "Small Car",
    19: "Bus",
    20: "Pickup Truck",
    21: "Utility Truck",
    23: "Truck",
    24: "Cargo Truck",
    25: "Truck w/Box",
    26: "Truck Tractor",
    27: "Trailer",
    28: "Truck w/Flatbed",
    29: "Truck w/Liquid",
    32: "Crane Truck",
    33: "Railway Vehicle",
    34: "Passenger Car",
    35: "Cargo Car",
    36: "Flat Car",
    37: "Tank car",
    38: "Locomotive",
    40: "Maritime Vessel",
    41: "Motorboat",
    42: "Sailboat",
    44: "Tugboat",
    45: "Barge",
    47: "Fishing Vessel",
    49: "Ferry",
    50: "Yacht",
    51: "Container Ship",
    52: "Oil Tanker",
    53: "Engineering Vehicle",
    54: "Tower crane",
    55: "Container Crane",
    56: "Reach Stacker",
    57: "Straddle Carrier",
    59: "Mobile Crane",
    60: "Dump Truck",
    61: "Haul Truck",
    62: "Scraper/Tractor",
    63: "Front loader/Bulldozer",
    64: "Excavator",
    65: "Cement Mixer",
    66: "Ground Grader",
    71: "Hut/Tent",
    72: "Shed",
    73: "Building",
    74: "Aircraft Hangar",
    76: "Damaged Building",
    77: "Facility",
    79: "Construction Site",
    83: "Vehicle Lot",
    84: "Helipad",
    86: "Storage Tank",
    89: "Shipping container lot",
    91: "Shipping Container",
    93: "Pylon",
    94: "Tower",
}
NAMELESS = {75: "type 75", 82: "type 82"}  # the file has them, its class list does not: taken as ignore regions


def read(
    images_dir: str | Path,
    names: Sequence[str] | Mapping[int, str] | None = None,
    ignore: Sequence[str] = (),
    *,
    labels: str | Path | None = None,
    file_names: Sequence[str] | None = None,
    strict: bool = True,
) -> Annotations:
    """Arguments and errors of every Reader. Of the 60 classes those that are not in `names` are ignore regions, as
    nobody said what they are."""
    images_dir = Path(images_dir)
    path = images_dir.parent / "xView_train.geojson" if labels is None else Path(labels)
    problems: list[Problem] = []
    kept, size_hw = readable(images_dir, file_names, problems)
    own = list((names.values() if isinstance(names, Mapping) else names) or CATEGORIES.values())
    categories = CATEGORIES | NAMELESS
    skipped = [name for name in categories.values() if name not in own]
    classes = select_classes(categories, own, (*ignore, *skipped), path)
    index = {name: i for i, name in enumerate(kept)}
    rows = np.array(parse(path, index, categories, problems), np.float64).reshape(-1, 7)
    kinds = box_faults(rows[:, 3:])
    for row, kind in zip(rows[kinds != ""], kinds[kinds != ""], strict=True):
        where = f"{path}: feature {row[0]:.0f} in {kept[int(row[1])]}"
        problems.append(Problem(str(kind), where, f"{kind}: {row[3:].tolist()}"))
    if strict:
        raise_fatal(problems)
    rows = rows[kinds == ""]
    columns = rows[:, 1].astype(np.int64), rows[:, 3:], rows[:, 2].astype(np.int64)
    return assemble(path, classes, kept, size_hw, *columns, problems)


def parse(
    path: Path, index: Mapping[str, int], categories: Mapping[int, str], problems: list[Problem]
) -> list[tuple[float, ...]]:
    """(number of the feature, image, type, x1, y1, x2, y2) of every feature, read without keeping the polygons.

    Raises:
        UserError: no such file, or no GeoJSON.
    """
    rows: list[tuple[float, ...]] = []
    absent: dict[str, int] = {}
    count = 0

    def take(record: dict[str, Any]) -> Any:
        nonlocal count
        if "bounds_imcoords" not in record:
            return record if "features" in record else None
        count += 1
        where = f"{path}: feature {count}"
        try:
            corners = numbers(str(record["bounds_imcoords"]).split(","), CORNERS)
            kind, image = whole(record["type_id"], "type_id"), str(record["image_id"])
            if len(corners) != len(CORNERS.split(",")):
                raise ValueError(f"expected `{CORNERS}`, found {len(corners)} numbers")
        except (KeyError, TypeError, ValueError) as error:
            problems.append(Problem("bad record", where, f"no {error}" if isinstance(error, KeyError) else str(error)))
            return None
        if kind not in categories:
            problems.append(Problem("unknown class", where, f"type_id {kind} is none of xView's"))
        elif image not in index:
            absent[image] = absent.get(image, 0) + 1
        else:
            rows.append((count, index[image], kind, *corners))
        return None

    content = parse_json(read_bytes(path), path, take)
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a GeoJSON: no list 'features'")
    problems += [
        Problem("missing image", image, f"{n:,} objects of {path.name} lie in it") for image, n in absent.items()
    ]
    return rows


FORMAT = Format(read)
