"""Results of the agent tools: short, as agents pay for every token, and typed."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from loradex.app.api.texts import bounded_line
from loradex.app.models import model_path, stored_pairs
from loradex.app.reporting import readable
from loradex.app.search.answers import LabelAnswer
from loradex.app.search.ranking import SearchHit
from loradex.app.words import FileWords
from loradex.index import Model

MAX_LENGTH: Final = 200  # characters of a text from a file
MAX_NOTES_LENGTH: Final = 1000
MAX_REASON_LENGTH: Final = 400  # with the commands that help
MAX_FIELDS: Final = 50  # of an object, such as families or formats
MAX_ITEMS: Final = 12  # of a list, such as tags or trigger words

Labels = Annotated[
    dict[str, float], Field(description="Its most likely labels, by its weights, with their probabilities.")
]
Words = Annotated[
    dict[str, float], Field(description="Words that it was trained with, read from its weights, with probabilities.")
]
FirstItems = Annotated[list[str], Field(description="The first few.")]


class BriefModel(BaseModel):
    """A model. Its texts come from a file written by a stranger."""

    id: Annotated[str, Field(description="For describe_model, similar_models, and the argument like of search_models.")]
    name: str
    family: Annotated[str, Field(description="The architecture of its base model.")]
    concept: str | None = None
    labels: Labels = {}
    words: Words = {}
    path: Annotated[str | None, Field(description="Its file, if the agent runs on the same machine as the zoo.")] = None


class BriefHit(BriefModel):
    """A hit of a search."""

    score: Annotated[
        float | None,
        Field(description="Above 0 it is more likely right than wrong; null if it is known by name and tags alone."),
    ]
    probability: Annotated[
        float | None, Field(description="Probability that it draws what the query asks for, if known.")
    ] = None
    found_by: Annotated[
        list[str], Field(description="What agrees with the query: picture, words, preview or metadata.")
    ]
    copies: Annotated[int, Field(description="Number of further models with the same weights.")] = 0


class Hits(BaseModel):
    """A page of hits, best first."""

    hits: list[BriefHit]
    next_offset: Annotated[int | None, Field(description="The offset of the next page; null on the last.")]


class Models(BaseModel):
    """A page of models in order of id."""

    models: list[BriefModel]
    next_cursor: Annotated[str | None, Field(description="The cursor of the next page; null on the last.")]


class WholeModel(BriefModel):
    """All that is known about a model."""

    found_by: Annotated[
        str, Field(description="The weightiest evidence for what it draws: picture, words, preview or metadata.")
    ]
    evidence: Annotated[list[str], Field(description="All kinds of evidence, unless metadata is all there is.")] = []
    format: str | None = None
    ranks: FirstItems = []
    base_model: str | None = None
    trainer: str | None = None
    title: str | None = None
    trigger_words: FirstItems = []
    tags: FirstItems = []
    notes: str | None = None
    files: Annotated[int, Field(description="Number of files that hold it.")]


class BriefLike(BaseModel):
    """A model with the same or a related update."""

    id: str
    name: str
    relation: str
    cosine: Annotated[float, Field(description="Cosine of the two updates; 1 if they are the same.")]
    strength: Annotated[float, Field(description="Norm of its update, divided by that of the other.")]


class Likes(BaseModel):
    """The look-alikes of a model: copies, re-saves, merges and other versions."""

    hits: list[BriefLike]
    merged_from: Annotated[
        dict[str, float], Field(description="Names and weights of the models that it was merged from.")
    ] = {}


class ZooBrief(BaseModel):
    """The zoo, and its number of models by family, format and evidence."""

    name: str
    models: int
    families: dict[str, int]
    formats: dict[str, int]
    found_by: dict[str, int]
    waiting_for_expert: Annotated[
        dict[str, int],
        Field(
            description="Models that no expert has read, by family; `loradex expert add` or `loradex grow FAMILY` gets one."
        ),
    ] = {}


class LabelledFile(BaseModel):
    """The labels of a file."""

    file: str
    family: str
    labels: Labels
    unknown: Annotated[str | None, Field(description="Why the answer is unknown, if it is, and what to do.")] = None
    next: Annotated[
        list[str], Field(description="Commands that get an expert for the file: shared, or grown from the base model.")
    ] = []


class Labelled(BaseModel):
    """The labels of some files."""

    results: list[LabelledFile]


class ReadFile(BaseModel):
    """The words that a file was trained with."""

    file: str
    family: str
    words: Words
    no_words: Annotated[float | None, Field(description="Probability that there are no words to be read.")] = None
    reason: Annotated[str | None, Field(description="Why words cannot be read, if so, and what to do.")] = None


class WordsRead(BaseModel):
    """The words of some files."""

    results: list[ReadFile]


class Inspected(BaseModel):
    """Facts from some files, and why others cannot be read."""

    files: list[dict[str, Any]]
    refused: list[dict[str, str]]


class Run(BaseModel):
    """The current or last indexing run."""

    state: Annotated[str, Field(description="none, running, done, stopped or failed.")]
    done: int
    total: int
    reason: Annotated[str | None, Field(description="Why the run failed, if it did.")] = None
    added: Annotated[int | None, Field(description="Number of new models, once the run is done.")] = None
    refused: Annotated[dict[str, str], Field(description="The first few files that could not be read, and why.")] = {}
    waiting_for_expert: Annotated[dict[str, int], Field(description="Files that no expert reads, by family.")] = {}
    next: Annotated[list[str], Field(description="Commands that get experts for them: shared, or grown.")] = []


def shorten_text(text: Any, length: int = MAX_LENGTH) -> str | None:
    """Return a text from a file as one line, cut to a length; None stays None."""
    return None if text is None else bounded_line(str(text))[:length]


def shorten_reason(reason: str | None, file: str) -> str | None:
    """Return the reason why a file is not read, without its name, cut to a length that keeps commands that help."""
    return reason and shorten_text(reason.removeprefix(f"{file}: "), MAX_REASON_LENGTH)


def shorten(document: Any) -> Any:
    """Shorten the texts, lists and objects of a JSON document."""
    if isinstance(document, list):
        return [shorten(item) for item in document[:MAX_ITEMS]]
    if isinstance(document, dict):
        return {str(shorten_text(key)): shorten(value) for key, value in list(document.items())[:MAX_FIELDS]}
    return shorten_text(document) if isinstance(document, str) else document


def first_items(fact: Any) -> list[str]:
    """Return the first items of a fact as texts; an empty list if the fact is not a list."""
    return [str(shorten_text(item)) for item in fact[:MAX_ITEMS]] if isinstance(fact, list) else []


def probabilities(model: Model, fact: str) -> dict[str, float]:
    """Return the probabilities in a fact of a model as stored in the zoo, by label or word; only the first few."""
    return {str(shorten_text(name)): probability for name, probability in stored_pairs(model, fact)[:MAX_ITEMS]}


def model_fields(model: Model, zoo: str | None) -> dict[str, Any]:
    """Return the fields of a BriefModel; ``zoo`` is the zoo's folder, or None to leave out the path."""
    path = None if zoo is None else model_path(model, zoo)
    return {
        "id": shorten_text(model.id),
        "name": shorten_text(model.name),
        "family": shorten_text(model.family),
        "concept": shorten_text(model.concept),
        "labels": probabilities(model, "labels"),
        "words": probabilities(model, "words"),
        "path": None if path is None else readable(path),
    }


