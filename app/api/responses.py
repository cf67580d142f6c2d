"""Responses of the REST API; all names here are public (docs/openapi.json)."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from loradex.app.backend import State
from loradex.index import Evidence

Id = Annotated[
    str,
    Field(
        description="Computed from the weights: a renamed or moved file keeps it.",
        examples=["c09c39f128ab3b9811f2"],
    ),
]
Path = Annotated[str | None, Field(description="Where its file was last seen: on the server's machine or on a hub.")]
Family = Annotated[str, Field(description="The architecture of its base model.", examples=["sdxl"])]
Probability = Annotated[
    float | None, Field(description="Probability that it draws what the query asks for; null if unknown.", ge=0, le=1)
]


class Zoo(BaseModel):
    """The served zoo."""

    name: str = Field(examples=["miniature"])
    space: str = Field(description="The space of its vectors.")
    models: int = Field(description="Number of models.")
    families: dict[str, int] = Field(description="Number of models by family, the most frequent first.")
    formats: dict[str, int] = Field(description="Number of models by format of their files.")
    found_by: dict[str, int] = Field(
        description="Number of models known by each kind of evidence; a model counts for every kind that it has, and for metadata if it has no other."
    )
    waiting_for_expert: dict[str, int] = Field(
        description="Number of models that no expert has read, by family, the most first. "
        "`loradex expert add PLACE` adds an expert that somebody shares, and `loradex grow FAMILY` grows one from the base model.",
        examples=[{"sdxl": 120}],
    )
    version: str = Field(description="Version of Loradex.", examples=["0.1.0"])


class Named(BaseModel):
    """A model by name."""

    id: Id
    name: str
    path: Path


class StoredWord(BaseModel):
    """A word that a model was trained with, as its weights say."""

    word: str = Field(examples=["kozu"])
    probability: float = Field(ge=0, le=1)


class Hit(Named):
    """A hit of a search."""

    family: Family
    score: float | None = Field(
        description="Log-odds that it draws what the query says: above 0 it is more likely than not. "
        "The score of the evidence that carries the hit; null if that is its metadata; a cosine if the model was indexed without calibration.",
        examples=[2.3],
    )
    found_by: Evidence = Field(description="The kind of evidence that carries the hit.")
    concept: str | None = Field(description="What it was trained on, if known.")
    matched: list[Evidence] = Field(description="All kinds of evidence that agree with the query, `found_by` first.")
    probability: Probability
    scores: dict[Evidence, float] = Field(description="The score by each kind of evidence that the filter lets count.")
    place: str | None = Field(
        description="The file that answers the query: below the folder of the filter, or with the words of the query; else `path`."
    )
    words: list[StoredWord] = Field(description="Words that it was trained with, read from its weights, best first.")
    copies: list[Named] = Field(description="Models with the same update, folded into this hit.")


class QueryPart(BaseModel):
    """A part of a query."""

    kind: str = Field(description="text, picture or model.", examples=["text"])
    value: str
    weight: float = Field(description="Negative for what the hits should not be like.")


class Query(BaseModel):
    """A parsed query."""

    text: str = Field(description="The query as one line.", examples=["hound + hat - red"])
    parts: list[QueryPart]


class SearchPage(BaseModel):
    """A page of hits, best first."""

    query: Query
    zoo: str = Field(description="Folder of the zoo.")
    space: str
    took_ms: float
    limit: int
    offset: int
    next: int | None = Field(description="The `offset` of the next page; null on the last.")
    hits: list[Hit]


class Model(Named):
    """A model of the zoo. Its texts come from its file."""

    family: Family
    found_by: Evidence = Field(description="The weightiest kind of evidence that it is known by.")
    evidence: list[Evidence] = Field(
        description="All kinds of evidence that place it in the space; none if it is known by its metadata alone."
    )
    concept: str | None
    preview: str | None = Field(description="Path of its preview in the zoo; get it from `/models/{id}/drawing`.")
    facts: dict[str, Any] = Field(
        description="Facts from its file (format, ranks, tags, trigger_words, title, notes, ...) and its most likely labels."
    )
    words: list[StoredWord] = Field(description="Words that it was trained with, read from its weights, best first.")
    added: int | None = Field(description="When it was first indexed, in seconds since 1970.")


class KnownFile(BaseModel):
    """A file of a model."""

    path: str
    size: int = Field(description="Bytes.")
    mtime_ns: int = Field(description="Modification time, in nanoseconds since 1970.")
    model_id: str | None
    refusal: str | None
    reader: str = Field(description="Signature of the encoder that read it.")
    name: str | None = Field(description="Its name, if it is not that of the model.")
    facts: dict[str, Any] = Field(description="Its own title, tags, trigger words and notes.")


class ModelWithFiles(Model):
    """All that is known about a model."""

    files: list[KnownFile]


class ModelPage(BaseModel):
    """A page of models in order of id."""

    models: list[Model]
    next: str | None = Field(description="The `cursor` of the next page; null on the last.")


class LookAlike(Named):
    """A model with the same or a related update."""

    relation: str = Field(examples=["same update, other strength"])
    cosine: float = Field(description="Cosine of the two updates over all layers.")
    strength: float = Field(description="Norm of its update, divided by that of the other.")


class MergePart(Named):
    """A model that went into a merge."""

    weight: float


class Merge(BaseModel):
    """A merge and the models that went into it."""

    name: str
    path: Path
    parts: list[MergePart]
    explained: float = Field(description="Share of the energy of its update that the parts explain.")


class Compared(BaseModel):
    """How many models were compared."""

    compared: int
    not_compared: int = Field(description="Models whose files cannot be read.")


class LookAlikes(Compared):
    """The look-alikes of a model, most similar first."""

    id: Id
    name: str
    hits: list[LookAlike]
    merge: Merge | None


class RelatedPair(Named):
    """Two models with related updates."""

    other: LookAlike


class Found(BaseModel):
    """Numbers of look-alikes in the whole zoo."""

    groups: int
    related: int
    merges: int


class Duplicates(Compared):
    """The look-alikes in the zoo: how many there are, and the first of each kind."""

    found: Found
    groups: list[list[LookAlike]] = Field(
        description="Models with the same update; the others of a group are compared with its first."
    )
    related: list[RelatedPair]
    merges: list[Merge]


class Label(BaseModel):
    """A label with its probability."""

    label: str = Field(examples=["pizza"])
    score: float
    probability: float = Field(ge=0, le=1)


class LabelledFile(BaseModel):
    """The labels of a file, best first."""

    file: str = Field(description="Name of the uploaded file.")
    family: Family
    abstained: bool = Field(description='Whether the answer is "unknown".')
    reason: str | None = Field(description="Why the answer is unknown.")
    labels: list[Label]
    next: list[str] = Field(
        description="If no expert reads the file, the commands that get one: one that somebody shares, or one that is grown from the base model.",
        examples=[["loradex expert add PLACE", "loradex base add PATH", "loradex grow sdxl"]],
    )


class Labelled(BaseModel):
    """The labels of some files."""

    results: list[LabelledFile]


class Word(StoredWord):
    """A word read from the weights of a file."""

    score: float


class ReadFile(BaseModel):
    """The words that a file was trained with, best first."""

    file: str = Field(description="Name of the uploaded file.")
    family: Family
    readable: bool = Field(description="Whether words can be read from files like this on this server.")
    reason: str | None = Field(description="Why not, and what to do about it.")
    nothing: float | None = Field(description="Probability that there are no words to be read.", ge=0, le=1)
    words: list[Word]


class WordsRead(BaseModel):
    """The words of some files."""

    results: list[ReadFile]


class InspectedFile(BaseModel):
    """Facts from a file; id, data_hash and sha256 only if hashes were requested."""

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


class BaseFamily(BaseModel):
    """The family of a base model."""

    family: Family = Field(description="Its family, or unknown.", examples=["sdxl"])


class Refusal(BaseModel):
    """A file that could not be read, and why."""

    file: str
    reason: str


class Inspected(BaseModel):
    """Facts from some files."""

    files: list[InspectedFile]
    refused: list[Refusal]


class Indexed(BaseModel):
    """Result of indexing a set of files."""

    zoo: str
    by_weights: int = Field(description="Files that an expert read, or that words in their weights place.")
    by_words: int = Field(description="Files that words in their weights place, whether an expert read them or not.")
    by_preview: int = Field(
        description="Files that the pictures beside them place, whether an expert read them or not."
    )
    by_metadata: int
    unchanged: int
    added: int
    updated: int
    moved: int
    copies: int
    missing: list[str]
    removed: int
    refused: list[Refusal]
    bad_pictures: list[Refusal] = Field(description="Pictures beside files that could not be used, and why.")
    no_previews: str | None = Field(description="Why no picture was placed, if there are some and none could be.")
    advice: str | None = Field(description="What to do about files of this run that no expert reads; null if none are.")
    waiting_for_expert: dict[str, int] = Field(description="Files of this run that no expert reads, by family.")
    next: list[str] = Field(
        description="The commands after which an expert reads files of this run: for each family one is added, or grown."
    )
    words_advice: str | None = Field(
        description="What to do about files whose words are not read, as their base model is missing; null if there are none."
    )


class Run(BaseModel):
    """The current or last indexing run."""

    state: State
    doing: str = Field(
        description="The phase: reading files, or drawing models that have no preview.",
        examples=["reading", "drawing"],
    )
    folders: list[str]
    done: int = Field(description="Number of files or models processed in this phase.")
    total: int
    file: str = Field(description="The last one processed.")
    reason: str | None = Field(description="Why the run failed.")
    answer: Indexed | None = Field(description="The result, once all files are read.")


class Reason(BaseModel):
    """Description of an error."""

    kind: str = Field(description="Name of the error.", examples=["QueryError"])
    message: str = Field(description="One line: what, where, expected, found, how to mend.")


class Failure(BaseModel):
    """The body of every response that reports an error."""

    error: Reason
