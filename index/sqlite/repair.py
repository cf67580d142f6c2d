"""Repair of a damaged catalogue."""

from sqlite3 import Connection

from loradex.index.sqlite.catalogue import Catalogue
from loradex.index.sqlite.derived_words import rewrite_words
from loradex.index.sqlite.rows import SELECT_MODELS, is_damaged, model_of_row
from loradex.index.sqlite.slots import PER_MODEL
from loradex.index.sqlite.verify import select_damaged_fingerprints, select_damaged_positions, select_misplaced
from loradex.index.sqlite.writes import delete_position, put_positions, stored_positions


def repair(connection: Connection, catalogue: Catalogue, generation: int) -> list[str]:
    """Derive words and tags again from sound rows, delete models with a damaged or missing row, and return their ids.

    The files of deleted models are forgotten, so that the next ``loradex index`` reads them again, and so are those
    with a damaged row.
    """
    path = catalogue.path
    connection.execute("REINDEX")
    strays = f"SELECT slot FROM vectors WHERE key NOT IN (SELECT key FROM models) OR slot / {PER_MODEL} IS NOT key"
    for (slot,) in connection.execute(strays).fetchall():
        delete_position(connection, slot, generation)
    for table in ("fingerprints", "files"):
        connection.execute(f"DELETE FROM {table} WHERE key NOT IN (SELECT key FROM models)")
    misplaced = set(select_misplaced(connection))
    damaged_keys = {row[0] // PER_MODEL for row in select_damaged_positions(connection, catalogue.dim, path)}
    damaged_keys |= {row[0] for row in select_damaged_fingerprints(connection, path)}
    deleted_ids = []
    for row in connection.execute(f"{SELECT_MODELS} ORDER BY key").fetchall():
        id, key = row[0], row[-1]
        if key in damaged_keys or str(id) in misplaced or is_damaged(model_of_row, row, path):
            deleted_ids.append(str(id))
            put_positions(connection, key, {}, generation, stored_positions(connection, key))
            connection.execute("DELETE FROM models WHERE key = ?", (key,))
    rewrite_words(connection, path)
    connection.execute("UPDATE zoo SET vectors = (SELECT count(*) FROM vectors)")
    return deleted_ids
