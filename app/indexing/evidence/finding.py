"""What one kind of evidence says of a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from loradex.index import Position
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.lora import WeightsFile
from loradex.retrieval.remote import RemoteModel


@dataclass(frozen=True, slots=True)
class Finding:
    """What one kind of evidence says of a file.

    Attributes:
        position: in the space; None if this kind says nothing of the file.
        facts: that the zoo stores with the model.
    """

    position: Position | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class WeightsEvidence(Protocol):
    """A kind of evidence that is read from weights: a module with these two functions."""

    def read_local(self, encoder: Encoder, weights: WeightsFile) -> Finding:
        """Read a file of this machine.

        Raises:
            FileCorrupt: the weights cannot be used.
        """
        ...

    def read_remote(self, encoder: Encoder, remote: RemoteModel) -> Finding:
        """Take what was read of a remote file."""
        ...