def brief_hit(hit: SearchHit, zoo: str | None) -> BriefHit:
    """Return a hit for agents, with the name and the path of the file that answers the query."""
    place = {"name": shorten_text(hit.name)}
    if zoo is not None and hit.place is not None and hit.place.path is not None:
        place["path"] = readable(hit.place.path)
    return BriefHit(
        **model_fields(hit.model, zoo) | place,
        score=None if hit.score is None else round(hit.score, 3),
        probability=None if hit.probability is None else round(hit.probability, 3),
        found_by=[*hit.matched],
        copies=len(hit.copies),
    )


def whole_model(model: Model, files: int, zoo: str | None) -> WholeModel:
    """Return all that is known about a model, for agents; ``files`` is its number of files."""
    facts = model.facts
    fields: dict[str, Any] = {
        name: shorten_text(facts.get(name)) for name in ("format", "base_model", "trainer", "title")
    }
    fields |= {"notes": shorten_text(facts.get("notes"), MAX_NOTES_LENGTH)}
    fields |= {name: first_items(facts.get(name)) for name in ("ranks", "trigger_words", "tags")}
    kinds: dict[str, Any] = {"found_by": model.found_by, "evidence": list(map(str, model.evidence))}
    return WholeModel(**model_fields(model, zoo), **fields, **kinds, files=files)


def labelled_file(answer: LabelAnswer) -> LabelledFile:
    """Return the labels of a file, for agents."""
    return LabelledFile(
        file=readable(answer.file),
        family=answer.family,
        labels={label.label: round(label.probability, 3) for label in answer.labels},
        unknown=shorten_reason(answer.reason, answer.file),
        next=list(answer.next),
    )


def read_file(result: FileWords) -> ReadFile:
    """Return the words of a file, for agents."""
    return ReadFile(
        file=readable(result.file),
        family=result.family,
        words={str(shorten_text(word.word)): round(word.probability, 3) for word in result.words},
        no_words=None if result.nothing is None else round(result.nothing, 3),
        reason=shorten_reason(result.reason, result.file),
    )
