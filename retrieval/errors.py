"""Every error that reading LoRAs, encoding text and probing weights can end in.

LoradexError
├── FileError             a file that was offered as a LoRA, or a part of it
│   ├── FileMissing       no such file, or a folder, pipe or device in its place
│   ├── FileUnsafe        a pickle or another container that could run code or that is no safetensors file
│   ├── FileCorrupt       the header or the data contradict themselves or each other
│   └── FileUnsupported   a sound file that holds no low-rank update that can be read
├── FetchError            a hub, or a mirror of one, that cannot be used
├── NoExpert              no expert was trained for the model tree of a file
├── DescriptionError      a side-car or a card that cannot be read, or that is not Loradex's to change
├── EngineError           what reads many files at once cannot be used
├── CheckpointError       an expert, a space or a text encoder that cannot be used
└── QueryError            a query or a list of labels that cannot be encoded
"""

from collections.abc import Iterator
from contextlib import contextmanager


class LoradexError(Exception):
    """Root of the tree; its message is one line: what, where, expected, found, how to mend."""


class FileError(LoradexError):
    """A file that was offered as a LoRA cannot be used."""


class FileMissing(FileError):
    """There is no such regular file."""


class FileUnsafe(FileError):
    """The file is a pickle or another container than safetensors; nothing in it was executed."""


class FileCorrupt(FileError):
    """The file contradicts itself."""


class FileUnsupported(FileError):
    """The file is sound but holds no low-rank weight update that can be read."""


class FetchError(LoradexError):
    """The hub, or a mirror of it, cannot be used; what was fetched is kept, and the next run goes on from there."""


class NoExpert(LoradexError):
    """No expert was trained for the file's model tree."""


class DescriptionError(LoradexError):
    """A side-car or a card cannot be read or written, and is left as it was."""


class EngineError(LoradexError):
    """What reads many files at once cannot be used; what it finished is kept, and the next run goes on from there."""


class CheckpointError(LoradexError):
    """An expert, a space or a text encoder cannot be used."""


class QueryError(LoradexError):
    """A query or a list of labels cannot be encoded."""


@contextmanager
def located(where: object) -> Iterator[None]:
    """Put a place in front of the message of any file error within."""
    try:
        yield
    except FileError as error:
        raise type(error)(f"{where}: {error}") from None
