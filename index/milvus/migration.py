"""Zoos of layout 1, in which a model had one vector, which was that of a picture.

They are copied to new collections while the old ones stay as they are, and then take the old name. A copy that was
interrupted goes on when the zoo is opened for writing again: rows that are there already are not written again.
"""

from dataclasses import replace
from typing import Any, Final

import numpy as np

from loradex.index.checks import checked_position
from loradex.index.entry import Entry
from loradex.index.errors import BadModel, BadVector
from loradex.index.evidence import Evidence
from loradex.index.milvus.collections import change_engine, collection_names, create_models, create_positions
from loradex.index.milvus.connection import Connection
from loradex.index.milvus.derived import ModelRows
from loradex.index.milvus.model_table import ModelTable
from loradex.index.milvus.rows import Row, model_row, position_rows, unpack
from loradex.index.milvus.table import Table, batches
from loradex.index.milvus.tables import Tables
from loradex.index.milvus.zoo_row import VERSION, ZooRow
from loradex.index.model import KnownFile, Model

FIELDS: Final = ("id", "record", "placed", "vector", "fingerprint")  # of layout 1, from which all others are derived


def is_current(connection: Connection, row: ZooRow) -> bool:
    """Whether a zoo has the layout of this Loradex, and is not on the way to it."""
    return row.version == VERSION and not connection.call("has_collection", collection_names(connection).new_models)


def migrate(tables: Tables, row: ZooRow) -> None:
    """Give a zoo the layout of this Loradex.

    Raises:
        ZooDamaged: the row of a file is damaged; the zoo keeps its layout.
        ZooError: the server refuses it; the next call goes on.
    """
    connection = tables.connection
    names = collection_names(connection)
    if row.version < VERSION:
        create_positions(connection, names.positions, row.dim)
        create_models(connection, names.new_models)
        connection.call("load_collection", names.models)
        copy_models(Table(connection, names.models), ModelTable(connection, names.new_models), tables, row.dim)
        replace(row, version=VERSION).write(tables.files, finished=True)
    if connection.call("has_collection", names.models):
        connection.call("drop_collection", names.models)
    if row.engine != "exact":  # which new positions have
        change_engine(connection, row.engine)
    connection.call("rename_collection", names.new_models, names.models)


def copy_models(old: Table, new: ModelTable, tables: Tables, dim: int) -> None:
    """Copy the models of layout 1 to a new collection, and their positions."""
    ids = [row["id"] for row in old.scan("", ("id",))]
    for batch in batches(ids):
        files, copied = tables.files.by_model(batch), new.rows(batch)
        rows = [migrated_rows(row, files.get(row["id"], []), dim) for row in old.get(batch, FIELDS)]
        rows = [each for each in rows if copied.get(each.model["id"]) != each.model]
        tables.positions.upsert([row for each in rows for row in each.positions])
        new.upsert([each.model for each in rows])  # last, as it says that the positions are there
    removed_ids = sorted(set(new.ids()) - set(ids))  # by an earlier Loradex, after an interrupted copy
    tables.positions.delete(removed_ids, "model")
    new.delete(removed_ids)


def migrated_rows(row: Row, files: list[KnownFile], dim: int) -> ModelRows:
    """Return the rows of a model of layout 1; what is damaged stays so, for ``verify`` and ``rebuild``."""
    try:
        id, name, family, _, path, concept, preview, facts, added = unpack(row["record"])
        entry = Entry.from_fields(id, name, family, path, concept, preview, facts)
        model = Model(id, name, family)
        places = {Evidence.PICTURE: np.array(row["vector"], np.float32)} if row["placed"] else {}
        positions = {kind: checked_position(model, kind, vector, dim) for kind, vector in places.items()}
        migrated = model_row(entry, added, positions, files, row["fingerprint"])
        return ModelRows(migrated, position_rows(migrated, positions))
    except (BadModel, BadVector, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return ModelRows(damaged_row(row), [])


def damaged_row(row: Row) -> Row:
    """Return the row of a damaged model of layout 1, with nothing but its record and fingerprint."""
    empty: dict[str, Any] = dict.fromkeys(("family", "format", "words"), "")
    empty |= dict.fromkeys(("tags", "folders", "places"), []) | dict.fromkeys(("rank", "added", "evidence"), 0)
    return empty | {"id": row["id"], "shard": 0, "fingerprint": row["fingerprint"], "record": row["record"]}
