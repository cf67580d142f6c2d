"""``python -m scripts.bench_zoo [N ...]``: measures searches of a zoo beside plain FAISS and NumPy and prints JSON.

Zoos have N positions of 512 numbers with a bias each; N is 10,000, 100,000 and 1,000,000 by default.

Vectors are generated from a seed: 8,000 clusters of uneven size, dimensions of uneven spread, vectors of a cluster
about as similar as LoRAs of one concept, and queries farther from the centres, as texts are. The tenth neighbour is
then nearly as near as the first, which is the hard case for approximate search.
"""

import gc
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from loradex.index import Evidence, Filter, Model, Position, Zoo
from loradex.index.vectors import scored_queries, scored_rows

DIM: Final = 512
SCALE: Final = 20.0  # of the scores of positions
BIAS_SPREAD: Final = 1.5
CLUSTERS: Final = 8_000
QUERIES: Final = 200
K: Final = 10
BATCH: Final = 1_000
BLOCK: Final = 50_000
SIZES: Final = (10_000, 100_000, 1_000_000)
MAX_GRAPH_VECTORS: Final = 100_000  # vectors; building HNSW over more takes too many minutes
Array = NDArray[np.float32]


class ClusteredVectors:
    """Unit vectors in clusters, generated block by block from seeds."""

    def __init__(self, dim: int = DIM) -> None:
        """Generate the cluster centres and sizes."""
        rng = np.random.default_rng(0)
        self.spread = (1 / np.arange(1, dim + 1) ** 0.4).astype(np.float32)
        self.centres = normalize_rows(rng.standard_normal((CLUSTERS, dim), np.float32) * self.spread)
        share = 1 / np.arange(1, CLUSTERS + 1) ** 0.7
        self.share = share / share.sum()

    def sample(self, count: int, distance: float, seed: int) -> Array:
        """Unit vectors (count, dim): each a cluster's unit centre plus noise of length ``distance``, normalised."""
        rng = np.random.default_rng(seed)
        centres = self.centres[rng.choice(CLUSTERS, count, p=self.share)]
        return normalize_rows(
            centres + distance * normalize_rows(rng.standard_normal(centres.shape, np.float32) * self.spread)
        )

    def blocks(self, count: int) -> Iterator[Array]:
        """The vectors of ``count`` models."""
        for start in range(0, count, BLOCK):
            yield self.sample(min(BLOCK, count - start), 1.0, start + 1)

    def biases(self, start: int, count: int) -> NDArray[np.float64]:
        """The biases (count,) of the models of a block."""
        return np.random.default_rng(2**32 + start).normal(0, BIAS_SPREAD, count)

    def rows(self, count: int) -> Array:
        """The rows (count, dim + 1) that an engine searches."""
        parts, start = list[Array](), 0
        for block in self.blocks(count):
            parts.append(scored_rows(block, np.full(len(block), SCALE), self.biases(start, len(block))))
            start += len(block)
        return np.concatenate(parts)

    def queries(self) -> Array:
        """Queries (QUERIES, dim)."""
        return self.sample(QUERIES, 1.2, 2**31)


