"""Filters and words as boolean expressions of Milvus (https://milvus.io/docs/boolean.md).

Text from users enters an expression only as a code.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

from loradex.index.entry import normalize_tag
from loradex.index.evidence import CODES, PLACED, Evidence, to_bits
from loradex.index.filters import Filter, folder_range
from loradex.index.milvus.rows import code, tokens
from loradex.index.words import query_words


def model_expression(where: Filter) -> str:
    """Return the expression of a filter on models.

    Raises:
        BadQuery: the filter is invalid.
    """
    shared = filter_expression(where)
    if not where.found_by:
        return shared
    allowed = [
        bits
        for bits in range(1 << len(PLACED))
        if bits & to_bits(where.kinds) or (not bits and Evidence.METADATA in where.found_by)
    ]
    return all_of(shared, f"evidence in {allowed}")


def position_expression(where: Filter, kinds: Sequence[Evidence]) -> str:
    """Return the expression of a filter on positions by some kinds of evidence.

    Raises:
        BadQuery: the filter is invalid.
    """
    of_kinds = "" if len(kinds) == len(PLACED) else f"kind in {[CODES[kind] for kind in kinds]}"
    return all_of(of_kinds, filter_expression(where))


def filter_expression(where: Filter) -> str:
    """Return the expression of the conditions of a filter for which positions have the fields of their model.

    Raises:
        BadQuery: the filter is invalid.
    """
    where.check()
    conditions = [
        f"{field} in {json.dumps(list(map(code, allowed)))}"
        for field, allowed in (("family", where.families), ("format", where.formats))
        if allowed
    ]
    conditions += [f"array_contains(tags, {json.dumps(code(normalize_tag(tag)))})" for tag in where.tags]
    if where.lowest_rank is not None or where.highest_rank is not None:
        conditions.append(f"rank >= {max(0, where.lowest_rank or 0)}")  # a model without a rank has -1
    bounds = (("rank <=", where.highest_rank), ("added >=", where.added_from), ("added <", where.added_before))
    conditions += [f"{comparison} {bound}" for comparison, bound in bounds if bound is not None]
    if where.folder is not None:
        prefix, _ = folder_range(where.folder)
        conditions.append(f"array_contains(folders, {json.dumps(code(prefix))})")
    return all_of(*conditions)


def ids_expression(ids: Sequence[str], field: str = "id") -> str:
    """Return the expression for rows in which a field is one of some ids."""
    return f"{field} in {json.dumps(list(ids))}"


class WordQuery(NamedTuple):
    """A full-text search: the expression that rows must meet, and the tokens to rank them by."""

    expression: str
    ranking: str


def word_query(texts: Sequence[str], without: Sequence[str]) -> WordQuery | None:
    """Return the search for rows with every word of one of ``texts``, but not every word of one of ``without``.

    Returns:
        None if no word is left to look up.
    """
    included = [text_tokens for text_tokens in map(query_tokens, texts) if text_tokens]
    if not included:
        return None
    excluded = [f"not ({has_all(text_tokens)})" for text_tokens in map(query_tokens, without) if text_tokens]
    any_text = " or ".join(f"({has_all(text_tokens)})" for text_tokens in included)
    ranking = dict.fromkeys(token for text_tokens in included for token in text_tokens)
    return WordQuery(all_of(f"({any_text})", *excluded), " ".join(ranking))


def query_tokens(text: str) -> list[str]:
    """Return the tokens of a text, each once, without stop words."""
    return list(dict.fromkeys(token for word in query_words(text) for token in tokens(word)))


def has_all(query: Sequence[str]) -> str:
    """Return the expression for rows that have all of some tokens."""
    return " and ".join(f'TEXT_MATCH(words, "{token}")' for token in query)


def all_of(*conditions: str) -> str:
    """Join conditions that are not empty with ``and``."""
    return " and ".join(condition for condition in conditions if condition)
