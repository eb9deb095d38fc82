"""Files of tensors and plain values, torch's and safetensors: checked before they are believed, never run as code."""

from __future__ import annotations

import json
import pickle
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from tinyyolo.config import UserError, shipped_weights, shown
from tinyyolo.detectors.archives import READING, SAID, checked_records, in_one_line, is_code
from tinyyolo.io import whole_file

ZIP = b"PK\x03\x04"
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how files of torch before 1.6 begin: a pickled number
HEAD = 1024  # bytes from which a file's kind is seen
# How other files begin, and what they are.
KINDS = {
    b"version https://git-lfs": "a pointer of git-lfs, not the file itself: run `git lfs pull` where it is from",
    b"<!doctype html": "a web page, such as a login page that was saved in its place: download it again",
    b"<html": "a web page, such as a login page that was saved in its place: download it again",
    b"\x93NUMPY": "an array of numpy",
    b"\x89HDF": "an HDF5 file, as Keras writes them",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\x80": "a bare pickle, which is code and is not run",
}
MOST_VALUES = 1_000_000  # in a file, beside its tensors, each as often as it is named
# What makes a state dict of a checkpoint with code; running it is the user's to decide.
CONVERT = (
    'if you trust it, make a state dict of it: python -c "import torch; from ultralytics import YOLO;'
    " torch.save(YOLO('THEIRS.pt').model.state_dict(), 'state.pt')\""
)
DEEPEST = 64  # mappings and lists in each other
MOST_SHARED = 4  # times the file's size that its tensors may claim: some share their values
SMALL = 2**20  # bytes that are no danger whatever is claimed
LONGEST_HEADER = 100_000_000  # bytes; safetensors' own bound
CHECKSUM, UNSET = "crc32", "0" * 8  # in a safetensors header: of the file with these digits 0


def read(path: str | Path) -> Any:
    """The content of a file of tensors: torch's zip archive or older file, or safetensors, by what it holds.

    Returns:
        Mappings, lists, numbers, text and tensors on the CPU. Of a safetensors file {name: tensor}, or what
        `export.safetensors` wrote: {"model": {name: tensor}, "yaml": ..., "names": ...}.

    Raises:
        UserError: no such file; one of another kind, which is named; cut short, or not as its checksums say; or one
            that holds code, nests too deep or claims more memory than it has bytes.
    """
    path, size, head = start(path)
    sums = None
    if head.startswith(ZIP):
        sums = checked_records(path)
        if is_code(sums):
            raise UserError(
                f"{path}: TorchScript, which is code and no checkpoint; an export of tinyyolo is called "
                "NAME.torchscript, and Model(path, trust=True) or trust=true runs it"
            )
    elif is_safetensors(head):
        return cleaned(read_safetensors(path), path, size)
    elif not head.startswith(LEGACY):
        raise UserError(f"{path}: no checkpoint: it looks like {kind_of(head)}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: refused: {why_refused(error)}") from error
    except RecursionError as error:
        raise UserError(f"{path}: refused: its values are nested too deep") from error
    except READING as error:
        raise UserError(f"{path}: not a readable checkpoint: {in_one_line(error)}") from error
    return cleaned(content, path, size, None if sums is None else set(sums.values()))


def start(path: str | Path) -> tuple[Path, int, bytes]:
    """A file's path, its size in bytes and how it begins; weights that come with the package go by their name where
    there is no such file. UserError: it cannot be opened."""
    try:
        path = Path(path).expanduser()
        if path.parent == Path() and not path.exists():
            path = shipped_weights().get(path.name, path)
        with path.open("rb") as file:
            head = file.read(HEAD)
        return path, path.stat().st_size, head
    except FileNotFoundError as error:
        others = ", ".join(shipped_weights())
        raise UserError(f"{path}: no such checkpoint" + (f"; with tinyyolo come {others}" if others else "")) from error
    except (OSError, ValueError, RuntimeError) as error:  # no permission, a folder, a null byte, ~nosuchuser
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{str(path)[:SAID]}: cannot be opened: {reason}") from error


def kind_of(head: bytes) -> str:
    """What a file that begins like this looks like.

    Examples:
        >>> kind_of(b""), kind_of(b"hello"), kind_of(b"<HTML><body>")[:10]
        ('an empty file', "text that begins with 'hello'", 'a web page')
    """
    if not head:
        return "an empty file"
    low = head.lstrip().lower()
    for mark, kind in KINDS.items():
        if head.startswith(mark) or low.startswith(mark):
            return kind
    text = head.decode("utf-8", errors="ignore")
    if len(text.encode()) >= len(head) - 3 and all(c.isprintable() or c.isspace() for c in text):  # a cut character
        return f"text that begins with {shown(text)[:30]!r}"
    return "a file of another kind, or a damaged one"


