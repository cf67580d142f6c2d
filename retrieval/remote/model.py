"""One LoRA of a hub: known by its header, and placed by the layers that an expert reads, which are all that is fetched of its data."""

from dataclasses import dataclass

from torch import Tensor

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import NoExpert
from loradex.retrieval.lora import Format, LoraFile
from loradex.retrieval.lora.facts import Facts, header_facts
from loradex.retrieval.remote.header import RemoteHeader


@dataclass(frozen=True, slots=True)
class HubModel:
    """What was read of a LoRA on a hub.

    It has no fingerprint, which would need all layers.

    Attributes:
        id: made of what the hub says of the file; see ``HubFile.id``.
        ranks: the distinct ranks of the updates, ascending.
        layers: their names in diffusers.
        facts: what the header says; side-cars are not read.
        metadata: the header's.
        vector: in the encoder's space (dim,), or None where no expert reads its model tree.
        received: bytes that came of it, its settings included.
    """

    id: str
    family: str
    format: Format
    ranks: list[int]
    layers: list[str]
    facts: Facts
    metadata: dict[str, str]
    vector: Tensor | None
    received: int


def read_model(name: str, header: RemoteHeader, encoder: Encoder) -> HubModel:
    """Read of a LoRA's data what the experts of its family need; the family is told by the names and shapes of its layers.

    Args:
        name: the id of the model.
        header: of the file.
        encoder: whose experts may read it.

    Raises:
        FileError: it is corrupt, or holds no update that can be read.
        FetchError: the server does not send what is asked.
    """
    lora = LoraFile.of(header)
    try:
        vector = encoder.encode_file(lora)
    except NoExpert:
        vector = None
    facts = header_facts(header.metadata)
    return HubModel(
        name, lora.family, lora.format, lora.ranks, list(lora.layers), facts, header.metadata, vector, header.received
    )
