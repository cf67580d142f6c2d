"""Filters as conditions in SQL, and words as queries of FTS5 (https://sqlite.org/fts5.html, section 3)."""

from collections.abc import Sequence

from loradex.index.entry import normalize_tag
from loradex.index.evidence import CODES, Evidence, to_bits
from loradex.index.filters import Filter, folder_range
from loradex.index.sqlite.rows import to_stored
from loradex.index.words import query_words

Value = str | int | bytes | None
Condition = tuple[str, list[Value]]  # of an SQL statement, with the values of its placeholders


def filter_condition(where: Filter) -> Condition:
    """Return the condition of a filter on ``models``.

    Raises:
        BadQuery: the filter is invalid.
    """
    where.check()
    conditions, values = ["TRUE"], list[Value]()
    for column, allowed in (("family", where.families), ("format", where.formats)):
        if allowed:
            conditions.append(f"models.{column} IN ({', '.join('?' * len(allowed))})")
            values += map(to_stored, allowed)
    for tag in where.tags:
        conditions.append("models.key IN (SELECT key FROM tags WHERE tag = ?)")
        values.append(normalize_tag(tag))
    bounds = (
        ("rank", ">=", where.lowest_rank),
        ("rank", "<=", where.highest_rank),
        ("added", ">=", where.added_from),
        ("added", "<", where.added_before),
    )
    for column, operator, bound in bounds:
        if bound is not None:
            conditions.append(f"models.{column} {operator} ?")
            values.append(bound)
    if where.found_by:
        by_metadata = " OR models.evidence = 0" if Evidence.METADATA in where.found_by else ""
        conditions.append(f"(models.evidence & ?{by_metadata})")
        values.append(to_bits(tuple(CODES.keys() & set(where.found_by))))
    if where.folder is not None:
        # a path is stored as text, or as bytes if it is not valid Unicode
        below = "(path >= ? AND path < ? OR path >= ? AND path < ?)"
        conditions.append(
            f"({below.replace('path', 'models.path')} OR models.key IN (SELECT key FROM files WHERE {below}))"
        )
        ends = folder_range(where.folder)
        values += [*map(to_stored, ends), *(end.encode("utf-8", "surrogatepass") for end in ends)] * 2
    return " AND ".join(conditions), values


def match_query(texts: Sequence[str], without: Sequence[str] = ()) -> str | None:
    """Return the FTS5 query for rows with every word of one of ``texts``, but not every word of one of ``without``.

    Returns:
        None if no word is left to look up.
    """
    included = [words for words in map(all_words, texts) if words]
    if not included:
        return None
    excluded = [words for words in map(all_words, without) if words]
    query = " OR ".join(f"({words})" for words in included)
    return f"({query}) NOT ({' OR '.join(f'({words})' for words in excluded)})" if excluded else query


def all_words(text: str) -> str:
    """Return the FTS5 query for all words of a text, each as a quoted string, so that none is an operator."""
    return " AND ".join(f'"{word}"' for word in query_words(text))