def why_refused(error: pickle.UnpicklingError) -> str:
    """What a pickle wanted to run, and what to do."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    if not found:
        return "not a checkpoint of tensors and plain values, or a damaged one"
    name = found[1]
    if name.startswith(("ultralytics.", "models.")):
        way = "an ultralytics checkpoint, whose network is not one of these: start from model=tinyyolo-n.yaml; "
        way += f"for pretrained=, {CONVERT}"
    else:
        way = "have its maker save the state_dict alone, or as .safetensors"
    return f"it pickles {name[:SAID]}, which is code and is not run; {way}"


def cleaned(content: Any, path: Path, size: int, sums: set[int] | None = None) -> Any:
    """A copy of what a pickle gave, in plain mappings and lists: those there may hold themselves, and have attributes.

    Args:
        content: as it was read.
        path: of the file.
        size: of the file, bytes.
        sums: checksums of the records that hold tensors, where they are known: torch's reader of archives is not ours.

    Raises:
        UserError: too deep, too many values, or tensors that are none of numbers in memory, claim more than there is or
            are not as the checksums say.
    """
    left = MOST_VALUES
    looked_at: set[int] = set()
    claimed = 0

    def copy(value: Any, depth: int) -> Any:
        nonlocal left, claimed
        left -= 1
        if depth > DEEPEST or left < 0:
            bound = f"deeper than {DEEPEST}" if depth > DEEPEST else f"more than {MOST_VALUES:,}"
            raise UserError(f"{path}: refused: its values are {bound}, as no checkpoint's are")
        if isinstance(value, dict):  # by dict's own method: an attribute of the object may have the name
            return {copy(key, depth + 1): copy(one, depth + 1) for key, one in dict.items(value)}
        if isinstance(value, (list, tuple, set)):
            kind = tuple if isinstance(value, tuple) else list
            return kind(copy(one, depth + 1) for one in value)
        if isinstance(value, Tensor):
            plain = type(value) in {Tensor, nn.Parameter} and value.layout == torch.strided and not value.is_quantized
            if not plain or value.device.type != "cpu":
                raise UserError(f"{path}: refused: it holds a tensor that is no plain one of numbers in memory")
            claimed += value.numel() * value.element_size()
            storage = value.untyped_storage()
            if sums is not None and storage.nbytes() and storage.data_ptr() not in looked_at:
                looked_at.add(storage.data_ptr())
                if zlib.crc32(torch.empty(0, dtype=torch.uint8).set_(storage).numpy().data) not in sums:
                    raise UserError(f"{path}: damaged: a tensor is not as its record's checksum says")
            value = value.detach()
        return value

    out = copy(content, 0)
    if claimed > SMALL + MOST_SHARED * size:
        raise UserError(f"{path}: refused: its tensors claim {claimed:,} bytes, the file has {size:,}")
    return out


# ---- safetensors


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins with the length of a JSON header and the header."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER


def read_safetensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file by name; of one that we wrote as "model", with what stands beside them.

    Raises:
        UserError: a header that does not fit the file or names a tensor twice, or a file not as our checksum says.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)  # looks through the header, offset by offset
        header = header_of(path)
        beside = json_of(header, path).get("__metadata__") or {}
    except (safetensors.SafetensorError, *READING) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: cut short or damaged: {in_one_line(error)}") from error
    if CHECKSUM not in beside:
        return tensors
    if beside[CHECKSUM] != check_sum(path, header, beside[CHECKSUM]):
        raise UserError(f"{path}: damaged: it is not as its checksum says")
    values = {key: json_of(text, path) for key, text in beside.items() if key != CHECKSUM}
    return {**values, "model": tensors}


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write tensors, whole or not at all, with plain values as JSON beside them and a checksum: the format has none.

    Raises:
        UserError: the file cannot be written.
    """
    beside = {key: json.dumps(value) for key, value in values.items()} | {CHECKSUM: UNSET}
    content = save(dict(tensors), beside)
    mark = marked(UNSET)
    place = content.index(mark) + len(mark) - 1 - len(UNSET)
    with whole_file(path) as file:
        file.write(content[:place])
        file.write(f"{zlib.crc32(content):08x}".encode())
        file.write(content[place + len(UNSET) :])


def header_of(path: Path) -> bytes:
    """The length and the header of a safetensors file that was looked through."""
    with path.open("rb") as file:
        length = file.read(8)
        return length + file.read(int.from_bytes(length, "little"))


def marked(checksum: str) -> bytes:
    """How a checksum stands in a header; within a text there the quotes would be escaped."""
    return f'"{CHECKSUM}":"{checksum}"'.encode()


def check_sum(path: Path, header: bytes, said: str) -> str:
    """The checksum of a safetensors file whose header says `said`."""
    value = zlib.crc32(header.replace(marked(said), marked(UNSET), 1))
    with path.open("rb") as file:
        file.seek(len(header))
        while part := file.read(SMALL):
            value = zlib.crc32(part, value)
    return f"{value:08x}"


def json_of(text: bytes | str, path: Path) -> Any:
    """The value of a file's JSON text, behind the length where it is a header.

    Raises:
        UserError: no JSON, a key twice, or nested too deep.
    """
    try:
        return json.loads(text[8:] if isinstance(text, bytes) else text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged: {in_one_line(error)}") from error


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping of pairs whose keys differ."""
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{shown(max(names, key=names.count))} is there twice")
    return out
