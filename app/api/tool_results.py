"""What agents are told: little, typed, and by name rather than by path."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from loradex.app.api.texts import one_line, readable
from loradex.app.models import path_of
from loradex.app.search.answers import LabelAnswer
from loradex.app.search.ranking import Found
from loradex.index import Model

LONGEST: Final = 200  # characters of a text from a file
LONGEST_NOTE: Final = 1000
MOST_KINDS: Final = 50  # families or formats
MOST_WORDS: Final = 12  # tags or trigger words

Labels = Annotated[dict[str, float], Field(description="What its weights most likely draw, each with its probability.")]
Words = Annotated[list[str], Field(description="The first of them.")]


class BriefModel(BaseModel):
    """A model; its texts come from a stranger's file."""

    id: Annotated[str, Field(description="Give it to describe_model, similar_models, or to search_models as like.")]
    name: str
    family: Annotated[str, Field(description="The base model it was fine-tuned from.")]
    concept: str | None = None
    labels: Labels = {}
    path: Annotated[str | None, Field(description="Its file, where the agent runs on the zoo's machine.")] = None


class BriefHit(BriefModel):
    """A model that fits a query."""

    score: Annotated[float, Field(description="Cosine with the query, from -1 to 1.")]
    probability: Annotated[float | None, Field(description="How likely it draws what was asked for, where known.")] = (
        None
    )
    found_by: Annotated[list[str], Field(description="weights: by what it does; metadata: by its own words.")]
    copies: Annotated[int, Field(description="Further models with the same weights.")] = 0


class Hits(BaseModel):
    """The best models, best first."""

    hits: list[BriefHit]
    next_offset: Annotated[int | None, Field(description="The offset that shows more; null at the end.")]


class Models(BaseModel):
    """Some models in order of id."""

    models: list[BriefModel]
    next_cursor: Annotated[str | None, Field(description="The cursor that shows more; null at the end.")]


class WholeModel(BriefModel):
    """What is known of one model."""

    found_by: Annotated[str, Field(description="weights or metadata: what its place in the zoo rests on.")]
    format: str | None = None
    ranks: Words = []
    base_model: str | None = None
    trainer: str | None = None
    title: str | None = None
    trigger_words: Words = []
    tags: Words = []
    notes: str | None = None
    files: Annotated[int, Field(description="How many files hold it.")]


class BriefLike(BaseModel):
    """A model that is like another."""

    id: str
    name: str
    relation: str
    cosine: Annotated[float, Field(description="Of both weight updates; 1 is the same.")]
    strength: Annotated[float, Field(description="How strong it is, over the other.")]


class Likes(BaseModel):
    """Copies, re-saves, merges and other versions of a model."""

    hits: list[BriefLike]
    merged_from: Annotated[
        dict[str, float], Field(description="Names of the models that it was merged from, with their weights.")
    ] = {}


class ZooBrief(BaseModel):
    """What the zoo is and holds."""

    name: str
    models: int
    families: dict[str, int]
    formats: dict[str, int]
    found_by: dict[str, int]


class LabelledFile(BaseModel):
    """What one file draws."""

    file: str
    family: str
    labels: Labels
    unknown: Annotated[str | None, Field(description="Why no label is to be trusted, if none is.")] = None


class Labelled(BaseModel):
    """What some files draw."""

    results: list[LabelledFile]


class Inspected(BaseModel):
    """What some files say of themselves, and why others cannot be read."""

    files: list[dict[str, Any]]
    refused: list[dict[str, str]]


class Run(BaseModel):
    """How the last run of indexing stands."""

    state: Annotated[str, Field(description="none, running, done, stopped or failed.")]
    done: int
    total: int
    reason: Annotated[str | None, Field(description="Why it failed, if it did.")] = None
    added: Annotated[int | None, Field(description="New models, when it is done.")] = None
    refused: Annotated[dict[str, str], Field(description="The first files that could not be read, and why.")] = {}


def said(text: Any, most: int = LONGEST) -> str | None:
    """A text from a file, on one short line."""
    return None if text is None else one_line(str(text))[:most]


def brief(document: Any) -> Any:
    """A JSON document with short texts and the first items of its lists."""
    if isinstance(document, list):
        return [brief(item) for item in document[:MOST_WORDS]]
    if isinstance(document, dict):
        return {str(said(key)): brief(value) for key, value in list(document.items())[:MOST_KINDS]}
    return said(document) if isinstance(document, str) else document


def words(found: Any) -> list[str]:
    """The first of some texts from a file."""
    return [str(said(word)) for word in found[:MOST_WORDS]] if isinstance(found, list) else []


def likely_labels(found: Any) -> dict[str, float]:
    """The labels that a zoo keeps of a model, if it keeps them as Loradex does."""
    pairs = [pair for pair in found if isinstance(pair, list) and len(pair) == 2] if isinstance(found, list) else []
    return {str(said(label)): likely for label, likely in pairs[:MOST_WORDS] if isinstance(likely, float | int)}


def named(model: Model, zoo: str | None) -> dict[str, Any]:
    """Which model it is; where its file lies, if ``zoo`` says from where paths are seen."""
    path = None if zoo is None else path_of(model, zoo)
    told = {
        "id": said(model.id),
        "name": said(model.name),
        "family": said(model.family),
        "concept": said(model.concept),
    }
    return {
        **told,
        "labels": likely_labels(model.facts.get("labels")),
        "path": None if path is None else readable(path),
    }


def hit(found: Found, zoo: str | None) -> BriefHit:
    """One hit."""
    likely = None if found.probability is None else round(found.probability, 3)
    return BriefHit(
        **named(found.model, zoo),
        score=round(found.score, 3),
        probability=likely,
        found_by=[*found.matched],
        copies=len(found.copies),
    )


def whole(model: Model, files: int, zoo: str | None) -> WholeModel:
    """All of one model."""
    facts = model.facts
    told: dict[str, Any] = {name: said(facts.get(name)) for name in ("format", "base_model", "trainer", "title")} | {
        "notes": said(facts.get("notes"), LONGEST_NOTE)
    }
    told |= {name: words(facts.get(name)) for name in ("ranks", "trigger_words", "tags")}
    return WholeModel(**named(model, zoo), **told, found_by=model.found_by, files=files)


def labelled(answer: LabelAnswer) -> LabelledFile:
    """What one file draws."""
    labels = {found.label: round(found.probability, 3) for found in answer.labels}
    return LabelledFile(file=readable(answer.file), family=answer.family, labels=labels, unknown=said(answer.reason))
