"""The two collections of a zoo in Milvus: its models, and what became of files, with the zoo's own row."""

from typing import Any, Final

from loradex.index.milvus.connection import Connection
from loradex.index.milvus.rows import LONGEST, MOST_CHUNKS, MOST_TAGS

ENGINES: Final = {"auto": "AUTOINDEX", "exact": "FLAT"}  # how a person asks for an index, and what Milvus calls it
SCALARS: Final = ("shard", "family", "format", "found_by", "rank", "added", "tags", "folders")
SHORT: Final = 80  # bytes of an id or a code


def names_of(connection: Connection) -> tuple[str, str]:
    """Of models, and of files."""
    return f"{connection.address.name}_models", f"{connection.address.name}_files"


def make_collections(connection: Connection, dim: int) -> None:
    """Make both, with FLAT for vectors (dim,): exact, until someone asks for another index.

    Every read sees all that was acknowledged before (consistency level Strong), whoever wrote it.

    Raises:
        ZooError: the server refuses them.
    """
    models, files = names_of(connection)
    make(
        connection,
        files,
        {"model": ("VARCHAR", {"max_length": SHORT}), "nothing": ("FLOAT_VECTOR", {"dim": 2})},
        "nothing",
        ("shard", "model"),
    )
    codes = ("ARRAY", {"element_type": "VARCHAR", "max_length": SHORT, "max_capacity": MOST_TAGS})
    text = (
        "VARCHAR",
        {
            "max_length": LONGEST,
            "enable_analyzer": True,
            "enable_match": True,
            "analyzer_params": {"tokenizer": "standard"},
        },
    )
    columns: dict[str, tuple[str, dict[str, Any]]] = {
        **dict.fromkeys(("family", "format", "found_by"), ("VARCHAR", {"max_length": SHORT})),
        **dict.fromkeys(("rank", "added"), ("INT64", {})),
        **dict.fromkeys(("tags", "folders"), codes),
        "words": text,
        "words_bm25": ("SPARSE_FLOAT_VECTOR", {}),
        "placed": ("BOOL", {}),
        "vector": ("FLOAT_VECTOR", {"dim": dim}),
        "fingerprint": ("ARRAY", {"element_type": "VARCHAR", "max_length": LONGEST, "max_capacity": MOST_CHUNKS}),
    }
    make(connection, models, columns, "vector", SCALARS)


def make(
    connection: Connection,
    name: str,
    columns: dict[str, tuple[str, dict[str, Any]]],
    vector: str,
    scalars: tuple[str, ...],
) -> None:
    """Make one collection, with an id, a shard and a record besides its columns."""
    from pymilvus import DataType, Function, FunctionType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, max_length=SHORT, is_primary=True)
    schema.add_field("shard", DataType.INT64)
    schema.add_field(
        "record", DataType.ARRAY, element_type=DataType.VARCHAR, max_length=LONGEST, max_capacity=MOST_CHUNKS
    )
    indexes = MilvusClient.prepare_index_params()
    for column, (kind, options) in columns.items():
        options = {key: DataType[value] if key == "element_type" else value for key, value in options.items()}
        schema.add_field(column, DataType[kind], **options)
    if "words" in columns:
        schema.add_function(Function("bm25", FunctionType.BM25, ["words"], ["words_bm25"]))
        indexes.add_index("words_bm25", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    indexes.add_index(vector, index_type=ENGINES["exact"], metric_type="IP")
    for column in (
        () if connection.is_lite else scalars
    ):  # milvus-lite has no such index for arrays, and needs none for what it holds
        indexes.add_index(column, index_type="INVERTED")
    connection.ask("create_collection", name, schema=schema, consistency_level="Strong")
    connection.ask("create_index", name, indexes, sync=False)  # nothing is in it, and loading waits for them
    connection.ask("load_collection", name)


def change_engine(connection: Connection, engine: str) -> None:
    """Index the models' vectors in another way.

    Raises:
        BadQuery: this server has no such index; the vectors are indexed by FLAT then, as they are whatever else cuts this short.
    """
    models, _ = names_of(connection)
    connection.ask("release_collection", models)
    try:
        index_vectors(connection, models, ENGINES[engine])
    except BaseException:
        index_vectors(connection, models, ENGINES["exact"])
        raise
    finally:
        connection.ask("load_collection", models)


def index_vectors(connection: Connection, models: str, kind: str) -> None:
    """Put one index in the place of another."""
    from pymilvus import MilvusClient

    indexes = MilvusClient.prepare_index_params()
    indexes.add_index("vector", index_type=kind, metric_type="IP")
    if "vector" in connection.ask("list_indexes", models):
        connection.ask("drop_index", models, "vector")
    connection.ask("create_index", models, indexes, sync=False)


def load(connection: Connection, mend: bool) -> None:
    """Load both collections, as a server that was started again may not have done; with ``mend`` vectors whose index a killed process dropped get FLAT.

    Raises:
        ZooError: the server refuses it.
    """
    models, files = names_of(connection)
    if mend and "vector" not in connection.ask("list_indexes", models):
        index_vectors(connection, models, ENGINES["exact"])
    for name in (files, models):
        connection.ask("load_collection", name)
