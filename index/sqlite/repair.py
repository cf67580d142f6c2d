"""Repair of a damaged catalogue."""

from sqlite3 import Connection

from loradex.index.sqlite.catalogue import Catalogue
from loradex.index.sqlite.rows import SELECT_MODELS
from loradex.index.sqlite.schema import CREATE_WORDS
from loradex.index.sqlite.verify import entry_of_row, select_damaged
from loradex.index.sqlite.writes import delete_vector, put_words


def repair(connection: Connection, catalogue: Catalogue, generation: int) -> list[str]:
    """Derive words and tags again from sound rows, delete models with a damaged or missing row, and return their ids.

    The files of deleted models are forgotten, so that the next ``loradex index`` reads them again.
    """
    path = catalogue.path
    connection.execute("REINDEX")
    for (key,) in connection.execute("SELECT key FROM vectors WHERE key NOT IN (SELECT key FROM models)").fetchall():
        delete_vector(connection, key, generation)
    for table in ("fingerprints", "files"):
        connection.execute(f"DELETE FROM {table} WHERE key NOT IN (SELECT key FROM models)")
    no_vector = "SELECT key FROM models WHERE found_by = 'weights' AND key NOT IN (SELECT key FROM vectors)"
    damaged = {key for (key,) in connection.execute(no_vector)}
    damaged |= {row[0] for row in select_damaged(connection, "vectors", "vector", 4 * catalogue.dim, path)}
    damaged |= {row[0] for row in select_damaged(connection, "fingerprints", "data", None, path)}
    connection.execute("DROP TABLE words")
    connection.execute(CREATE_WORDS)
    connection.execute("DELETE FROM tags")
    deleted_ids = []
    for row in connection.execute(f"{SELECT_MODELS} ORDER BY key").fetchall():
        key, entry = row[-1], entry_of_row(row, path)
        if entry is None or key in damaged:
            deleted_ids.append(str(row[0]))
            delete_vector(connection, key, generation)
            connection.execute("DELETE FROM models WHERE key = ?", (key,))
        else:
            put_words(connection, key, entry)
    connection.execute("UPDATE zoo SET vectors = (SELECT count(*) FROM vectors)")
    return deleted_ids
