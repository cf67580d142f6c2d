"""All errors of Loradex that come from LoRAs, model files, hubs, encoders and queries.

LoradexError
├── FileError             a file offered as a LoRA, or a part of it
│   ├── FileMissing       there is no such file, or a folder, pipe or device in its place
│   ├── FileUnsafe        a pickle or another container that could run code, or that is no safetensors file
│   ├── FileCorrupt       header and data contradict themselves or each other
│   └── FileUnsupported   a sound file without a low-rank update that can be read
├── FetchError            a hub, or a mirror of one, cannot be used
├── NoExpert              no expert was trained for the model tree of a file
├── NoWords               the words that a file was trained with cannot be read
├── DescriptionError      a side-car or model card cannot be read, or is not Loradex's to change
├── EngineError           the engine that reads many files at once cannot be used
├── CheckpointError       an expert, a space or a text encoder cannot be used
└── QueryError            a query or a list of labels cannot be encoded
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Generic, Self, TypeVar

ReasonT = TypeVar("ReasonT", bound=StrEnum)


class LoradexError(Exception):
    """Base of all errors; its message is one line: what, where, expected, found, how to mend."""


class FileError(LoradexError):
    """A file offered as a LoRA cannot be used."""


class FileMissing(FileError):
    """There is no such regular file."""


class FileUnsafe(FileError):
    """The file is a pickle or another container than safetensors; nothing in it was executed."""


class FileCorrupt(FileError):
    """The file contradicts itself."""


class FileUnsupported(FileError):
    """The file is sound but holds no low-rank weight update that can be read."""


class FetchError(LoradexError):
    """The hub, or a mirror of it, cannot be used; what was fetched is kept, and the next run continues from there."""


class NoExpertReason(StrEnum):
    """Why no expert reads a file."""

    FAMILY = "family"  # no expert reads models of this family
    LAYERS = "layers"  # the file lacks layers that the experts of its family need, or has them in other shapes
    STRANGER = "stranger"  # the weights are those of another base model of the family
    KIND = "kind"  # a model that draws was given to a command for classifiers, or the other way round


class NoWordsReason(StrEnum):
    """Why the words that a file was trained with cannot be read."""

    FAMILY = "family"  # models of this family attend to no text states that are read
    LAYERS = "layers"  # the file changes no keys and values of cross-attention


class Unread(LoradexError, Generic[ReasonT]):
    """A sound file that cannot be read in some way.

    Attributes:
        reason: why, for callers that act on it.
    """

    def __init__(self, message: str, reason: ReasonT) -> None:
        """Keep the reason beside the message."""
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[Self], tuple[str, ReasonT]]:
        """Pickle with both arguments, so that worker processes can raise it."""
        return type(self), (str(self), self.reason)


class NoExpert(Unread[NoExpertReason]):
    """No expert was trained for the model tree of the file."""


class NoWords(Unread[NoWordsReason]):
    """The words that the file was trained with cannot be read."""


class DescriptionError(LoradexError):
    """A side-car or model card cannot be read or written, and is left as it was."""


class EngineError(LoradexError):
    """The engine that reads many files at once cannot be used; finished work is kept, and the next run continues."""


class CheckpointError(LoradexError):
    """An expert, a space or a text encoder cannot be used."""


class QueryError(LoradexError):
    """A query or a list of labels cannot be encoded."""


@contextmanager
def located(where: object) -> Iterator[None]:
    """Put ``where`` in front of the message of any file error raised within."""
    try:
        yield
    except FileError as error:
        raise type(error)(f"{where}: {error}") from None
