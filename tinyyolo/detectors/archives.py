"""Zip archives of torch: their records are what torch writes, and as their checksums say."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from tinyyolo.config import UserError, shown

MOST_CODE = 2**26  # bytes of TorchScript's code, the one thing that torch compresses
FOLDER = 0x10  # the mark of one among a record's attributes
SAID = 200  # characters of another library's message
# What torch's reader raises for a pickle that says something else than values: whatever its instructions meet.
READING = (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError)


def in_one_line(error: Exception) -> str:
    """Another library's message."""
    return " ".join(str(error).split())[:SAID] or type(error).__name__


def checked_records(path: Path) -> dict[str, int]:
    """The records of a zip archive of torch and their checksums; every one is read once.

    Raises:
        UserError: damaged or cut short, with the record's name; or records that torch does not write: compressed ones,
            folders, two of one name or place, and those whose name leads elsewhere.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if fault := fault_of_records(records, path.stat().st_size):
                raise UserError(f"{path}: refused: {fault}")
            damaged = archive.testzip()
    except UserError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, zlib.error, *READING) as error:
        raise UserError(f"{path}: cut short or damaged: {in_one_line(error)}") from error
    if damaged:
        raise UserError(f"{path}: damaged: its record {shown(damaged)} is not as its checksum says")
    sums = {record.filename.partition("/")[2]: record.CRC for record in records}
    if not is_code(sums) and "data.pkl" not in sums:
        some = shown(records[0].filename if records else "nothing")
        raise UserError(f"{path}: no checkpoint: it looks like a zip archive of other files, such as {some}")
    return sums


def is_code(records: Iterable[str]) -> bool:
    """Whether an archive of these records is TorchScript."""
    return any(name.startswith("code/") or name == "constants.pkl" for name in records)


def fault_of_records(records: list[zipfile.ZipInfo], size: int) -> str:
    """What in the list of a zip archive's records torch does not write, or ''."""
    seen: set[str] = set()
    code = 0
    for record in records:
        name = record.filename
        said = f"its record {shown(name)}"
        if name in seen:
            return f"{said} is there twice"
        seen.add(name)
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            return f"{said} leads out of the archive"
        if record.is_dir() or record.external_attr & FOLDER:  # torch gives memory that is in no file
            return f"{said} is marked as a folder"
        stored = record.compress_type == zipfile.ZIP_STORED and record.file_size == record.compress_size
        if not stored and not name.partition("/")[2].startswith("code/"):
            return f"{said} is compressed, which torch's are not"
        code += 0 if stored else record.file_size
    claimed = sum(record.compress_size for record in records)
    if claimed > size or code > MOST_CODE:
        return f"its records claim {claimed + code:,} bytes, the file has {size:,}"
    return ""
