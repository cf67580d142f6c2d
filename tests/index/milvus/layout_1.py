"""A zoo of layout 1 in milvus-lite, from rows that Loradex wrote before a model had several positions."""

import json
from pathlib import Path
from typing import Any

from loradex.index.milvus.address import Address, write_address
from loradex.index.milvus.connection import Connection
from tests.index.zoo_oracle import DIM

ROWS = Path(__file__).with_name("layout_1.json")  # model "d" with a damaged record
TEXT: dict[str, Any] = {"max_length": 65_535}
CODE: dict[str, Any] = {"max_length": 80}
CODES = ("ARRAY", {"element_type": "VARCHAR", "max_capacity": 4096} | CODE)
CHUNKS = ("ARRAY", {"element_type": "VARCHAR", "max_capacity": 64} | TEXT)
WORDS = {"enable_analyzer": True, "enable_match": True, "analyzer_params": {"tokenizer": "standard"}} | TEXT
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **dict.fromkeys(("family", "format", "found_by"), ("VARCHAR", CODE)),
    **dict.fromkeys(("shard", "rank", "added"), ("INT64", {})),
    **dict.fromkeys(("tags", "folders"), CODES),
    "words": ("VARCHAR", WORDS),
    "words_bm25": ("SPARSE_FLOAT_VECTOR", {}),
    "placed": ("BOOL", {}),
    "vector": ("FLOAT_VECTOR", {"dim": DIM}),
    **dict.fromkeys(("record", "fingerprint"), CHUNKS),
}
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "shard": ("INT64", {}),
    "record": CHUNKS,
    "model": ("VARCHAR", CODE),
    "nothing": ("FLOAT_VECTOR", {"dim": 2}),
}


def stored_rows() -> dict[str, list[dict[str, Any]]]:
    """The rows of models and files."""
    rows: dict[str, list[dict[str, Any]]] = json.loads(ROWS.read_text("utf-8"))
    return rows


def make_zoo(folder: Path) -> None:
    """Write a zoo of layout 1 to a folder."""
    from pymilvus import DataType, Function, FunctionType, MilvusClient

    write_address(folder, Address())
    connection = Connection(folder)
    for part, fields in (("models", MODELS), ("files", FILES)):
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, **CODE)
        for name, (kind, options) in fields.items():
            options = {key: DataType[value] if key == "element_type" else value for key, value in options.items()}
            schema.add_field(name, DataType[kind], **options)
        indexes = MilvusClient.prepare_index_params()
        if part == "models":
            schema.add_function(Function("bm25", FunctionType.BM25, ["words"], ["words_bm25"]))
            indexes.add_index("words_bm25", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
        indexes.add_index("vector" if part == "models" else "nothing", index_type="FLAT", metric_type="IP")
        name = f"loradex_{part}"
        connection.call("create_collection", name, schema=schema, consistency_level="Strong")
        connection.call("create_index", name, indexes, sync=False)
        connection.call("load_collection", name)
        connection.call("upsert", name, data=stored_rows()[part])
    connection.close()