def normalize_rows(rows: Array) -> Array:
    """Scale rows to length 1."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_models(start: int, count: int) -> list[Model]:
    """Models as indexing creates them, of eight families."""
    return [
        Model(
            f"{i:020x}",
            f"model {i}",
            f"family-{i % 8}",
            f"/loras/{i % 100}/{i}.safetensors",
            facts={"format": "kohya", "ranks": [4 << i % 5]},
        )
        for i in range(start, start + count)
    ]


def fill_zoo(folder: Path, count: int) -> dict[str, float]:
    """Create a zoo: add models in batches, then save the index engine."""
    add_seconds, start = 0.0, 0
    with Zoo.create(folder, "bench", DIM) as zoo:
        for block in ClusteredVectors().blocks(count):
            positions = [
                {Evidence.PICTURE: Position(vector, SCALE, float(bias))}
                for vector, bias in zip(block, ClusteredVectors().biases(start, len(block)), strict=True)
            ]
            for first in range(0, len(block), BATCH):
                batch = make_models(start + first, len(block[first : first + BATCH]))
                began = perf_counter()
                zoo.add(batch, positions[first : first + BATCH])
                add_seconds += perf_counter() - began
            start += len(block)
        began = perf_counter()
        zoo.save_engine("auto")
        save_seconds = perf_counter() - began
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"added_per_s": count / add_seconds, "engine_written_s": save_seconds, "disk_mb": size / 1e6}


def open_and_search(folder: Path, engine: str | None) -> dict[str, Any]:
    """Open a zoo and search it: latencies, memory, and the ids of the hits under ``hit_ids``.

    ``engine`` is the index engine to save and use; None opens the zoo read-only, as the server does. To be run in a
    process of its own, so that memory can be measured.
    """
    before = resident_memory_mb()
    began = perf_counter()
    zoo = Zoo.open(folder, read_only=engine is None)
    if engine is not None:
        zoo.save_engine(engine)
    queries = ClusteredVectors().queries()
    open_seconds = perf_counter() - began
    zoo.search(queries[0], K)
    first_hit_seconds = perf_counter() - began
    hit_ids = [[hit.model.id for hit in zoo.search(query, K)] for query in queries]
    one_in_8 = Filter(families=("family-3",))
    one_in_800 = Filter(families=("family-3",), folder="/loras/3")
    zoo_times, faiss_times = time_in_turn(lambda i: zoo.search(queries[i], K), engine_search(zoo, queries))
    one_in_8_times = time_calls(lambda i: zoo.search(queries[i], K, one_in_8))
    one_in_800_times = time_calls(lambda i: zoo.search(queries[i], K, one_in_800))
    results = {
        **latency_percentiles(zoo_times),
        "open_s": open_seconds,
        "first_hit_s": first_hit_seconds,
        "memory_mb": resident_memory_mb() - before,
        "hit_ids": hit_ids,
    }
    results |= {
        "faiss_in_turn": latency_percentiles(faiss_times),
        "one_in_8": latency_percentiles(one_in_8_times),
        "one_in_800": latency_percentiles(one_in_800_times),
    }
    results["overhead"] = results["p50_ms"] / results["faiss_in_turn"]["p50_ms"]
    if engine is None:
        results["while_written"] = search_while_writing(folder, zoo, queries)
    zoo.close()
    return results


def engine_search(zoo: Zoo, queries: Array) -> Callable[[int], Any]:
    """FAISS's own search for ``K`` vectors in the index engine of a zoo of one segment."""
    engine, queries = zoo._index.snapshot.segments[0].engine, scored_queries(queries)
    return lambda i: engine.candidates(queries[i : i + 1], K)


def time_in_turn(first: Callable[[int], Any], second: Callable[[int], Any]) -> tuple[list[float], list[float]]:
    """Milliseconds of two functions, called in turn so that other load on the machine slows both."""
    first_times, second_times = list[float](), list[float]()
    for number in range(QUERIES):
        first_times += time_call(first, number)
        second_times += time_call(second, number)
    return first_times, second_times


def time_call(function: Callable[[int], Any], number: int) -> list[float]:
    """Milliseconds of one call, as a list of one."""
    began = perf_counter()
    function(number)
    return [1e3 * (perf_counter() - began)]


def search_while_writing(folder: Path, zoo: Zoo, queries: Array) -> dict[str, float]:
    """Search while another process adds 64 models at a time, as fast as it can."""
    writer = multiprocessing.get_context("spawn").Process(target=add_models_for, args=(folder, 3.0))
    writer.start()
    sleep(1.5)
    before, search_times = len(zoo), list[float]()
    while writer.is_alive():
        search_times += time_calls(lambda i: zoo.search(queries[i], K), 20)
    writer.join()
    added = len(zoo) - before
    return {**latency_percentiles(search_times), "models_added_meanwhile": added, "searches": len(search_times)}


def add_models_for(folder: Path, seconds: float) -> None:
    """Add batches of models to a zoo for a number of seconds."""
    vectors, number, deadline = ClusteredVectors(), 10**9, perf_counter() + seconds
    with Zoo.open(folder) as zoo:
        deadline = perf_counter() + seconds
        while perf_counter() < deadline:
            zoo.add(make_models(number, 64), vectors.sample(64, 1.0, number))
            number += 64


