"""The hits of a search: its best models, read from the catalogue with all scores that count."""

from collections.abc import Sequence
from pathlib import Path
from sqlite3 import Connection

import numpy as np

from loradex.index.evidence import Evidence, Position
from loradex.index.model import Hit
from loradex.index.sqlite.commits import rows_to_search, unit_vectors
from loradex.index.sqlite.reads import read_models_by_key, read_slots
from loradex.index.sqlite.rows import damaged_row_error, select_in
from loradex.index.sqlite.slots import keys_of, slot_of
from loradex.index.sqlite.snapshot import Matches
from loradex.index.vectors import Vector, exact_scores


def hits_of(
    connection: Connection, path: Path, query: Vector, matches: Matches, k: int, kinds: Sequence[Evidence]
) -> list[Hit]:
    """Return the ``k`` best matches of a query of ``scored_queries`` (dim + 1,) as hits, ties in order of id.

    Raises:
        ZooDamaged: a row that is needed is not as it was written.
    """
    models = read_models_by_key(connection, path, best_keys(connection, matches, k))
    evidence = {key: [kind for kind in model.evidence if kind in kinds] for key, model in models.items()}
    slots = [slot_of(key, kind) for key, own_kinds in evidence.items() for kind in own_kinds]
    rows, dim = read_slots(connection, path, np.array(slots, np.int64)), len(query) - 1
    places = {slot: place for place, slot in enumerate(slots)}
    scores = exact_scores(rows_to_search(rows, dim, path), query).tolist()
    positions = [Position(vector, *row[2:4]) for vector, row in zip(unit_vectors(rows, dim), rows, strict=True)]
    hits = []
    for key, own_kinds in evidence.items():
        if not own_kinds:
            raise damaged_row_error(path, models[key].id)
        own_scores = {kind: scores[places[slot_of(key, kind)]] for kind in own_kinds}
        best = max(own_scores, key=own_scores.__getitem__)  # of equal ones the weightiest, which comes first
        own_positions = {kind: positions[places[slot_of(key, kind)]] for kind in own_kinds}
        hits.append(Hit(models[key], own_scores[best], best, own_scores, own_positions))
    return sorted(hits, key=lambda hit: (-hit.score, hit.model.id))


def best_keys(connection: Connection, matches: Matches, k: int) -> list[int]:
    """Return the keys of the ``k`` best models of some matches, of equal ones those with the first ids."""
    scores: dict[int, float] = dict(zip(keys_of(matches.slots).tolist(), matches.scores.tolist(), strict=True))
    if len(scores) <= k:
        return list(scores)
    last = min(scores.values())
    tied = [key for key, score in scores.items() if score == last]
    ids: dict[int, str] = dict(select_in(connection, "SELECT key, id FROM models WHERE key IN", tied))
    kept = set(sorted(tied, key=lambda key: ids.get(key, ""))[: k - len(scores) + len(tied)])
    return [key for key, score in scores.items() if score > last or key in kept]
