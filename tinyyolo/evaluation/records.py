"""Read COCO JSON fast: a list of records that all look alike becomes columns without a Python object per number.

Detectors write millions of records that differ in their numbers only. The text between the numbers is taken from the
first record and compared with that of every other, eight bytes at a time; the numbers are decoded eight digits at a
time. Whatever is not so regular, or not valid, goes to `json.loads`, with the same result.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyyolo.config import UserError
from tinyyolo.io import new_file

FEW = 2000  # bytes; below this json.loads is as fast
RECORDS_AT_ONCE = 1 << 15  # their words stay in the processor's cache
COMMA = ord(",")
WORD = 8  # bytes
EXACT = 2**53  # integers below are exact as float64, and so is their quotient by 10**k, k <= 22
POWERS = 10 ** np.arange(20, dtype=np.uint64)
LARGEST = np.uint64(10**19)
EXTENDED = np.finfo(np.longdouble).nmant >= 63  # 80-bit floats, or better
NUMBER_BYTES = frozenset(b"0123456789+-.eE")
TOKEN = re.compile(rb'"[^"\\]*"|(-?[0-9][0-9.eE+-]*)')


def u64(pattern: str) -> np.uint64:
    """A word that repeats a byte or half word given in hexadecimal."""
    return np.uint64(int(pattern * (16 // len(pattern)), 16))


LAST = np.array([(2**64 - 1) ^ (2 ** (64 - 8 * n) - 1) for n in range(WORD + 1)], np.uint64)  # its last n bytes
ONES, HIGH, ZEROS, DOTS, NIBBLES, SIXES = (u64(p) for p in ("01", "80", "30", "2e", "f0", "06"))


@dataclass(frozen=True)
class Template:
    """What all records share: the bytes after each number, up to the next, and the fields the numbers belong to."""

    lead: bytes  # before the first number of a record, from its opening brace
    literals: tuple[bytes, ...]  # after number i, up to number i + 1 of this or the next record
    fields: Mapping[str, int | list[int]]  # number of a record, or several in a list


def read_json(path: str | Path) -> Any:
    """The content of a JSON file; the records, or those under "annotations", as columns if they are all alike.

    Raises:
        UserError: unreadable or malformed; the line names the file and the place.
    """
    try:
        text = Path(path).expanduser().read_bytes()
        content = read_regular(text)
        if content is not None:
            return content
        with no_collection():
            return json.loads(text)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path}: malformed JSON: {error}") from error


def write_results(columns: Mapping[str, Any], path: str | Path) -> None:
    """Write detections as COCO results, whole or not at all.

    Args:
        columns: {"image_id": (D,), "category_id": (D,), "bbox": (D, 4) xywh px, "score": (D,)}, as `evaluate` takes.
        path: the file; its folder is made.
    """
    names = ("image_id", "category_id", "bbox", "score")
    rows = zip(*(np.asarray(columns[name]).tolist() for name in names), strict=True)
    with new_file(path, overwrite=True) as file:
        file.write("[")
        for i, row in enumerate(rows):
            file.write((",\n" if i else "\n") + json.dumps(dict(zip(names, row, strict=True))))
        file.write("\n]\n")


@contextmanager
def no_collection():
    """Without the cyclic collector, which would walk over millions of fresh dicts again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_regular(text: bytes) -> Any:
    """Columns of a list of like records, or a mapping whose "annotations" are such columns; None if it is neither.

    Examples:
        >>> rows = ", ".join('{"image_id": %d, "bbox": [1.5, 2, 3, 4]}' % i for i in range(99)).encode()
        >>> read_regular(b"[" + rows + b"]")["bbox"].shape
        (99, 4)
        >>> read_regular(b'{"info": 1, "annotations": [' + rows + b"]}")["annotations"]["image_id"][:3].tolist()
        [0.0, 1.0, 2.0]
    """
    if len(text) < FEW:
        return None
    if text[:256].lstrip()[:1] == b"[":
        closing = re.search(rb"\}\s*\]\s*\Z", text[-256:])
        return None if closing is None else read_array(text, text.find(b"{"), max(0, len(text) - 256) + closing.start())
    opening = re.search(rb'"annotations"\s*:\s*\[\s*\{', text)
    closing = None if opening is None else re.compile(rb"\}\s*\]").search(text, opening.end())
    if closing is None:
        return None
    columns = read_array(text, opening.end() - 1, closing.start())
    if columns is None:
        return None
    rest = json.loads(text[: opening.end() - 1] + text[closing.start() + 1 :])
    if not isinstance(rest, dict) or rest.get("annotations") != []:
        return None
    return rest | {"annotations": columns}


