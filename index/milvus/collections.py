"""The two collections of a zoo in Milvus: one of models, and one of files with the row of the zoo itself."""

from typing import Any, Final

from loradex.index.milvus.connection import Connection
from loradex.index.milvus.rows import MAX_CHUNKS, MAX_ELEMENTS, MAX_TEXT_BYTES

ENGINES: Final = {"auto": "AUTOINDEX", "exact": "FLAT"}  # kinds of index engine as index types of Milvus
SCALAR_INDEXES: Final = ("shard", "family", "format", "found_by", "rank", "added", "tags", "folders")
MAX_CODE_BYTES: Final = 80  # of an id or a code

Field = tuple[str, dict[str, Any]]  # type and options


def collection_names(connection: Connection) -> tuple[str, str]:
    """Return the names of the collections of models and of files."""
    return f"{connection.address.name}_models", f"{connection.address.name}_files"


def create_collections(connection: Connection, dim: int) -> None:
    """Create both collections, for vectors (dim,) with a FLAT index, which is exact.

    With consistency level Strong every read sees all that was acknowledged before, whoever wrote it.

    Raises:
        ZooError: the server refuses them.
    """
    models, files = collection_names(connection)
    code: Field = ("VARCHAR", {"max_length": MAX_CODE_BYTES})
    create_collection(
        connection,
        files,
        {"model": code, "nothing": ("FLOAT_VECTOR", {"dim": 2})},  # Milvus demands a vector field
        vector="nothing",
        scalar_indexes=("shard", "model"),
    )
    codes: Field = (
        "ARRAY",
        {"element_type": "VARCHAR", "max_length": MAX_CODE_BYTES, "max_capacity": MAX_ELEMENTS},
    )
    words: Field = (
        "VARCHAR",
        {
            "max_length": MAX_TEXT_BYTES,
            "enable_analyzer": True,
            "enable_match": True,
            "analyzer_params": {"tokenizer": "standard"},
        },
    )
    chunks: Field = (
        "ARRAY",
        {"element_type": "VARCHAR", "max_length": MAX_TEXT_BYTES, "max_capacity": MAX_CHUNKS},
    )
    fields: dict[str, Field] = {
        **dict.fromkeys(("family", "format", "found_by"), code),
        **dict.fromkeys(("rank", "added"), ("INT64", {})),
        **dict.fromkeys(("tags", "folders"), codes),
        "words": words,
        "words_bm25": ("SPARSE_FLOAT_VECTOR", {}),
        "placed": ("BOOL", {}),
        "vector": ("FLOAT_VECTOR", {"dim": dim}),
        "fingerprint": chunks,
    }
    create_collection(connection, models, fields, vector="vector", scalar_indexes=SCALAR_INDEXES)


def create_collection(
    connection: Connection, name: str, fields: dict[str, Field], *, vector: str, scalar_indexes: tuple[str, ...]
) -> None:
    """Create a collection of some fields and an id, a shard and a record, with its indexes, and load it."""
    from pymilvus import DataType, Function, FunctionType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, max_length=MAX_CODE_BYTES, is_primary=True)
    schema.add_field("shard", DataType.INT64)
    schema.add_field(
        "record",
        DataType.ARRAY,
        element_type=DataType.VARCHAR,
        max_length=MAX_TEXT_BYTES,
        max_capacity=MAX_CHUNKS,
    )
    indexes = MilvusClient.prepare_index_params()
    for field, (kind, options) in fields.items():
        options = {key: DataType[value] if key == "element_type" else value for key, value in options.items()}
        schema.add_field(field, DataType[kind], **options)
    if "words" in fields:
        schema.add_function(Function("bm25", FunctionType.BM25, ["words"], ["words_bm25"]))
        indexes.add_index("words_bm25", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    indexes.add_index(vector, index_type=ENGINES["exact"], metric_type="IP")
    if not connection.is_lite:  # milvus-lite has no such index for arrays, and is fast without for the sizes it holds
        for field in scalar_indexes:
            indexes.add_index(field, index_type="INVERTED")
    connection.call("create_collection", name, schema=schema, consistency_level="Strong")
    connection.call("create_index", name, indexes, sync=False)  # the collection is empty, and loading waits for them
    connection.call("load_collection", name)


def change_engine(connection: Connection, engine: str) -> None:
    """Replace the index of the models' vectors by that of another engine; after an error the index is FLAT.

    Raises:
        BadQuery: this server has no such index.
    """
    models, _ = collection_names(connection)
    connection.call("release_collection", models)
    try:
        replace_vector_index(connection, models, ENGINES[engine])
    except BaseException:
        replace_vector_index(connection, models, ENGINES["exact"])
        raise
    finally:
        connection.call("load_collection", models)


def replace_vector_index(connection: Connection, models: str, index_type: str) -> None:
    """Drop the index of the models' vectors, if there is one, and create another."""
    from pymilvus import MilvusClient

    indexes = MilvusClient.prepare_index_params()
    indexes.add_index("vector", index_type=index_type, metric_type="IP")
    if "vector" in connection.call("list_indexes", models):
        connection.call("drop_index", models, "vector")
    connection.call("create_index", models, indexes, sync=False)


def load_collections(connection: Connection, *, repair: bool) -> None:
    """Load both collections, as is needed after a server was started again.

    ``repair`` creates a FLAT index if a killed process dropped the index of the vectors and created no other.

    Raises:
        ZooError: the server refuses it.
    """
    models, files = collection_names(connection)
    if repair and "vector" not in connection.call("list_indexes", models):
        replace_vector_index(connection, models, ENGINES["exact"])
    for name in (files, models):
        connection.call("load_collection", name)
