"""Filters of models, parsed from the options of commands, the page and the API."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from loradex.app.models import FROM_WEIGHTS
from loradex.index import Evidence, Filter
from loradex.retrieval.errors import QueryError

RANK_PATTERN: Final = re.compile(r"(\d{1,9})?(-)?(\d{1,9})?")
AGE_PATTERN: Final = re.compile(r"(\d{1,6})\s*(h|d|w)")
WEIGHTS: Final = "weights"  # any kind that is read from the weights
UNIT_HOURS: Final = {"h": 1, "d": 24, "w": 168}


def parse_filter(
    families: Sequence[str] = (),
    formats: Sequence[str] = (),
    tags: Sequence[str] = (),
    rank: str | None = None,
    folder: str | None = None,
    after: str | None = None,
    before: str | None = None,
    found_by: Sequence[str] = (),
) -> Filter:
    """Parse a filter.

    Args:
        families: the families to keep; all if there are none.
        formats: the formats to keep; all if there are none.
        tags: the tags and trigger words to keep; all if there are none.
        rank: ``8``, ``4-16``, ``-8`` or ``32-``.
        folder: a folder or an address such as ``hf://owner/name``, below which a model has a file.
        after: the earliest time at which a model was added: ``2026-11-24`` (UTC), or ``7d``, ``12h`` or ``2w`` ago.
        before: the latest such time.
        found_by: the kinds of evidence of which a model has one, as for ``parse_evidence``; all if there are none.

    Raises:
        QueryError: a value has another form.
    """
    lowest_rank, highest_rank = parse_rank_range(rank) if rank else (None, None)
    place = None if folder is None else folder if "://" in folder else str(Path(folder).absolute())
    added_after, added_before = (None if text is None else parse_time(text) for text in (after, before))
    return Filter(
        tuple(families),
        tuple(formats),
        tuple(tags),
        lowest_rank,
        highest_rank,
        place,
        added_after,
        added_before,
        parse_evidence(found_by),
    )


def parse_evidence(texts: Sequence[str]) -> tuple[Evidence, ...]:
    """Return kinds of evidence, the weightiest first, of their names: ``preview``, or ``picture,words``.

    ``weights`` stands for all kinds that are read from the weights.

    Raises:
        QueryError: a name is unknown.
    """
    names = {name.strip() for text in texts for name in text.split(",") if name.strip()}
    if WEIGHTS in names:
        names = names - {WEIGHTS} | set(FROM_WEIGHTS)
    if unknown := names - set(Evidence):
        raise QueryError(
            f"found by: expected {', '.join(Evidence)} or {WEIGHTS}, found {min(unknown)[:80]!r}; choose among them"
        )
    return tuple(kind for kind in Evidence if kind in names)


def parse_rank_range(text: str) -> tuple[int | None, int | None]:
    """Return the lowest and the highest rank of a range, None where it is open.

    Raises:
        QueryError: the text is neither a rank nor a range of ranks.
    """
    match = RANK_PATTERN.fullmatch(text.strip())
    if match is None or not (match[1] or match[3]):
        raise QueryError(f"rank: expected a rank as 8, or a range as 4-16, -8 or 32-, found {text[:80]!r}; write it so")
    low, high = (int(number) if number else None for number in (match[1], match[3]))
    return (low, high) if match[2] else (low, low)


def parse_time(text: str) -> int:
    """Return a date, or a time span before now, as seconds since 1970.

    Raises:
        QueryError: the text is neither.
    """
    age = AGE_PATTERN.fullmatch(text.strip())
    try:
        when = (
            datetime.now(UTC) - timedelta(hours=int(age[1]) * UNIT_HOURS[age[2]])
            if age
            else datetime.fromisoformat(text.strip())
        )
        return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise QueryError(
            f"time: expected a date as 2026-11-24, or 7d, 12h or 2w ago, found {text[:80]!r}; write it so"
        ) from None
