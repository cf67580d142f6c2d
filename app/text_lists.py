"""A person's list of words or labels in a text file."""

from pathlib import Path
from typing import Final

from loradex.retrieval.errors import FileMissing, QueryError
from loradex.retrieval.lora.regular_file import open_regular_file

MAX_BYTES: Final = 4 * 2**20


def read_lines(path: Path, what: str) -> list[str]:
    """Read a text file, one ``what`` ("word", "label") a line, each once; empty lines are ignored.

    Raises:
        QueryError: the file cannot be read, is too large, or holds none.
    """
    try:
        with open_regular_file(path) as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise QueryError(f"{path}: expected at most {MAX_BYTES >> 20} MiB of {what}s, found more; leave some out")
        lines = raw.decode("utf-8-sig").splitlines()
    except (FileMissing, OSError, ValueError) as error:
        found = "other bytes" if isinstance(error, ValueError) else "none that can be read"
        raise QueryError(
            f"{path}: expected a UTF-8 text file with one {what} per line, found {found}; check the path"
        ) from None
    texts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not texts:
        raise QueryError(f"{path}: expected one {what} per line, found an empty file; write some words into it")
    return texts
