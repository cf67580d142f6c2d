"""A model as a store writes it: validated, with the values that filters and text search need."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from loradex.index.errors import BadModel
from loradex.index.model import KnownFile, Model

CAMEL_CASE: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])|_")
SEPARATOR: Final = re.compile(r"[/\\]")


@dataclass(frozen=True, slots=True)
class Texts:
    """What people wrote about a model and its files, each text once.

    Attributes:
        names: of the model, and of those files that have another.
        tags: tags and trigger words.
        titles: of the same.
        notes: of the same, with words that were read from the weights, and the name of the folder that holds each file.
    """

    names: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str | None, path: str | None, facts: Mapping[str, Any]) -> Self:
        """Collect the texts of a model or a file."""
        return cls(
            names=() if name is None else (name,),
            tags=(*strings(facts, "tags"), *strings(facts, "trigger_words")),
            titles=tuple(strings(facts, "title")),
            notes=(*strings(facts, "notes"), *read_words(facts), *folder_name(path)),
        )

    def merged(self, others: Iterable["Texts"]) -> "Texts":
        """Return these texts with those of others."""
        every = (self, *others)
        return Texts(
            *(
                tuple(dict.fromkeys(text for texts in every for text in getattr(texts, field)))
                for field in self.__slots__
            )
        )

    @property
    def tag_set(self) -> frozenset[str]:
        """The tags as they are compared, see ``normalize_tag``."""
        return frozenset(map(normalize_tag, self.tags))

    @property
    def words(self) -> tuple[str, str, str]:
        """The columns of full-text search: names; tags and titles; notes; each as ``searchable_text``."""
        return searchable_text(*self.names), searchable_text(*self.tags, *self.titles), searchable_text(*self.notes)


@dataclass(frozen=True, slots=True)
class Entry:
    """A validated model.

    Attributes:
        facts: as JSON.
        format: of the file, from the facts.
        rank: the highest of the ranks in the facts.
        texts: what people wrote about it, and about the files of ``with_files``.
    """

    id: str
    name: str
    family: str
    path: str | None
    concept: str | None
    preview: str | None
    facts: str
    format: str | None
    rank: int | None
    texts: Texts
    added: int | None = None

    @property
    def fields(self) -> tuple[str | None, ...]:
        """The eight text fields, id to format."""
        return (self.id, self.name, self.family, self.path, self.concept, self.preview, self.facts, self.format)

    @classmethod
    def from_model(cls, model: Model) -> Self:
        """Validate a model.

        Raises:
            BadModel: it has an empty id, a field of another type, or facts that are not JSON.
        """
        fields = (model.id, model.name, model.family, model.path, model.concept, model.preview)
        if not all(isinstance(text, str) for text in fields[:3]) or not all(
            isinstance(text, str | None) for text in fields[3:]
        ):
            types = ", ".join(type(text).__name__ for text in fields)
            raise BadModel(f"model {model.id!r}: expected text in every field, found {types}; convert them to str")
        if not model.id or not is_valid_unicode(model.id) or not isinstance(model.facts, dict):
            facts_type = type(model.facts).__name__
            raise BadModel(
                f"model {model.id!r}: expected an id of valid text and a dict of facts, found facts as {facts_type}; correct the model"
            )
        try:
            entry = cls.from_fields(*fields, json.dumps(model.facts, allow_nan=False))
            return replace(entry, added=checked_time(model.added))
        except (TypeError, ValueError, RecursionError) as error:
            raise BadModel(f"model {model.id!r}: expected JSON facts, found: {error}; correct the model") from None

    @classmethod
    def from_fields(
        cls,
        id: str,
        name: str,
        family: str,
        path: str | None,
        concept: str | None,
        preview: str | None,
        facts: str,
    ) -> Self:
        """Derive the searchable values from the seven stored texts of a model.

        Raises:
            ValueError, AttributeError: the facts are not a JSON object.
        """
        values = json.loads(facts or "")
        ranks = [rank for rank in as_list(values, "ranks") if type(rank) is int and 0 <= rank < 2**31]
        format = values.get("format")
        return cls(
            id=id,
            name=name,
            family=family,
            path=path,
            concept=concept,
            preview=preview,
            facts=facts,
            format=format if isinstance(format, str) else None,
            rank=max(ranks, default=None),
            texts=Texts.of(str(name), path, values),
        )

    def with_files(self, files: Iterable[KnownFile]) -> Self:
        """Return the entry with the texts of its files, by which it is found as by its own."""
        texts = (Texts.of(file.name, file.path, file.facts) for file in sorted(files, key=lambda file: file.path))
        return replace(self, texts=self.texts.merged(texts))


def folder_name(path: str | None) -> tuple[str, ...]:
    """Return the name of the folder that holds a file, if the path names one."""
    folders = SEPARATOR.split(path or "")[:-1]
    return tuple(name for name in folders[-1:] if name.strip("."))


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


def as_list(facts: Mapping[str, Any], name: str) -> list[Any]:
    """Return a fact as a list; a single value becomes a list of one."""
    value = facts.get(name, [])
    return list(value) if isinstance(value, list | tuple) else [value]


def strings(facts: Mapping[str, Any], name: str) -> list[str]:
    """Return the strings of a fact that is a list."""
    return [value for value in as_list(facts, name) if isinstance(value, str)]


def read_words(facts: Mapping[str, Any]) -> list[str]:
    """Return the words that were read from the weights, of a fact that lists them with their probabilities."""
    pairs = [pair for pair in as_list(facts, "words") if isinstance(pair, list | tuple)]
    return [word for word, *_ in filter(None, pairs) if isinstance(word, str)]


def normalize_tag(text: str) -> str:
    """Return a tag as it is compared: case-folded, with single spaces and valid Unicode."""
    return " ".join(text.casefold().split()).encode(errors="replace").decode()


def searchable_text(*texts: str) -> str:
    """Return texts, each followed by its words: ``BetterHands_v2`` by ``Better Hands v 2``."""
    return "\n".join(f"{text} {CAMEL_CASE.sub(' ', text)}" for text in texts).encode(errors="replace").decode()