def bench_faiss_and_numpy(count: int, with_approximate: bool) -> dict[str, Any]:
    """Search the same rows with FAISS and NumPy alone: no ids, facts or disk."""
    before = resident_memory_mb()
    vectors, queries = ClusteredVectors().rows(count), scored_queries(ClusteredVectors().queries())
    results: dict[str, Any] = {}
    results["numpy"] = latency_percentiles(time_calls(lambda i: top_k(vectors @ queries[i])))
    flat = faiss.IndexFlatIP(DIM + 1)
    flat.add(vectors)
    truth = flat.search(queries, K)[1]
    results["faiss_flat"] = latency_percentiles(time_calls(lambda i: flat.search(queries[i : i + 1], K)))
    results["faiss_flat"]["memory_mb"] = resident_memory_mb() - before - vectors.nbytes / 1e6
    if with_approximate:
        results |= {
            "faiss_hnsw32": bench_approximate_index(hnsw_builder(vectors), queries, truth, "efSearch"),
            "faiss_ivf": bench_approximate_index(ivf_builder(vectors), queries, truth, "nprobe"),
        }
    results["truth"] = [[f"{row:020x}" for row in rows] for rows in truth]
    return results


def hnsw_builder(vectors: Array) -> Callable[[], Any]:
    """A function that builds an HNSW graph with 32 links for each vector."""

    def build() -> Any:
        index = faiss.IndexHNSWFlat(DIM + 1, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 80
        index.add(vectors)
        return index

    return build


def ivf_builder(vectors: Array) -> Callable[[], Any]:
    """A function that builds an inverted file with four times the square root of n lists."""

    def build() -> Any:
        lists = int(4 * len(vectors) ** 0.5)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(DIM + 1), DIM + 1, lists, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors[: 40 * lists])
        index.add(vectors)
        return index

    return build


def bench_approximate_index(
    build: Callable[[], Any], queries: Array, truth: NDArray[np.int64], setting: str
) -> dict[str, Any]:
    """Build an approximate index, and measure its latency and recall at three values of its search parameter."""
    began = perf_counter()
    index = build()
    results: dict[str, Any] = {"build_s": perf_counter() - began}
    for effort in (32, 128, 512):
        if setting == "nprobe":
            index.nprobe = effort
        else:
            index.hnsw.efSearch = effort
        rows = index.search(queries, K)[1]
        results[f"{setting}_{effort}"] = {
            **latency_percentiles(time_calls(lambda i: index.search(queries[i : i + 1], K))),
            "recall_at_10": recall(rows, truth),
        }
    return results


def top_k(scores: Array) -> NDArray[np.int64]:
    """Row numbers of the ``K`` highest scores, best first."""
    candidates = np.argpartition(scores, -K)[-K:]
    return candidates[np.argsort(-scores[candidates])]


def time_calls(function: Callable[[int], Any], repeats: int = QUERIES) -> list[float]:
    """Milliseconds of each call, after one warm-up call."""
    function(0)
    return [time for number in range(repeats) for time in time_call(function, number % QUERIES)]


def latency_percentiles(times: list[float]) -> dict[str, Any]:
    """Median and 99th percentile of latencies in milliseconds."""
    cut = statistics.quantiles(times, n=100)
    return {"p50_ms": statistics.median(times), "p99_ms": cut[98]}


def recall(found: Any, truth: Any) -> float:
    """The share of the true nearest neighbours among those found."""
    return statistics.mean(
        len(set(found_ids) & set(true_ids)) / K for found_ids, true_ids in zip(list(found), list(truth), strict=True)
    )


def resident_memory_mb() -> float:
    """Resident memory of this process in MB."""
    gc.collect()
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def run_in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process and return its result."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def bench_zoo(count: int) -> dict[str, Any]:
    """Measure a zoo of ``count`` models with each index engine and as it is served, beside FAISS and NumPy."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "zoo")
        results: dict[str, Any] = {"fill": run_in_process(fill_zoo, folder, count)}
        raw = run_in_process(bench_faiss_and_numpy, count, count <= MAX_GRAPH_VECTORS)
        truth = raw.pop("truth")
        results["raw"] = raw
        for engine in ("exact", "codes"):
            measured = run_in_process(open_and_search, folder, engine)
            measured["recall_at_10"] = recall(measured.pop("hit_ids"), truth)
            results[engine] = measured
        run_in_process(open_and_search, folder, "auto")
        measured = run_in_process(open_and_search, folder, None)
        measured.pop("hit_ids")
        results["as_served"] = measured
        return results


def round_values(value: Any) -> Any:
    """Round every number of a nested dictionary to three decimals."""
    return {key: round_values(item) for key, item in value.items()} if isinstance(value, dict) else round(value, 3)


if __name__ == "__main__":
    for size in [int(argument) for argument in sys.argv[1:]] or SIZES:
        sys.stdout.write(json.dumps({f"zoo of {size:,}": round_values(bench_zoo(size))}, indent=1) + "\n")
        sys.stdout.flush()
