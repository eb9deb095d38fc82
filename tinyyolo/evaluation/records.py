"""Read COCO JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: unreadable or malformed; the line names the file and the place.
    """
    try:
        return json.loads(Path(path).expanduser().read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: malformed JSON: {error}") from error
