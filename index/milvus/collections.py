"""The three collections of a zoo in Milvus: models, positions, and files with the rows of the zoo itself."""

from typing import Any, Final, NamedTuple

from loradex.index.milvus.connection import Connection
from loradex.index.milvus.rows import MAX_CHUNKS, MAX_ELEMENTS, MAX_TEXT_BYTES

ENGINES: Final = {"auto": "AUTOINDEX", "exact": "FLAT"}  # kinds of index engine as index types of Milvus
MAX_CODE_BYTES: Final = 80  # of an id or a code

Field = tuple[str, dict[str, Any]]  # type and options

CODE: Final[Field] = ("VARCHAR", {"max_length": MAX_CODE_BYTES})
NUMBER: Final[Field] = ("INT64", {})
CODES: Final[Field] = (
    "ARRAY",
    {"element_type": "VARCHAR", "max_length": MAX_CODE_BYTES, "max_capacity": MAX_ELEMENTS},
)
CHUNKS: Final[Field] = (
    "ARRAY",
    {"element_type": "VARCHAR", "max_length": MAX_TEXT_BYTES, "max_capacity": MAX_CHUNKS},
)
WORDS: Final[Field] = (
    "VARCHAR",
    {
        "max_length": MAX_TEXT_BYTES,
        "enable_analyzer": True,
        "enable_match": True,
        "analyzer_params": {"tokenizer": "standard"},
    },
)
FILTERED: Final[dict[str, Field]] = {
    **dict.fromkeys(("family", "format"), CODE),
    **dict.fromkeys(("shard", "rank", "added"), NUMBER),
    **dict.fromkeys(("tags", "folders"), CODES),
}


class Names(NamedTuple):
    """The names of the collections of a zoo; a zoo is migrated to new models before the old are dropped."""

    models: str
    positions: str
    files: str
    new_models: str


def collection_names(connection: Connection) -> Names:
    """Return the names of the collections of a zoo."""
    return Names(*(f"{connection.address.name}_{part}" for part in ("models", "positions", "files", "models_2")))


def create_collections(connection: Connection, dim: int) -> None:
    """Create the collections of a zoo for vectors (dim,) with a FLAT index, which is exact.

    With consistency level Strong every read sees all that was acknowledged before, whoever wrote it.

    Raises:
        ZooError: the server refuses them.
    """
    names = collection_names(connection)
    create_files(connection, names.files)
    create_positions(connection, names.positions, dim)
    create_models(connection, names.models)


def create_files(connection: Connection, name: str) -> None:
    """Create the collection of files."""
    fields: dict[str, Field] = {
        "shard": NUMBER,
        "model": CODE,
        "record": CHUNKS,
        "nothing": ("FLOAT_VECTOR", {"dim": 2}),  # Milvus demands a vector field
    }
    create_collection(connection, name, fields, vector="nothing", scalar_indexes=("shard", "model"))


def create_positions(connection: Connection, name: str, dim: int) -> None:
    """Create the collection of positions, for rows (dim + 1,) as of ``vectors.scored_rows``."""
    fields: dict[str, Field] = {
        **FILTERED,
        "model": CODE,
        "kind": NUMBER,
        "vector": ("FLOAT_VECTOR", {"dim": dim + 1}),
    }
    create_collection(connection, name, fields, vector="vector", scalar_indexes=(*FILTERED, "model", "kind"))


def create_models(connection: Connection, name: str) -> None:
    """Create the collection of models."""
    fields: dict[str, Field] = {
        **FILTERED,
        "evidence": NUMBER,
        "words": WORDS,
        "words_bm25": ("SPARSE_FLOAT_VECTOR", {}),
        **dict.fromkeys(("places", "fingerprint", "record"), CHUNKS),
    }
    create_collection(connection, name, fields, vector="words_bm25", scalar_indexes=(*FILTERED, "evidence"))


def create_collection(
    connection: Connection, name: str, fields: dict[str, Field], *, vector: str, scalar_indexes: tuple[str, ...]
) -> None:
    """Create a collection of an id and some fields with its indexes, those that are missing, and load it."""
    from pymilvus import DataType, Function, FunctionType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, max_length=MAX_CODE_BYTES, is_primary=True)
    for field, (kind, options) in fields.items():
        options = {key: DataType[value] if key == "element_type" else value for key, value in options.items()}
        schema.add_field(field, DataType[kind], **options)
    if vector == "words_bm25":
        schema.add_function(Function("bm25", FunctionType.BM25, ["words"], [vector]))
        wanted = {vector: {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "BM25"}}
    else:
        wanted = {vector: {"index_type": ENGINES["exact"], "metric_type": "IP"}}
    if not connection.is_lite:  # milvus-lite has no such index for arrays, and is fast without for the sizes it holds
        wanted |= dict.fromkeys(scalar_indexes, {"index_type": "INVERTED"})
    if not connection.call("has_collection", name):
        connection.call("create_collection", name, schema=schema, consistency_level="Strong")
    indexes, existing = MilvusClient.prepare_index_params(), connection.call("list_indexes", name)
    for field, index in wanted.items():
        if field not in existing:
            indexes.add_index(field, **index)
    if len(indexes):
        connection.call("create_index", name, indexes, sync=False)  # the collection is empty: loading waits for them
    connection.call("load_collection", name)


def change_engine(connection: Connection, engine: str) -> None:
    """Replace the index of the positions by that of another engine; after an error the index is FLAT.

    Raises:
        BadQuery: this server has no such index.
    """
    positions = collection_names(connection).positions
    connection.call("release_collection", positions)
    try:
        replace_vector_index(connection, positions, ENGINES[engine])
    except BaseException:
        replace_vector_index(connection, positions, ENGINES["exact"])
        raise
    finally:
        connection.call("load_collection", positions)


def replace_vector_index(connection: Connection, positions: str, index_type: str) -> None:
    """Drop the index of the positions, if there is one, and create another."""
    from pymilvus import MilvusClient

    indexes = MilvusClient.prepare_index_params()
    indexes.add_index("vector", index_type=index_type, metric_type="IP")
    if "vector" in connection.call("list_indexes", positions):
        connection.call("drop_index", positions, "vector")
    connection.call("create_index", positions, indexes, sync=False)


def load_collections(connection: Connection, *, repair: bool) -> None:
    """Load the collections, as is needed after a server was started again.

    ``repair`` creates a FLAT index if a killed process dropped the index of the positions and created no other.

    Raises:
        ZooError: the server refuses it.
    """
    names = collection_names(connection)
    if repair and "vector" not in connection.call("list_indexes", names.positions):
        replace_vector_index(connection, names.positions, ENGINES["exact"])
    for name in (names.files, names.models, names.positions):
        connection.call("load_collection", name)