def read_array(text: bytes, start: int, end: int) -> dict[str, np.ndarray] | None:
    """Columns of the records that begin at `start`; `end` is the closing brace of the last. None if they differ."""
    template = template_of(text, start, end)
    if template is None:
        return None
    parts = []
    place = start
    while place <= end:
        found = read_block(text, place, end, template)
        if found is None:
            return None
        values, place = found
        parts.append(values)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return {
        name: np.stack([columns[i] for i in at]).T if isinstance(at, list) else columns[at]
        for name, at in template.fields.items()
    }


def template_of(text: bytes, start: int, end: int) -> Template | None:
    """The template of the first record, None if it is nested, has text values, or stands alone."""
    stop = text.find(b"}", start, end)
    following = text.find(b"{", stop, end)
    if start < 0 or following < 0:
        return None
    record = text[start : stop + 1]
    tokens = [m for m in TOKEN.finditer(record) if m.group(1) is not None]
    if not tokens or record.count(b"{") > 1:
        return None
    edges = [0, *(i for m in tokens for i in m.span()), len(record)]
    between = [record[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    numbered = b"".join(part + str(i).encode() for i, part in enumerate(between[:-1])) + between[-1]
    try:
        fields = json.loads(numbered)
    except ValueError:
        return None
    if not all(
        isinstance(v, int) or (isinstance(v, list) and all(isinstance(n, int) for n in v)) for v in fields.values()
    ):
        return None
    literals = (*between[1:-1], between[-1] + text[stop + 1 : following] + between[0])
    if any(literal.count(b",") == 0 for literal in literals):
        return None
    return Template(between[0], literals, {name: v for name, v in fields.items() if v != []})


def read_block(text: bytes, start: int, end: int, template: Template) -> tuple[list[np.ndarray], int] | None:
    """Some records from `start` on as one float64 column for each number, and where the next one begins."""
    per_record = [literal.count(b",") for literal in template.literals]
    size = RECORDS_AT_ONCE * max(WORD, sum(map(len, template.literals)))
    block = np.frombuffer(text, np.uint8, min(size, end + 1 - start), start)
    commas = np.flatnonzero(block == COMMA) + start
    if start + len(block) > end:  # the last record: add the commas of the separator that would follow
        last = np.frombuffer(template.literals[-1], np.uint8)
        skip = template.literals[-1].index(b"}")
        commas = np.append(commas, end - skip + np.flatnonzero(last == COMMA))
    commas = commas[: len(commas) // sum(per_record) * sum(per_record)].reshape(-1, sum(per_record))
    if not len(commas):
        return None
    firsts = np.cumsum([0, *per_record[:-1]])
    ends = [commas[:, c] - lit.index(b",") for c, lit in zip(firsts, template.literals, strict=True)]
    following = ends[-1] + len(template.literals[-1])
    starts = [np.append(start + len(template.lead), following[:-1])]
    starts += [e + len(literal) for e, literal in zip(ends[:-1], template.literals[:-1], strict=True)]
    final = following[-1] - len(template.lead) > end
    if not literals_agree(text, ends, template, final):
        return None
    columns = [decode(text, s, e) for s, e in zip(starts, ends, strict=True)]
    if any(column is None for column in columns):
        return None
    return columns, int(following[-1]) - len(template.lead)


def literals_agree(text: bytes, ends: list[np.ndarray], template: Template, final: bool) -> bool:
    """Whether the bytes after every number are the template's. After the `final` record only the closing brace is."""
    for i, literal in enumerate(template.literals):
        at = ends[i]
        if final and i == len(template.literals) - 1:
            tail = literal[: literal.index(b"}") + 1]
            if text[at[-1] : at[-1] + len(tail)] != tail:
                return False
            at = at[:-1]
        for offset in range(0, len(literal), WORD):
            piece = literal[offset : offset + WORD]
            shift = np.uint64(8 * (WORD - len(piece)))
            want = np.uint64(int.from_bytes(piece, "little"))
            if not (words(text, at + offset) << shift == want << shift).all():
                return False
    return True


def words(text: bytes, at: np.ndarray) -> np.ndarray:
    """The eight bytes from each of the rising places on, the first in the lowest byte; zeros beyond the end."""
    last = len(text) - WORD
    view = np.ndarray((last + 1,), "<u8", text, strides=(1,))
    if not len(at) or at[-1] <= last:
        return view[at]
    return view[np.minimum(at, last)] >> (8 * np.maximum(at - last, 0)).astype(np.uint64)


def decode(text: bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
    """The numbers at `text[starts:ends]` as float64, each correctly rounded; None if one is none."""
    lengths = ends - starts
    if len(lengths) == 0 or lengths.min() < 1:
        return None
    whole, shift, good = digits(words(text, ends - WORD), np.minimum(lengths, WORD))
    for offset in (WORD, 2 * WORD):
        long = np.flatnonzero(lengths > offset)
        part = digits(words(text, np.maximum(ends[long] - offset - WORD, 0)), np.minimum(lengths[long] - offset, WORD))
        high, point, fine = part
        good[long] &= fine & ((shift[long] == 0) | (point == 0)) & (high < LARGEST // POWERS[offset])
        shift[long] = np.where(point > 0, point + offset, shift[long])
        whole[long] += high * POWERS[offset]
    good &= (lengths <= 3 * WORD) & (shift < len(POWERS)) & (lengths > (shift > 0))
    # `whole` has a 0 in the place of the point: int * 10**shift + fraction, with shift - 1 decimals.
    shift = np.where(good, shift, 0)
    if shift.any():
        fraction = whole % POWERS[shift]
        whole = np.where(shift > 0, (whole - fraction) // np.uint64(10) + fraction, whole)
    values, sure = quotient(whole, POWERS[np.maximum(shift, 1) - 1])
    for i in np.flatnonzero(~(good & sure)):
        token = text[starts[i] : ends[i]]
        if not NUMBER_BYTES.issuperset(token):
            return None
        try:
            values[i] = float(token)
        except ValueError:
            return None
        if abs(values[i]) >= EXACT and token.isdigit():  # maybe an id that float64 cannot hold
            return None
    return values


def quotient(mantissa: np.ndarray, power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`mantissa / power` correctly rounded to float64, and where that is sure.

    Both operands are exact up to 2**53. Above, 80-bit floats decide unless they end near the middle of two float64.
    """
    values = mantissa.astype(np.float64) / power
    sure = mantissa < EXACT
    large = np.flatnonzero(~sure & (power > 1)) if EXTENDED else []
    if len(large):
        precise = mantissa[large].astype(np.longdouble) / power[large].astype(np.longdouble)
        values[large] = precise
        step = np.spacing(values[large])
        sure[large] = np.abs(np.abs(precise - values[large]) - step / 2) > step / 2**9
    return values, sure


def digits(text: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decode the last `lengths` bytes of each word.

    Returns:
        The number, a point read as 0; places of the point from the right, 1 for the last byte, 0 for none; and whether
        there were only digits and at most one point.
    """
    word = (text & LAST[lengths]) | (ZEROS & ~LAST[lengths])
    other = word ^ DOTS
    dot = (other - ONES) & ~other & HIGH
    shift = np.where(dot > 0, 9 - np.frexp(dot.astype(np.float64))[1] // 8, 0)
    word ^= (dot >> np.uint64(7)) * np.uint64(ord(".") ^ ord("0"))
    good = (dot & (dot - np.uint64(1))) == 0
    good &= ((word & NIBBLES) == ZEROS) & (((word + SIXES) & NIBBLES) == ZEROS)
    word = ((word & u64("0f")) * np.uint64(10 * 2**8 + 1)) >> np.uint64(8)
    word = ((word & u64("00ff")) * np.uint64(100 * 2**16 + 1)) >> np.uint64(16)
    word = ((word & u64("0000ffff")) * np.uint64(10000 * 2**32 + 1)) >> np.uint64(32)
    return word, shift, good
