"""Facts under the keys by which trainers and managers of LoRAs name them, in headers and in JSON documents."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from loradex.retrieval.lora.facts.model import Facts
from loradex.retrieval.lora.facts.text import clean_notes, clean_text, split_words, unique_words

MAX_KEY_LENGTH: Final = 40  # of a key that is looked at
NOT_IN_KEYS: Final = re.compile(r"[^a-z0-9]+")
# What programs write where nobody chose a title: a template that was not filled in, and kohya's word with a time.
NO_TITLE: Final = re.compile(r"\[name\]|(?:LoRA|TextualInversion|Checkpoint)@\d+(?:\.\d+)?")
NO_BASE_MODELS: Final = ("unknown", "other", "none")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one kind of document, those first whose value counts; ``a/b`` is the key b of the object a.

    Case, spaces and signs of a key do not matter. The words under all keys count, of texts the first.
    """

    title: tuple[str, ...] = ()
    base_model: tuple[str, ...] = ()
    trigger_words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def read(self, document: Mapping[str, Any]) -> Facts:
        """The facts of a document."""
        entries = by_plain_keys(document)
        titles = (clean_text(value) for value in values_at(entries, self.title))
        base_models = (clean_text(value) for value in values_at(entries, self.base_model))
        return Facts(
            title=next((title for title in titles if title and not NO_TITLE.fullmatch(title)), None),
            base_model=next((name for name in base_models if name and name.lower() not in NO_BASE_MODELS), None),
            trigger_words=words_at(entries, self.trigger_words),
            tags=words_at(entries, self.tags),
            notes=next(filter(None, map(clean_notes, values_at(entries, self.notes))), None),
        )


def by_plain_keys(document: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a document by their plain keys; of equal ones the first."""
    entries: dict[str, Any] = {}
    for key, value in document.items():
        if len(key) <= MAX_KEY_LENGTH:
            entries.setdefault(plain_key(key), value)
    return entries


@lru_cache(1024)
def plain_key(key: str) -> str:
    """A key in small letters, without spaces and signs."""
    return NOT_IN_KEYS.sub("", key.lower())


def values_at(entries: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[Any]:
    """The values under some keys, in their order."""
    for key in keys:
        outer, _, inner = key.partition("/")
        value = entries.get(plain_key(outer))
        if inner:
            value = value.get(inner) if isinstance(value, dict) else None
        if value is not None:
            yield value


def words_at(entries: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str, ...]:
    """The words under some keys."""
    return unique_words(word for value in values_at(entries, keys) for word in split_words(value))
