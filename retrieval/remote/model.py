"""Remote LoRAs: their headers, and their vectors, for which only the layers that an expert reads are fetched."""

from dataclasses import dataclass

from torch import Tensor

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import NoExpert, NoExpertReason
from loradex.retrieval.lora import Format, LoraFile
from loradex.retrieval.lora.facts import Facts, header_facts
from loradex.retrieval.remote.header import RemoteHeader


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """What was read of a remote LoRA. It has no fingerprint, which would need all layers.

    Attributes:
        id: made of what the hub or the file system states of the file; see ``HubFile.id`` and ``FsspecFile.id``.
        ranks: the distinct ranks of the updates, ascending.
        layers: by their names in diffusers.
        facts: those in the header; side-cars are not read.
        metadata: of the header.
        vector: in the encoder's space (dim,), or None if no expert reads its model tree.
        received: bytes that were fetched, those of PEFT's config included.
        no_expert: why no expert reads it; None if there is a vector.
        tree: the model tree of the expert that made the vector.
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
    no_expert: NoExpertReason | None = None
    tree: str | None = None


def read_model(id: str, header: RemoteHeader, encoder: Encoder) -> RemoteModel:
    """Fetch the layers of a LoRA that the expert of its family reads, and encode them.

    Args:
        id: of the model.
        header: of the file.
        encoder: with the experts.

    Raises:
        FileError: the file is corrupt, or holds no update that can be read.
        FetchError: the server does not send the bytes.
    """
    lora = LoraFile.from_header(header)
    vector, tree, no_expert = None, None, None
    try:
        expert, layers = encoder.router.route(lora)
        vector, tree = expert.encode_factors(layers)[0], expert.tree
    except NoExpert as error:
        no_expert = error.reason
    return RemoteModel(
        id,
        lora.family,
        lora.format,
        lora.ranks,
        list(lora.layers),
        header_facts(header.metadata),
        header.metadata,
        vector,
        header.received,
        no_expert,
        tree,
    )
