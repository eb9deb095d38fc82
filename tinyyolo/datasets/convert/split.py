"""`tinyyolo data split`: the images of a COCO JSON cut into train, val and test, by share, seed and group."""

from __future__ import annotations

import json
import math
import os
import random
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError
from tinyyolo.datasets.audit.check import counts_in_words, counts_of
from tinyyolo.datasets.formats import coco
from tinyyolo.datasets.formats.coco_tables import check_lists, keys_of, name_of
from tinyyolo.datasets.formats.decode import parse_json, plain_id, read_bytes
from tinyyolo.datasets.spec import load, write_yaml
from tinyyolo.io import new_file

JSON, YAML = ".json", ".yaml"
NEAR = 0.01  # of the images: a cut as near to the shares as this is taken at once
TRIES = 200  # orders of the groups that are tried for one


def split(
    data: str | Path,
    *,
    out: str | Path = "",
    images: str | Path = "",
    path: str | Path | None = None,
    split: str = "train",
    val: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
    group: str = "",
    ignore: str | Sequence[str] = (),
    overwrite: bool = False,
) -> int:
    """Cut a COCO JSON by shares: tinyyolo data split a.json images=pictures out=halves/a.yaml val=0.5 seed=1

    Writes OUT.yaml, and OUT-train.json, OUT-val.json (and OUT-test.json) beside it, each with all that the file says of
    its images; pictures stay where they are. The same file, shares and seed give the same cut. With group= the images
    of one scene or flight stay together, whichever they are: nothing that was learnt from is then validated on.

    Args:
        data: a COCO JSON, or a data YAML by path or name whose split has one.
        out: the data YAML to write.
        images: the folder of the images, of a JSON; its own folder unless given.
        path: the root of the data, instead of the data YAML's.
        split: which one of a data YAML is cut.
        val: share of the images that become val; the rest is train.
        test: share of the images that become test.
        seed: of the order of images or groups; another seed, another cut.
        group: what images stay together by: a key of the JSON's images (date_captured, source.video), or a pattern
            (regular expression) that is found in each file name, of which the part in brackets counts: ^(.*?)__
        ignore: categories of a JSON that are ignore regions; a data YAML names its own.
        overwrite: replace what an earlier cut wrote.

    Raises:
        UserError: no such data, shares that leave no image for a split, a group that images lack, or files that exist.
    """
    shares = {"val": val, "test": test}
    if wrong := [key for key, share in shares.items() if not 0 <= share < 1]:
        raise UserError(f"{wrong[0]}={shares[wrong[0]]}: expected a share of the images, from 0 to less than 1")
    if not 0 < val + test < 1:
        raise UserError(f"val={val} test={test}: together more than 0 and less than 1; the rest is train")
    target = Path(out)
    if target.suffix != YAML:
        raise UserError(f"out={out}: give the data YAML to write: out=FILE.yaml")
    file, folder, names, regions = source_of(data, images, path, split, [ignore] if isinstance(ignore, str) else ignore)
    content = dict(check_lists(parse_json(read_bytes(file), file), file))
    content.pop("annotation", None)
    whole = coco.from_content(content, file, names, regions, images=True)
    if not os.path.exists(folder / whole.file_names[0] if len(whole) else folder):
        raise UserError(f"{folder}: no {whole.file_names[0]} in it; give the folder of the images: images=FOLDER")
    keys = keys_of(content["images"])
    groups = grouped(file, content["images"], keys, group)
    chosen = cut(groups, len(keys), shares, seed, f"{file}: {f'group={group}: ' if group else ''}")
    files = {name: target.with_name(f"{target.stem}-{name}{JSON}") for name in chosen}
    for other in (target, *files.values()):
        if os.path.lexists(other) and not overwrite:
            raise UserError(f"{other}: exists; overwrite=true replaces it")
    said = [str(target)]
    for name, several in chosen.items():
        some = part_of(content, {key for one in several for key in one})
        with new_file(files[name], overwrite=overwrite) as stream:
            json.dump(some, stream)
        counts = counts_in_words(counts_of(coco.from_content(some, files[name], names, regions)))
        kind = f", {len(several):,} of {len(groups):,} groups" if group else ""
        said.append(f"  {name} ({len(some['images']) / len(keys):.1%} of the images{kind}): {counts}")
    spec: dict[str, Any] = {"path": str(folder.absolute()), **dict.fromkeys(chosen, ".")}
    spec |= {"annotations": {name: str(one.absolute()) for name, one in files.items()}}
    spec |= {"names": list(whole.names.values()), "ignore": list(regions)}
    by = f"val={val} test={test} seed={seed}{f' group={group}' if group else ''}"
    write_yaml(target, spec, f"{file.name}, cut by `tinyyolo data split`: {by}.", overwrite=overwrite)
    print("\n".join(said))
    return 0


