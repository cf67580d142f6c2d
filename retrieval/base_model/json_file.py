"""JSON files of a base model, read within a bound."""

import json
from pathlib import Path
from typing import Any, Final

from loradex.retrieval.errors import FileCorrupt
from loradex.retrieval.lora.regular_file import open_regular_file

MAX_CONFIG_BYTES: Final = 2**20


def read_json_object(path: Path, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileMissing: there is no such file, or it cannot be read.
        FileCorrupt: it is longer than the bound, or no JSON object.
    """
    with open_regular_file(path) as file:
        raw = file.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise FileCorrupt(f"{path}: expected JSON of up to {max_bytes >> 20} MiB, found more; download it again")
    try:
        value = json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise FileCorrupt(f"{path}: expected JSON, found {str(error)[:80]}; download it again") from None
    if not isinstance(value, dict):
        raise FileCorrupt(f"{path}: expected a JSON object, found {type(value).__name__}; download it again")
    return value
