"""Filters and words as expressions of Milvus (https://milvus.io/docs/boolean.md); whatever people say is in them as a code, never as it is."""

import json
from collections.abc import Sequence

from loradex.index.filters import Filter, ends_of
from loradex.index.milvus.rows import code, tokens
from loradex.index.sqlite.rows import tag_of
from loradex.index.words import said_words


def of_filter(where: Filter) -> str:
    """What a filter asks of models.

    Raises:
        BadQuery: the filter cannot be used.
    """
    where.check()
    parts = [
        f"{column} in {json.dumps(list(map(code, wanted)))}"
        for column, wanted in (("family", where.families), ("format", where.formats))
        if wanted
    ]
    parts += [f"array_contains(tags, {json.dumps(code(tag_of(tag)))})" for tag in where.tags]
    if where.lowest_rank is not None or where.highest_rank is not None:
        parts.append(f"rank >= {max(0, where.lowest_rank or 0)}")
    bounds = (("rank <=", where.highest_rank), ("added >=", where.added_from), ("added <", where.added_before))
    parts += [f"{column} {bound}" for column, bound in bounds if bound is not None]
    if where.found_by is not None:
        parts.append(f"found_by == {json.dumps(code(str(where.found_by)))}")
    if where.folder is not None:
        parts.append(f"array_contains(folders, {json.dumps(code(ends_of(where.folder)[0]))})")
    return both(*parts)


def of_ids(ids: Sequence[str], column: str = "id") -> str:
    """One of some ids."""
    return f"{column} in {json.dumps(list(ids))}"


def of_words(texts: Sequence[str], without: Sequence[str]) -> tuple[str, str] | None:
    """What has every word of one of some texts, but not all words of one of others, and the words to rank by; None where there is none to look for."""
    wanted = [found for found in map(words, texts) if found]
    if not wanted:
        return None
    refused = [f"not ({every_word(found)})" for found in map(words, without) if found]
    anyone = " or ".join(f"({every_word(found)})" for found in wanted)
    return both(f"({anyone})", *refused), " ".join(dict.fromkeys(word for found in wanted for word in found))


def words(text: str) -> list[str]:
    """The words of a text but those that say little."""
    return list(dict.fromkeys(token for word in said_words(text) for token in tokens(word)))


def every_word(found: Sequence[str]) -> str:
    """All of some words."""
    return " and ".join(f'TEXT_MATCH(words, "{word}")' for word in found)


def both(*parts: str) -> str:
    """All of some conditions."""
    return " and ".join(part for part in parts if part)