def source_of(
    data: str | Path, images: str | Path, path: str | Path | None, split: str, ignore: Sequence[str]
) -> tuple[Path, Path, list[str] | None, list[str]]:
    """The JSON, the folder of its images, its classes (None: its own categories) and those that are ignore regions.

    Raises:
        UserError: no such data, labels that are no JSON, or a key that the other kind of data has.
    """
    if Path(data).suffix.lower() == JSON:
        return Path(data), Path(images or Path(data).parent), None, list(ignore)
    if images or ignore:
        raise UserError(f"{'images' if images else 'ignore'}=: for a COCO JSON; {data} says it")
    spec = load(data, path)
    spec.must_exist([split])
    labels = spec.split(split).annotations
    if labels is None or labels.suffix.lower() != JSON:
        raise UserError(f"{spec.file}: {split}: no COCO JSON; first: tinyyolo data convert {data} to=coco out=FOLDER")
    return labels, spec.image_dir(split), list(spec.names.values()), list(spec.ignore)


def grouped(file: Path, records: Sequence[Mapping[str, Any]], keys: Sequence[Any], group: str) -> list[list[Any]]:
    """The ids of the images, those of one group together, the groups in the order of what they have in common.

    Args:
        file: of the images, for messages.
        records: COCO's `images`.
        keys: their ids.
        group: see `split`; "": each image is its own.

    Raises:
        UserError: an image lacks the key, or the pattern is none or not in its name.

    Examples:
        >>> names = ["a__0.png", "b__0.png", "a__1.png"]
        >>> images = [{"id": i, "file_name": name, "day": {"of": "may"}} for i, name in enumerate(names)]
        >>> grouped(Path("a.json"), images, [0, 1, 2], "^(.*)__"), grouped(Path("a.json"), images, [0, 1, 2], "day.of")
        ([[0, 2], [1]], [[0, 1, 2]])
    """
    if not group:
        return [[key] for key in sorted(keys)]
    words: list[Any] = [found(record, group) for record in records]
    if any(word is not None for word in words):
        what = f"{group!r}, a key of the others, is missing or no text and no number"
    else:
        try:
            pattern = re.compile(group)
        except re.error as error:
            raise UserError(f"group={group}: no key of the images in {file}, nor a pattern: {error}") from error
        matches = [pattern.search(name_of(record)) for record in records]
        words = [(match.groups() or (match.group(),)) if match else None for match in matches]
        has = ", ".join(records[0])
        what = f"{group!r} is not in its name, and no key of the images, which have {has}"
    for record, word in zip(records, words, strict=True):
        if not isinstance(word, (str, int, float, tuple)):
            raise UserError(f"{file}: image {name_of(record)}: group: {what}")
    together: dict[Hashable, list[Any]] = {}
    for word, key in sorted(zip(map(str, words), keys, strict=True)):
        together.setdefault(word, []).append(key)
    return list(together.values())


def found(record: Mapping[str, Any], dotted: str) -> Any:
    """What a record says under a key, or under keys in keys with dots between; None where it does not."""
    value: Any = record
    for word in dotted.split("."):
        value = value.get(word) if isinstance(value, Mapping) else None
    return value


def cut(
    groups: Sequence[Sequence[Any]], images: int, shares: Mapping[str, float], seed: int, before: str = ""
) -> dict[str, list[Sequence[Any]]]:
    """Groups of images for train and each split with a share, none in two of them.

    The groups are shuffled by the seed; train takes them until it has its images, then the next split; a group that
    fits into none goes where most are missing. Of orders that come one after the other the first is taken that misses
    no split by more than NEAR of the images, else of TRIES the best.

    Args:
        groups: ids of images.
        images: how many they are.
        shares: split -> share of the images; train has the rest.
        seed: of the order.
        before: what a message begins with.

    Raises:
        UserError: a split would have no image.

    Examples:
        >>> {name: len(some) for name, some in cut([[i] for i in range(5)], 5, {"val": 0.5, "test": 0}, 0).items()}
        {'train': 3, 'val': 2}
        >>> cut([[0, 1, 2], [3], [4]], 5, {"val": 0.4}, seed=1)
        {'train': [[0, 1, 2]], 'val': [[3], [4]]}
    """
    wanted = {name: math.ceil(share * images - 0.5) for name, share in shares.items() if share}  # a half goes to train
    wanted = {"train": images - sum(wanted.values()), **wanted}
    order, generator = list(groups), random.Random(seed)
    best: tuple[int, dict[str, list[Sequence[Any]]]] | None = None
    for _ in range(TRIES):
        generator.shuffle(order)
        chosen: dict[str, list[Sequence[Any]]] = {name: [] for name in wanted}
        room = dict(wanted)
        for one in order:
            name = next((name for name, left in room.items() if len(one) <= left), max(room, key=lambda key: room[key]))
            chosen[name].append(one)
            room[name] -= len(one)
        missed = max(map(abs, room.values())) if all(chosen.values()) else images
        if best is None or missed < best[0]:
            best = missed, chosen
        if missed <= NEAR * images:
            break
    if best is None or not all(best[1].values()):
        raise UserError(f"{before}{images:,} images in {len(groups):,} groups leave a split without any: other shares")
    return best[1]


def part_of(content: Mapping[str, Any], kept: set[Any]) -> dict[str, Any]:
    """A COCO file's content with some of its images, by their ids, and all that it says of them."""
    text = {str(key) for key in kept}
    images = [record for record in content["images"] if str(plain_id(record["id"])) in text]
    boxes = [record for record in content["annotations"] if str(plain_id(record["image_id"])) in text]
    return {**content, "images": images, "annotations": boxes}
