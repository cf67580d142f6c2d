"""What the API answers; every name here is a promise (docs/openapi.json)."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from loradex.app.backend import State
from loradex.index import FoundBy

Id = Annotated[
    str,
    Field(
        description="Derived from the weights, so that a renamed or moved file keeps it.",
        examples=["c09c39f128ab3b9811f2"],
    ),
]
Path = Annotated[str | None, Field(description="Where its file was seen last, on the server's machine or a hub.")]
Family = Annotated[str, Field(description="The model tree it was fine-tuned from.", examples=["sdxl"])]
Probability = Annotated[
    float | None, Field(description="How likely it is what was asked for, where that is known.", ge=0, le=1)
]


class Zoo(BaseModel):
    """The zoo that is served."""

    name: str = Field(examples=["miniature"])
    space: str = Field(description="The space of its vectors.")
    models: int
    families: dict[str, int] = Field(description="Models by family, the most frequent first.")
    formats: dict[str, int] = Field(description="Models by format of their files.")
    found_by: dict[str, int] = Field(description="Models by what their place in the zoo rests on.")
    version: str = Field(description="The version of Loradex.", examples=["0.1.0"])


class Named(BaseModel):
    """Which model it is."""

    id: Id
    name: str
    path: Path


class Hit(Named):
    """One answer to a query."""

    family: Family
    score: float = Field(
        description="Cosine with the query, from -1 to 1; 1 for a model without a vector that was found by its words.",
        examples=[0.41],
    )
    found_by: FoundBy = Field(description="What its place among the hits rests on first.")
    concept: str | None = Field(description="What it was made for, where known.")
    matched: list[FoundBy] = Field(description="The ways in which it was found.")
    probability: Probability
    copies: list[Named] = Field(description="Models with the same update, which are folded under this one.")


class QueryPart(BaseModel):
    """One part of a query."""

    kind: str = Field(description="text, picture or model.", examples=["text"])
    value: str
    weight: float = Field(description="Below zero takes it away.")


class Query(BaseModel):
    """A query as it was read."""

    text: str = Field(description="All of it in one line.", examples=["hound + hat - red"])
    parts: list[QueryPart]


class SearchPage(BaseModel):
    """One page of hits, best first."""

    query: Query
    zoo: str = Field(description="Folder of the zoo.")
    space: str
    took_ms: float
    limit: int
    offset: int
    next: int | None = Field(description="The offset of the next page; null at the end.")
    hits: list[Hit]


class Model(Named):
    """A model of the zoo; its texts come from its file."""

    family: Family
    found_by: FoundBy = Field(description="What its vector rests on.")
    concept: str | None
    preview: str | None = Field(description="Its drawing, if it has one: `/models/{id}/drawing`.")
    facts: dict[str, Any] = Field(
        description="What its file says: format, ranks, tags, trigger_words, title, notes and more; and its likeliest labels."
    )
    added: int | None = Field(description="When the zoo took it first, in seconds since 1970.")


class KnownFile(BaseModel):
    """A file of a model."""

    path: str
    size: int = Field(description="Bytes.")
    mtime_ns: int = Field(description="When it was changed last, in nanoseconds since 1970.")
    model_id: str | None
    refusal: str | None
    reader: str = Field(description="What read it.")


class ModelWithFiles(Model):
    """All that is known of a model."""

    files: list[KnownFile]


class ModelPage(BaseModel):
    """Models in order of id."""

    models: list[Model]
    next: str | None = Field(description="The `cursor` of the next page; null at the end.")


class LookAlike(Named):
    """A model that is like another."""

    relation: str = Field(examples=["same update, other strength"])
    cosine: float = Field(description="Of both whole updates.")
    strength: float = Field(description="Its norm over the other's.")


class MergePart(Named):
    """A part of a merge."""

    weight: float


class Merge(BaseModel):
    """What a model was merged from."""

    name: str
    path: Path
    parts: list[MergePart]
    explained: float = Field(description="The share of its energy that the parts make up.")


class Compared(BaseModel):
    """How many models were compared."""

    compared: int
    not_compared: int = Field(description="Models whose files cannot be read.")


class LookAlikes(Compared):
    """The look-alikes of a model, most like first."""

    id: Id
    name: str
    hits: list[LookAlike]
    merge: Merge | None


class RelatedPair(Named):
    """Two models that share much."""

    other: LookAlike


class Found(BaseModel):
    """How many there are."""

    groups: int
    related: int
    merges: int


class Duplicates(Compared):
    """The first of all look-alikes of the zoo."""

    found: Found
    groups: list[list[LookAlike]] = Field(
        description="Models with one update; the first is what the others are compared with."
    )
    related: list[RelatedPair]
    merges: list[Merge]


class Label(BaseModel):
    """A label and how likely it is."""

    label: str = Field(examples=["pizza"])
    score: float
    probability: float = Field(ge=0, le=1)


class LabelledFile(BaseModel):
    """The labels of one file, best first."""

    file: str = Field(description="The name that it was sent under.")
    family: Family
    abstained: bool = Field(description="Whether the answer is unknown.")
    reason: str | None = Field(description="Why it is.")
    labels: list[Label]


class Labelled(BaseModel):
    """The labels of some files."""

    results: list[LabelledFile]


class InspectedFile(BaseModel):
    """What one file says of itself; id, data_hash and sha256 only where hashes were asked for."""

    file: str
    bytes: int
    format: str
    family: Family
    families: list[str]
    layers: int
    ranks: list[int]
    scales: list[float]
    trainer: str | None
    title: str | None
    base_model: str | None
    trigger_words: list[str]
    tags: list[str]
    notes: str | None
    sources: list[str]
    problems: list[str]
    id: str | None = None
    data_hash: str | None = None
    sha256: str | None = None


class Refusal(BaseModel):
    """A file that could not be read, and why."""

    file: str
    reason: str


class Inspected(BaseModel):
    """What some files say of themselves."""

    files: list[InspectedFile]
    refused: list[Refusal]


class Indexed(BaseModel):
    """What became of some files."""

    zoo: str
    by_weights: int
    by_metadata: int
    unchanged: int
    added: int
    updated: int
    moved: int
    copies: int
    missing: list[str]
    removed: int
    refused: list[Refusal]


class Run(BaseModel):
    """The last run of indexing."""

    state: State
    doing: str = Field(
        description="Whether files are read, or models drawn that have no drawing.", examples=["reading", "drawing"]
    )
    folders: list[str]
    done: int = Field(description="How many of them it is done with.")
    total: int
    file: str = Field(description="The last of them.")
    reason: str | None = Field(description="Why it failed, if it did.")
    answer: Indexed | None = Field(description="What became of the files, when they are read.")


class Reason(BaseModel):
    """What went wrong."""

    kind: str = Field(description="The name of the error.", examples=["QueryError"])
    message: str = Field(description="What, where, expected, found, how to mend; one line.")


class Failure(BaseModel):
    """Every answer that is no success."""

    error: Reason
