"""A model as a store writes it: validated, with the values that filters and text search need."""

import json
import re
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from loradex.index.errors import BadModel
from loradex.index.model import FoundBy, Model

CAMEL_CASE: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])|_")


@dataclass(frozen=True, slots=True)
class Entry:
    """A validated model.

    Attributes:
        facts: as JSON.
        format: of the file, from the facts.
        rank: the highest of the ranks in the facts.
        tags: tags and trigger words, normalized by ``normalize_tag``.
        words: the text of the name, of tags, trigger words and title, and of notes, each as ``searchable_text``.
    """

    id: str
    name: str
    family: str
    found_by: str
    path: str | None
    concept: str | None
    preview: str | None
    facts: str
    format: str | None
    rank: int | None
    tags: frozenset[str]
    words: tuple[str, str, str]
    added: int | None = None

    @property
    def texts(self) -> tuple[str | None, ...]:
        """The nine text fields, id to format."""
        named = (self.id, self.name, self.family, self.found_by)
        return (*named, self.path, self.concept, self.preview, self.facts, self.format)

    @classmethod
    def from_model(cls, model: Model) -> Self:
        """Validate a model.

        Raises:
            BadModel: it has an empty id, a field of another type, or facts that are not JSON.
        """
        texts = (model.id, model.name, model.family, model.found_by, model.path, model.concept, model.preview)
        if not all(isinstance(text, str) for text in texts[:4]) or not all(
            isinstance(text, str | None) for text in texts[4:]
        ):
            types = ", ".join(type(text).__name__ for text in texts)
            raise BadModel(f"model {model.id!r}: expected text in every field, found {types}; convert them to str")
        if not model.id or not is_valid_unicode(model.id) or not isinstance(model.facts, dict):
            facts_type = type(model.facts).__name__
            raise BadModel(
                f"model {model.id!r}: expected an id of valid text and a dict of facts, found facts as {facts_type}; correct the model"
            )
        try:
            facts = json.dumps(model.facts, allow_nan=False)
            entry = cls.from_texts(*texts[:3], FoundBy(model.found_by).value, *texts[4:], facts)
            return replace(entry, added=checked_time(model.added))
        except (TypeError, ValueError, RecursionError) as error:
            raise BadModel(
                f"model {model.id!r}: expected JSON facts, found_by weights or metadata, found: {error}; correct the model"
            ) from None

    @classmethod
    def from_texts(
        cls,
        id: str,
        name: str,
        family: str,
        found_by: str,
        path: str | None,
        concept: str | None,
        preview: str | None,
        facts: str,
    ) -> Self:
        """Derive the searchable values from the eight stored texts of a model.

        Raises:
            ValueError, AttributeError: the facts are not a JSON object.
        """
        values = json.loads(facts or "")
        ranks = [rank for rank in as_list(values, "ranks") if type(rank) is int and 0 <= rank < 2**31]
        tags = [*strings(values, "tags"), *strings(values, "trigger_words")]
        format = values.get("format")
        words = (
            searchable_text(str(name)),
            searchable_text(*tags, *strings(values, "title")),
            searchable_text(*strings(values, "notes")),
        )
        return cls(
            id=id,
            name=name,
            family=family,
            found_by=found_by,
            path=path,
            concept=concept,
            preview=preview,
            facts=facts,
            format=format if isinstance(format, str) else None,
            rank=max(ranks, default=None),
            tags=frozenset(map(normalize_tag, tags)),
            words=words,
        )


def is_valid_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates, which file names and metadata may hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_time(added: int | None) -> int | None:
    """Return seconds since 1970, or None.

    Raises:
        ValueError: they are not a whole number, or out of range.
    """
    if added is not None and (type(added) is not int or not 0 <= added < 2**62):
        raise ValueError(f"added {added!r}")
    return added


def as_list(facts: dict[str, Any], name: str) -> list[Any]:
    """Return a fact as a list; a single value becomes a list of one."""
    value = facts.get(name, [])
    return list(value) if isinstance(value, list | tuple) else [value]


def strings(facts: dict[str, Any], name: str) -> list[str]:
    """Return the strings of a fact that is a list."""
    return [value for value in as_list(facts, name) if isinstance(value, str)]


def normalize_tag(text: str) -> str:
    """Return a tag as it is compared: case-folded, with single spaces and valid Unicode."""
    return " ".join(text.casefold().split()).encode(errors="replace").decode()


def searchable_text(*texts: str) -> str:
    """Return texts, each followed by its words: ``BetterHands_v2`` by ``Better Hands v 2``."""
    return "\n".join(f"{text} {CAMEL_CASE.sub(' ', text)}" for text in texts).encode(errors="replace").decode()
