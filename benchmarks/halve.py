"""Split an annotation file in COCO format into two halves of its images, by a seed, and write the data YAML of both.

    python benchmarks/halve.py annotations.json images/ halves/hrplanes-0.yaml --seed 0

Nothing is copied: the YAML points at the images where they are. For comparisons on sets without a split of their own.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import yaml


def halve(content: dict, seed: int) -> dict[str, dict]:
    """{"train", "val"}: the file's content with half of its images each; the odd one goes to train.

    Examples:
        >>> content = {"images": [{"id": i} for i in range(5)], "annotations": [{"image_id": 4}], "categories": []}
        >>> both = halve(content, seed=0)
        >>> [len(both[split]["images"]) for split in ("train", "val")]
        [3, 2]
        >>> sum(len(both[split]["annotations"]) for split in both)
        1
    """
    ids = sorted(image["id"] for image in content["images"])
    random.Random(seed).shuffle(ids)
    chosen = {"train": set(ids[: (len(ids) + 1) // 2]), "val": set(ids[(len(ids) + 1) // 2 :])}
    return {
        split: {
            **content,
            "images": [image for image in content["images"] if image["id"] in some],
            "annotations": [box for box in content["annotations"] if box["image_id"] in some],
        }
        for split, some in chosen.items()
    }


def main() -> None:
    """Write PATH.yaml and PATH-train.json, PATH-val.json beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path, help="the data YAML")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    both = halve(json.loads(args.annotations.read_text(encoding="utf-8")), args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    files = {split: args.out.with_name(f"{args.out.stem}-{split}.json").absolute() for split in both}
    for split, content in both.items():
        files[split].write_text(json.dumps(content), encoding="utf-8")
    images = str(args.images.absolute())
    spec = {"path": "/", "train": images, "val": images, "annotations": {k: str(v) for k, v in files.items()}}
    args.out.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main()
