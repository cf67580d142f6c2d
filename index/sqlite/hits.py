"""The hits of a search: its best models, read from the catalogue with all scores that count."""

from collections.abc import Sequence
from pathlib import Path
from sqlite3 import Connection

import numpy as np

from loradex.index.evidence import Evidence
from loradex.index.model import Hit
from loradex.index.scoring import hits_of
from loradex.index.sqlite.reads import read_models_by_key, read_slots
from loradex.index.sqlite.rows import damaged_row_error, position_of_row, select_in
from loradex.index.sqlite.slots import keys_of, slot_of
from loradex.index.sqlite.snapshot import Matches
from loradex.index.vectors import Vector


def best_hits(
    connection: Connection, path: Path, query: Vector, matches: Matches, k: int, kinds: Sequence[Evidence]
) -> list[Hit]:
    """Return the ``k`` best matches of a query of ``scored_queries`` (dim + 1,) as hits, ties in order of id.

    Raises:
        ZooDamaged: a row that is needed is not as it was written.
    """
    models = read_models_by_key(connection, path, best_keys(connection, matches, k))
    counted = {key: [kind for kind in model.evidence if kind in kinds] for key, model in models.items()}
    slots = [slot_of(key, kind) for key, own_kinds in counted.items() for kind in own_kinds]
    length = 4 * (len(query) - 1)
    rows = read_slots(connection, path, np.array(slots, np.int64))
    positions = {row[0]: position_of_row(row, length, path) for row in rows}
    placed = []
    for key, own_kinds in counted.items():
        if not own_kinds:
            raise damaged_row_error(path, models[key].id)
        placed.append((models[key], {kind: positions[slot_of(key, kind)] for kind in own_kinds}))
    return sorted(hits_of(placed, query), key=lambda hit: (-hit.score, hit.model.id))


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
