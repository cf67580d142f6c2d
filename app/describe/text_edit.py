"""Edits of small text files beside LoRAs: read within bounds, replaced in one step."""

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loradex.index.disk import sync, sync_folder
from loradex.retrieval.errors import DescriptionError, FileMissing
from loradex.retrieval.lora.facts import MAX_SIDE_CAR_BYTES
from loradex.retrieval.lora.regular_file import open_regular_file

OWNER_MODE: Final = 0o600  # the owner may read and write whatever ``permissions_like`` says


def read_text(path: Path) -> str | None:
    """Read a text file; None if it does not exist.

    Raises:
        DescriptionError: it is a link or not a regular file, too large, not UTF-8, or cannot be read.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):  # a link may lead to a file of someone else
            raise DescriptionError(
                f"{path}: expected a regular file, found a link, folder or device, which is left alone; put a file there"
            )
        with open_regular_file(path) as file:
            raw = file.read(MAX_SIDE_CAR_BYTES + 1)
    except FileNotFoundError:
        return None
    except (FileMissing, OSError, ValueError) as error:
        raise DescriptionError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}; check the path and the access rights"
        ) from None
    if len(raw) > MAX_SIDE_CAR_BYTES:
        raise DescriptionError(
            f"{path}: expected at most {MAX_SIDE_CAR_BYTES >> 20} MiB, found more; it is left alone, move it away to get a new one"
        )
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise DescriptionError(
            f"{path}: expected UTF-8, found other bytes; it is left alone, save it as UTF-8"
        ) from None


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A change of one field: ``old`` is None if it had no value, ``new`` is None to take its value back."""

    field: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class PlannedEdit:
    """An edit of a text file that is not written yet; without ``changes`` there is nothing to write.

    Attributes:
        before: the text as it was read; None if the file does not exist.
        after: the text to write.
        changes: the changed fields.
    """

    path: Path
    before: str | None
    after: str
    changes: list[FieldChange]


def apply_edit(edit: PlannedEdit, permissions_like: Path) -> None:
    """Replace the text of a file, whole or not at all; a new file gets the permissions of ``permissions_like``.

    Raises:
        DescriptionError: the disk refuses it, or the file has changed since it was read.
    """
    path = edit.path
    try:
        descriptor, name = tempfile.mkstemp(".part", ".", path.parent)
        temporary = Path(name)
        try:
            with open(descriptor, "wb") as file:
                file.write(edit.after.encode())
                sync(file)
            mode_source = permissions_like if edit.before is None else path
            temporary.chmod(mode_source.stat().st_mode & 0o666 | OWNER_MODE)
            if read_text(path) != edit.before:
                raise DescriptionError(
                    f"{path}: expected it as it was read, found it changed; something else writes to it, run this again"
                )
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise DescriptionError(
            f"{path}: cannot be written: {error.strerror}; check the disk and the access rights"
        ) from None


def replace_surrogates(name: str) -> str:
    """Replace what is not Unicode in a file name by question marks."""
    return name.encode(errors="replace").decode()
