"""Requests of the REST API; all names here are public (docs/openapi.json)."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from loradex.app.backend import MAX_PATH_LENGTH
from loradex.app.search.query import MAX_QUERY_PARTS
from loradex.app.search.service import MAX_HITS, MAX_LABELS, MAX_OFFSET
from loradex.index import Evidence
from loradex.index.filters import MAX_VALUES

MAX_TEXT_LENGTH: Final = 300  # characters
MAX_PAGE_SIZE: Final = 500
MAX_WORDS: Final = 100  # of a file
MAX_FOLDERS: Final = 100
MAX_KINDS: Final = 10
MAX_TENSORS: Final = 20_000  # of a base model's header
MAX_DIMENSIONS: Final = 8
KINDS_DESCRIPTION: Final = (
    "Only models that are known by one of these kinds of evidence: picture (what it draws, read from its weights), words (in its weights), "
    "preview (pictures beside its file), or metadata (its name, tags and notes alone). A search counts only these. weights: picture and words."
)

ShortText = Annotated[str, Field(max_length=MAX_TEXT_LENGTH)]
Side = Annotated[int, Field(ge=0, lt=2**40)]  # of a tensor
KindName = Evidence | Literal["weights"]  # as ``parse_evidence`` reads them


def as_list(value: Any) -> Any:
    """Return a single value, as agents and clients of earlier versions send it, as a list."""
    return [] if value is None else [value] if isinstance(value, str) else value


FoundBy = Annotated[
    list[KindName], BeforeValidator(as_list), Field(max_length=MAX_KINDS, description=KINDS_DESCRIPTION)
]


class StrictModel(BaseModel):
    """Base class of requests; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Filters(StrictModel):
    """Filters on models; one that is not given lets all models through."""

    family: list[ShortText] = Field([], max_length=MAX_VALUES, description="Only models of one of these families.")
    format: list[ShortText] = Field(
        [], max_length=MAX_VALUES, description="Only models with a file of one of these formats."
    )
    tag: list[ShortText] = Field(
        [], max_length=MAX_VALUES, description="Only models with all of these tags or trigger words."
    )
    rank: ShortText | None = Field(
        None, description="Only models of this rank, or of a range of ranks.", examples=["4-16"]
    )
    folder: str | None = Field(
        None,
        max_length=MAX_PATH_LENGTH,
        description="Only models with a file below this folder of the server's machine.",
    )
    after: ShortText | None = Field(
        None,
        description="Only models added since this date (UTC), or within the last 7d, 12h, 2w.",
        examples=["2026-11-24"],
    )
    before: ShortText | None = Field(None, description="Only models added before this date or duration.")
    found_by: FoundBy = []


class SearchFields(Filters):
    """A query: the weighted sum of its parts. A part may end in a weight, as in `dog^0.5`."""

    text: list[ShortText] = Field(
        [], max_length=MAX_QUERY_PARTS, description="What the models should draw.", examples=[["a slice of pizza"]]
    )
    minus: list[ShortText] = Field([], max_length=MAX_QUERY_PARTS, description="What the models should not draw.")
    model: list[ShortText] = Field(
        [], max_length=MAX_QUERY_PARTS, description="Ids of models that the hits should be like."
    )
    limit: int = Field(10, ge=1, le=MAX_HITS - 1, description="Number of hits.")
    offset: int = Field(0, ge=0, le=MAX_OFFSET, description="Number of hits to skip.")


class ModelFields(Filters):
    """A page of models in order of id."""

    limit: int = Field(50, ge=1, le=MAX_PAGE_SIZE, description="Number of models.")
    cursor: ShortText = Field(
        "",
        description="The `next` of the previous page. No model is skipped or repeated, even if others are added meanwhile.",
    )


class LabelFields(StrictModel):
    """Options of labelling."""

    labels: list[ShortText] = Field(
        [], max_length=MAX_LABELS, description="The labels to choose from. Default: the shipped concepts."
    )
    count: int = Field(5, ge=1, le=MAX_HITS, description="Number of labels for each file.")


class WordsFields(StrictModel):
    """Options of reading words."""

    words: list[ShortText] = Field(
        [], max_length=MAX_LABELS, description="The words to choose from, in place of the usual ones."
    )
    count: int = Field(10, ge=1, le=MAX_WORDS, description="Number of words for each file.")


class InspectFields(StrictModel):
    """Options of inspection."""

    hash: bool = Field(False, description="Whether to read the files completely and compute their hashes.")


class BaseHeader(StrictModel):
    """What the header of a base model says."""

    tensors: dict[ShortText, Annotated[list[Side], Field(max_length=MAX_DIMENSIONS)]] = Field(
        min_length=1,
        max_length=MAX_TENSORS,
        description="The shape of each tensor of the diffusion model by its name, as the header of a safetensors file has it.",
        examples=[{"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": [320, 768]}],
    )


class Folders(StrictModel):
    """Folders of LoRAs to index."""

    folders: list[Annotated[str, Field(max_length=MAX_PATH_LENGTH)]] = Field(
        min_length=1,
        max_length=MAX_FOLDERS,
        description="Full paths of folders on the server's machine.",
        examples=[["/srv/ComfyUI/models/loras"]],
    )
