"""Small texts beside LoRAs, read within bounds and replaced in one step."""

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loradex.index.sqlite.connections import sync, sync_folder
from loradex.retrieval.errors import DescriptionError, FileMissing
from loradex.retrieval.lora.facts import LARGEST_SIDE_CAR
from loradex.retrieval.lora.header import open_regular

WRITABLE: Final = 0o600


def read_text(path: Path) -> str | None:
    """What a file says, or None where there is none.

    Raises:
        DescriptionError: it is a link or no file, too large, no UTF-8, or cannot be read.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):  # what a link leads to may be another's
            raise DescriptionError(
                f"{path}: expected a regular file, found a link, folder or device, which is left alone; put a file there"
            )
        with open_regular(path) as file:
            raw = file.read(LARGEST_SIDE_CAR + 1)
    except FileNotFoundError:
        return None
    except (FileMissing, OSError, ValueError) as error:
        raise DescriptionError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}; check the path and the access rights"
        ) from None
    if len(raw) > LARGEST_SIDE_CAR:
        raise DescriptionError(
            f"{path}: expected at most {LARGEST_SIDE_CAR >> 20} MiB, found more; it is left alone, move it away to get a new one"
        )
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise DescriptionError(
            f"{path}: expected UTF-8, found other bytes; it is left alone, save it as UTF-8"
        ) from None


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field of a side-car or card; an old value of None was none, a new one of None is taken back."""

    field: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Plan:
    """A change of a text file.

    Attributes:
        before: its text as it was read, or None where there was no file.
        changes: what changes, by field; nothing does where there is none.
    """

    path: Path
    before: str | None
    after: str
    changes: list[FieldChange]


def carry_out(plan: Plan, like: Path) -> None:
    """Put the new text in the place of the old one, all of it or nothing; a new file is as readable as ``like``.

    Raises:
        DescriptionError: the disk refuses it, or the file is no longer as it was read.
    """
    path = plan.path
    try:
        descriptor, name = tempfile.mkstemp(".part", ".", path.parent)
        part = Path(name)
        try:
            with open(descriptor, "wb") as file:
                file.write(plan.after.encode())
                sync(file)
            part.chmod((like if plan.before is None else path).stat().st_mode & 0o666 | WRITABLE)
            if read_text(path) != plan.before:
                raise DescriptionError(
                    f"{path}: expected it as it was read, found it changed; something else writes to it, run this again"
                )
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise DescriptionError(
            f"{path}: cannot be written: {error.strerror}; check the disk and the access rights"
        ) from None


def clean(name: str) -> str:
    """A name with question marks for what is no Unicode."""
    return name.encode(errors="replace").decode()
