"""``python -m scripts.bench_zoo [N...]``: a zoo of N vectors of 512 numbers against raw FAISS and NumPy, as JSON on stdout.

N is 10,000, 100,000 and 1,000,000 by default.

Vectors are made from a seed: 8,000 clusters of uneven size, numbers of uneven spread, within a cluster about as alike as LoRAs of one concept, and
queries farther out, as texts are. On such vectors the tenth neighbour is nearly as near as the first, which is the hard case for whatever approximates.
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

from loradex.index import Filter, FoundBy, Model, Zoo

DIM: Final = 512
CLUSTERS: Final = 8_000
QUERIES: Final = 200
K: Final = 10
BATCH: Final = 1_000
BLOCK: Final = 50_000
SIZES: Final = (10_000, 100_000, 1_000_000)
LARGEST_GRAPH: Final = 100_000  # vectors that HNSW is built over; it takes minutes
Array = NDArray[np.float32]


class Vectors:
    """Seeded unit vectors, made block by block."""

    def __init__(self, dim: int = DIM) -> None:
        """Draw the clusters."""
        rng = np.random.default_rng(0)
        self.spread = (1 / np.arange(1, dim + 1) ** 0.4).astype(np.float32)
        self.centres = unit(rng.standard_normal((CLUSTERS, dim), np.float32) * self.spread)
        share = 1 / np.arange(1, CLUSTERS + 1) ** 0.7
        self.share = share / share.sum()

    def draw(self, count: int, away: float, seed: int) -> Array:
        """Unit vectors (count, dim), ``away`` times as far from their cluster's centre as it is long."""
        rng = np.random.default_rng(seed)
        centres = self.centres[rng.choice(CLUSTERS, count, p=self.share)]
        return unit(centres + away * unit(rng.standard_normal(centres.shape, np.float32) * self.spread))

    def blocks(self, count: int) -> Iterator[Array]:
        """The vectors of ``count`` models."""
        for start in range(0, count, BLOCK):
            yield self.draw(min(BLOCK, count - start), 1.0, start + 1)

    def queries(self) -> Array:
        """Queries (QUERIES, dim)."""
        return self.draw(QUERIES, 1.2, 2**31)


def unit(rows: Array) -> Array:
    """Rows at length 1."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def models(start: int, count: int) -> list[Model]:
    """Models as an index run makes them, of eight families."""
    return [
        Model(
            f"{i:020x}",
            f"model {i}",
            f"family-{i % 8}",
            FoundBy.WEIGHTS,
            f"/loras/{i % 100}/{i}.safetensors",
            facts={"format": "kohya", "ranks": [4 << i % 5]},
        )
        for i in range(start, start + count)
    ]


def fill(folder: Path, count: int) -> dict[str, float]:
    """Add models in batches, then write the engine."""
    spent, start = 0.0, 0
    with Zoo.create(folder, "bench", DIM) as zoo:
        for block in Vectors().blocks(count):
            for first in range(0, len(block), BATCH):
                some = models(start + first, len(block[first : first + BATCH]))
                began = perf_counter()
                zoo.add(some, block[first : first + BATCH])
                spent += perf_counter() - began
            start += len(block)
        began = perf_counter()
        zoo.save_engine("auto")
        saved = perf_counter() - began
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"added_per_s": count / spent, "engine_written_s": saved, "disk_mb": size / 1e6}


def open_and_search(folder: Path, engine: str | None) -> dict[str, Any]:
    """Open a zoo and search it, in a process of its own: times, answers, memory."""
    before = resident()
    began = perf_counter()
    zoo = Zoo.open(folder, read_only=engine is None)
    if engine is not None:
        zoo.save_engine(engine)
    queries = Vectors().queries()
    opened = perf_counter() - began
    zoo.search(queries[0], K)
    first = perf_counter() - began
    found = [[hit.model.id for hit in zoo.search(query, K)] for query in queries]
    where = Filter(families=("family-3",))
    narrow = Filter(families=("family-3",), folder="/loras/3")
    plain, bare = side_by_side(lambda i: zoo.search(queries[i], K), raw_call(zoo, queries))
    filtered = times(lambda i: zoo.search(queries[i], K, where))
    few = times(lambda i: zoo.search(queries[i], K, narrow))
    answer = {
        **percentiles(plain),
        "open_s": opened,
        "first_hit_s": first,
        "memory_mb": resident() - before,
        "found": found,
    }
    answer |= {"faiss_in_turn": percentiles(bare), "one_in_8": percentiles(filtered), "one_in_800": percentiles(few)}
    answer["overhead"] = answer["p50_ms"] / answer["faiss_in_turn"]["p50_ms"]
    if engine is None:
        answer["while_written"] = while_written(folder, zoo, queries)
    zoo.close()
    return answer


def raw_call(zoo: Zoo, queries: Array) -> Callable[[int], Any]:
    """FAISS's own search for ``K`` in the engine of a zoo, which is in one segment."""
    engine = zoo._snapshot.segments[0].engine
    return lambda i: engine.candidates(queries[i : i + 1], K)


def side_by_side(one: Callable[[int], Any], other: Callable[[int], Any]) -> tuple[list[float], list[float]]:
    """Milliseconds of calls that take turns, so that whatever else the machine does slows both."""
    first, second = list[float](), list[float]()
    for number in range(QUERIES):
        first += times_of(one, number)
        second += times_of(other, number)
    return first, second


