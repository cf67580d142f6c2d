"""What people write to say which models may be hits, as a filter."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from loradex.index import Filter, FoundBy
from loradex.retrieval.errors import QueryError

RANKS: Final = re.compile(r"(\d{1,9})?(-)?(\d{1,9})?")
AGO: Final = re.compile(r"(\d{1,6})\s*(h|d|w)")
HOURS: Final = {"h": 1, "d": 24, "w": 168}


def filter_of(
    families: Sequence[str] = (),
    formats: Sequence[str] = (),
    tags: Sequence[str] = (),
    rank: str | None = None,
    folder: str | None = None,
    after: str | None = None,
    before: str | None = None,
    found_by: str | None = None,
) -> Filter:
    """A filter; a rank is ``8``, ``4-16``, ``-8`` or ``32-``, a time is ``2026-11-24`` (UTC), or ``7d``, ``12h``, ``2w`` ago.

    Raises:
        QueryError: one of them is written in another way.
    """
    lowest, highest = ranks_of(rank) if rank else (None, None)
    place = None if folder is None else folder if "://" in folder else str(Path(folder).absolute())
    times = [None if said is None else time_of(said) for said in (after, before)]
    if found_by is not None and found_by not in tuple(FoundBy):
        raise QueryError(f"found by: expected {' or '.join(FoundBy)}, found {found_by[:80]!r}; choose one of them")
    by = FoundBy(found_by) if found_by else None
    return Filter(tuple(families), tuple(formats), tuple(tags), lowest, highest, place, times[0], times[1], by)


def ranks_of(said: str) -> tuple[int | None, int | None]:
    """The lowest and the highest rank.

    Raises:
        QueryError: it is no rank and no range of ranks.
    """
    found = RANKS.fullmatch(said.strip())
    if found is None or not (found[1] or found[3]):
        raise QueryError(f"rank: expected a rank as 8, or a range as 4-16, -8 or 32-, found {said[:80]!r}; write it so")
    low, high = (int(number) if number else None for number in (found[1], found[3]))
    return (low, high) if found[2] else (low, low)


def time_of(said: str) -> int:
    """A time in seconds since 1970.

    Raises:
        QueryError: it is no time.
    """
    ago = AGO.fullmatch(said.strip())
    try:
        when = (
            datetime.now(UTC) - timedelta(hours=int(ago[1]) * HOURS[ago[2]])
            if ago
            else datetime.fromisoformat(said.strip())
        )
        return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise QueryError(
            f"time: expected a date as 2026-11-24, or 7d, 12h or 2w ago, found {said[:80]!r}; write it so"
        ) from None
