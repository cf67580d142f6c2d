"""``python -m scripts.bench_milvus [N] [ZOO]``: searches a zoo in a folder and in Milvus, in turn; prints JSON.

The zoo has N vectors of 512 numbers, 100,000 by default. ZOO is by default milvus-lite in a temporary folder; a
zoo on a server, ``milvus://host:19530/name``, is filled and kept. The vectors and queries are those of
``scripts.bench_zoo``; the true neighbours come from FAISS's exact search.
"""

import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import faiss
import numpy as np

from loradex.app.paths import resolve_zoo
from loradex.index import AnyZoo, Filter, open_zoo
from loradex.index.copying import copy_zoo
from scripts.bench_zoo import (
    DIM,
    QUERIES,
    Array,
    ClusteredVectors,
    K,
    fill_zoo,
    latency_percentiles,
    recall,
    round_values,
    run_in_process,
    time_call,
)

FILTERED_QUERIES = 50  # queries with a filter, which are slow in milvus-lite
FILTERS = {
    "all": Filter(),
    "one_in_8": Filter(families=("family-3",)),
    "one_in_800": Filter(families=("family-3",), folder="/loras/3"),
}


def exact_neighbours(count: int, queries: Array) -> list[list[str]]:
    """Ids of the ``K`` nearest models of each query, by FAISS's exact search."""
    flat = faiss.IndexFlatIP(DIM)
    for block in ClusteredVectors().blocks(count):
        flat.add(block)
    return [[f"{row:020x}" for row in rows] for rows in flat.search(queries, K)[1]]


def search_in_turn(zoos: dict[str, AnyZoo], queries: Array, query_filter: Filter) -> dict[str, Any]:
    """Latencies and hit ids of each zoo, searched in turn so that other load on the machine slows all."""
    times, hit_ids = {name: list[float]() for name in zoos}, {name: list[list[str]]() for name in zoos}
    for zoo in zoos.values():
        zoo.search(queries[0], K, query_filter)
    for number in range(FILTERED_QUERIES if query_filter else QUERIES):
        for name, zoo in zoos.items():

            def search(number: int, name: str = name, zoo: AnyZoo = zoo) -> None:
                hit_ids[name].append([hit.model.id for hit in zoo.search(queries[number], K, query_filter)])

            times[name] += time_call(search, number)
    return {name: latency_percentiles(times[name]) | {"hit_ids": hit_ids[name]} for name in zoos}


def bench_milvus(count: int, address: str | None) -> dict[str, Any]:
    """Fill the zoos and measure them, without a filter and with two."""
    with tempfile.TemporaryDirectory() as parent:
        folders = {"exact": Path(parent, "exact"), "codes": Path(parent, "codes")}
        for folder in folders.values():
            run_in_process(fill_zoo, folder, count)
        place = resolve_zoo(address or f"milvus://{parent}/milvus", make=True)
        with open_zoo(folders["exact"]) as exact, open_zoo(folders["codes"]) as codes:
            exact.save_engine("exact")
            codes.save_engine("codes")
            began = perf_counter()
            copy_zoo(exact, place)
            results: dict[str, Any] = {
                "vectors": count,
                "milvus": address or "milvus-lite",
                "copied_per_s": count / (perf_counter() - began),
            }
            queries = ClusteredVectors().queries()
            with open_zoo(place, read_only=True) as milvus:
                for name, query_filter in FILTERS.items():
                    measured = search_in_turn(
                        {"faiss_exact": exact, "faiss_codes": codes, "milvus": milvus}, queries, query_filter
                    )
                    truth = exact_neighbours(count, queries) if not query_filter else measured["faiss_exact"]["hit_ids"]
                    results[name] = {
                        zoo_name: {"recall_at_10": recall(figures.pop("hit_ids"), truth), **figures}
                        for zoo_name, figures in measured.items()
                    }
        return results


if __name__ == "__main__":
    size, address = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, sys.argv[2] if len(sys.argv) > 2 else None
    np.seterr(all="raise")
    answer = bench_milvus(size, address)
    sys.stdout.write(
        json.dumps(
            {name: value if isinstance(value, str) else round_values(value) for name, value in answer.items()}, indent=1
        )
        + "\n"
    )