def times_of(work: Callable[[int], Any], number: int) -> list[float]:
    """Milliseconds of one call."""
    began = perf_counter()
    work(number)
    return [1e3 * (perf_counter() - began)]


def while_written(folder: Path, zoo: Zoo, queries: Array) -> dict[str, float]:
    """Searches beside a writer that adds 64 models at a time, as often as it can."""
    writer = multiprocessing.get_context("spawn").Process(target=keep_adding, args=(folder, 3.0))
    writer.start()
    sleep(1.5)
    before, slow = len(zoo), list[float]()
    while writer.is_alive():
        slow += times(lambda i: zoo.search(queries[i], K), 20)
    writer.join()
    added = len(zoo) - before
    return {**percentiles(slow), "models_added_meanwhile": added, "searches": len(slow)}


def keep_adding(folder: Path, seconds: float) -> None:
    """Add batches for some seconds."""
    vectors, number, until = Vectors(), 10**9, perf_counter() + seconds
    with Zoo.open(folder) as zoo:
        until = perf_counter() + seconds
        while perf_counter() < until:
            zoo.add(models(number, 64), vectors.draw(64, 1.0, number))
            number += 64


def raw(count: int, graph: bool) -> dict[str, Any]:
    """FAISS and NumPy over the same vectors, with no ids, facts or disk."""
    before = resident()
    vectors = np.concatenate(list(Vectors().blocks(count)))
    queries = Vectors().queries()
    answers: dict[str, Any] = {}
    answers["numpy"] = percentiles(times(lambda i: best(vectors @ queries[i])))
    flat = faiss.IndexFlatIP(DIM)
    flat.add(vectors)
    truth = flat.search(queries, K)[1]
    answers["faiss_flat"] = percentiles(times(lambda i: flat.search(queries[i : i + 1], K)))
    answers["faiss_flat"]["memory_mb"] = resident() - before - vectors.nbytes / 1e6
    if graph:
        answers |= {
            "faiss_hnsw32": approximate(hnsw(vectors), queries, truth, "efSearch"),
            "faiss_ivf": approximate(ivf(vectors), queries, truth, "nprobe"),
        }
    answers["truth"] = [[f"{row:020x}" for row in rows] for rows in truth]
    return answers


def hnsw(vectors: Array) -> Callable[[], Any]:
    """A graph of 32 links a vector."""

    def build() -> Any:
        index = faiss.IndexHNSWFlat(DIM, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 80
        index.add(vectors)
        return index

    return build


def ivf(vectors: Array) -> Callable[[], Any]:
    """Four times the root of n lists."""

    def build() -> Any:
        lists = int(4 * len(vectors) ** 0.5)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(DIM), DIM, lists, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors[: 40 * lists])
        index.add(vectors)
        return index

    return build


def approximate(build: Callable[[], Any], queries: Array, truth: NDArray[np.int64], setting: str) -> dict[str, Any]:
    """An approximate index at growing effort."""
    began = perf_counter()
    index = build()
    answer: dict[str, Any] = {"build_s": perf_counter() - began}
    for effort in (32, 128, 512):
        if setting == "nprobe":
            index.nprobe = effort
        else:
            index.hnsw.efSearch = effort
        found = index.search(queries, K)[1]
        answer[f"{setting}_{effort}"] = {
            **percentiles(times(lambda i: index.search(queries[i : i + 1], K))),
            "recall_at_10": recall(found, truth),
        }
    return answer


def best(scores: Array) -> NDArray[np.int64]:
    """The ``K`` best rows."""
    some = np.argpartition(scores, -K)[-K:]
    return some[np.argsort(-scores[some])]


def times(work: Callable[[int], Any], repeats: int = QUERIES) -> list[float]:
    """Milliseconds of each call."""
    work(0)
    return [time for number in range(repeats) for time in times_of(work, number % QUERIES)]


def percentiles(found: list[float]) -> dict[str, Any]:
    """Median and 99th percentile."""
    cut = statistics.quantiles(found, n=100)
    return {"p50_ms": statistics.median(found), "p99_ms": cut[98]}


def recall(found: Any, truth: Any) -> float:
    """The share of true neighbours that were found."""
    return statistics.mean(
        len(set(mine) & set(theirs)) / K for mine, theirs in zip(list(found), list(truth), strict=True)
    )


def resident() -> float:
    """Memory of this process in MB."""
    gc.collect()
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of some work in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def bench_zoo(count: int) -> dict[str, Any]:
    """All figures of one size."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "zoo")
        answer: dict[str, Any] = {"fill": apart(fill, folder, count)}
        bare = apart(raw, count, count <= LARGEST_GRAPH)
        truth = bare.pop("truth")
        answer["raw"] = bare
        for engine in ("exact", "codes"):
            found = apart(open_and_search, folder, engine)
            found["recall_at_10"] = recall(found.pop("found"), truth)
            answer[engine] = found
        apart(open_and_search, folder, "auto")
        found = apart(open_and_search, folder, None)
        found.pop("found")
        answer["as_served"] = found
        return answer


def rounded(value: Any) -> Any:
    """Figures with three digits behind the point."""
    return {key: rounded(each) for key, each in value.items()} if isinstance(value, dict) else round(value, 3)


if __name__ == "__main__":
    for size in [int(argument) for argument in sys.argv[1:]] or SIZES:
        sys.stdout.write(json.dumps({f"zoo of {size:,}": rounded(bench_zoo(size))}, indent=1) + "\n")
        sys.stdout.flush()
