"""How many candidates a search takes from an index, to compare their vectors exactly."""

from typing import Final

EXTRA: Final = 16  # beyond k, so that most exact searches need one pass, and others miss few hits
APPROXIMATE_FACTOR: Final = 8  # recall was measured with this factor and the extra below
APPROXIMATE_EXTRA: Final = 160


def candidates_for(k: int) -> int:
    """Return the number of candidates for ``k`` hits."""
    return k + EXTRA


def approximate_candidates(count: int) -> int:
    """Return the number of rows of an index with approximate scores from which ``count`` candidates are chosen."""
    return APPROXIMATE_FACTOR * count + APPROXIMATE_EXTRA
