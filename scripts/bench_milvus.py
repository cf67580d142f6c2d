"""``python -m scripts.bench_milvus [N] [PLACE]``: a zoo of N vectors of 512 numbers in a folder and in Milvus, in turn, as one JSON document on stdout.

N is 100,000 by default, PLACE milvus-lite in a folder that is thrown away; a server's ``milvus://host:19530/name`` is filled and left so.
The vectors and queries are those of ``scripts.bench_zoo``; truth is FAISS's exact search.
"""

import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import faiss
import numpy as np

from loradex.app.paths import place_of
from loradex.index import AnyZoo, Filter, open_zoo
from loradex.index.copying import copy_zoo
from scripts.bench_zoo import DIM, QUERIES, Array, K, Vectors, apart, fill, percentiles, recall, rounded, times_of

FILTERED = 50  # queries with a filter, which milvus-lite takes long for
FILTERS = {
    "all": Filter(),
    "one_in_8": Filter(families=("family-3",)),
    "one_in_800": Filter(families=("family-3",), folder="/loras/3"),
}


def truth_of(count: int, queries: Array) -> list[list[str]]:
    """The ids of the ``K`` nearest of each query, by FAISS alone."""
    flat = faiss.IndexFlatIP(DIM)
    for block in Vectors().blocks(count):
        flat.add(block)
    return [[f"{row:020x}" for row in rows] for rows in flat.search(queries, K)[1]]


def in_turn(zoos: dict[str, AnyZoo], queries: Array, where: Filter) -> dict[str, Any]:
    """Times and answers of each zoo, whose searches take turns, so that whatever else the machine does slows all."""
    spent, found = {name: list[float]() for name in zoos}, {name: list[list[str]]() for name in zoos}
    for zoo in zoos.values():
        zoo.search(queries[0], K, where)
    for number in range(FILTERED if where else QUERIES):
        for name, zoo in zoos.items():

            def search(number: int, name: str = name, zoo: AnyZoo = zoo) -> None:
                found[name].append([hit.model.id for hit in zoo.search(queries[number], K, where)])

            spent[name] += times_of(search, number)
    return {name: percentiles(spent[name]) | {"found": found[name]} for name in zoos}


def bench(count: int, said: str | None) -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory() as parent:
        folders = {"exact": Path(parent, "exact"), "codes": Path(parent, "codes")}
        for folder in folders.values():
            apart(fill, folder, count)
        place = place_of(said or f"milvus://{parent}/milvus", make=True)
        with open_zoo(folders["exact"]) as exact, open_zoo(folders["codes"]) as codes:
            exact.save_engine("exact")
            codes.save_engine("codes")
            began = perf_counter()
            copy_zoo(exact, place)
            answer: dict[str, Any] = {
                "vectors": count,
                "milvus": said or "milvus-lite",
                "copied_per_s": count / (perf_counter() - began),
            }
            queries = Vectors().queries()
            with open_zoo(place, read_only=True) as milvus:
                for name, where in FILTERS.items():
                    timed = in_turn({"faiss_exact": exact, "faiss_codes": codes, "milvus": milvus}, queries, where)
                    truth = truth_of(count, queries) if not where else timed["faiss_exact"]["found"]
                    answer[name] = {
                        zoo: {"recall_at_10": recall(each.pop("found"), truth), **each} for zoo, each in timed.items()
                    }
        return answer


if __name__ == "__main__":
    size, address = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, sys.argv[2] if len(sys.argv) > 2 else None
    np.seterr(all="raise")
    answer = bench(size, address)
    sys.stdout.write(
        json.dumps(
            {name: value if isinstance(value, str) else rounded(value) for name, value in answer.items()}, indent=1
        )
        + "\n"
    )
