"""Index engines: candidates among vectors that never change, so that any number of threads may search one at once.

The vectors are those of ``scored_rows``: a scaled unit vector and, as the last number, a bias. Small zoos are scanned
exactly. Larger ones are scanned as codes of one bit per number (RaBitQ: Gao and Long, SIGMOD 2024) after a random
rotation, and the best candidates are compared again by their vectors in the catalogue. docs/architecture.md says why
not HNSW or IVF.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Final, Protocol, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from loradex.index.candidates import approximate_candidates
from loradex.index.vectors import Vector

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]

AUTO: Final = "auto"
CODES_FROM: Final = 50_000  # vectors from which codes are faster than an exact scan, with the comparison of candidates
BLOCK: Final = 65_536  # rows encoded at a time
QUERY_BITS: Final = 4
MOST_ON_GPU: Final = 2048  # candidates that FAISS returns on a GPU


class IndexMemory:
    """The array interface of memory inside a FAISS index, which keeps the index alive."""

    def __init__(self, index: Any, pointer: Any, dtype: type, shape: tuple[int, int]) -> None:
        """Point to the numbers (n, m) at a SWIG pointer."""
        self.index = index
        address = int(faiss.rev_swig_ptr(pointer, 1).__array_interface__["data"][0])
        self.__array_interface__ = {
            "data": (address, True),
            "typestr": np.dtype(dtype).str,
            "shape": shape,
            "version": 3,
        }


def memory_view(index: Any, pointer: Any, dtype: type, shape: tuple[int, int]) -> NDArray[Any]:
    """Return the numbers (n, m) that an index holds as a read-only array, without a copy."""
    return np.asarray(IndexMemory(index, pointer, dtype, shape)) if shape[0] else np.empty(shape, dtype)


class Engine(Protocol):
    """An index of vectors (n, dim + 1), whose last number is a bias.

    Attributes:
        name: of the kind of engine, as in ``--engine``.
        array_names: names of its arrays.
        dim: length of its vectors without the bias.
        score_error: the largest error of a score; None if nothing bounds it, so that a search may miss a hit.
    """

    name: ClassVar[str]
    array_names: ClassVar[tuple[str, ...]]
    dim: int
    score_error: float | None

    @classmethod
    def from_vectors(cls, vectors: Vector) -> Self:
        """Index vectors (n, dim + 1)."""
        ...

    @classmethod
    def from_arrays(cls, arrays: Arrays, dim: int) -> Self:
        """Restore an engine from its ``arrays``.

        Raises:
            ValueError, KeyError: they are not arrays of this kind of engine.
        """
        ...

    def arrays(self) -> Arrays:
        """Return all its data, each array with one row per vector."""
        ...

    def __len__(self) -> int:
        """The number of vectors."""
        ...

    def candidates(self, queries: Vector, count: int, mask: Mask | None = None) -> tuple[Vector, Rows]:
        """Return the scores and rows (q, count) of the best vectors for each query (q, dim + 1), best first.

        The queries are those of ``scored_queries``.

        Only rows of the mask (n,) are searched. Where there are fewer than ``count``, the row is -1.
        """
        ...


def search_parameters(mask: Mask | None, kind: Any, **settings: Any) -> Any:
    """Return FAISS's search parameters that limit a search to the rows of a mask."""
    if mask is not None:
        settings["sel"] = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))  # type: ignore[call-arg, arg-type]
    return kind(**settings) if settings else None


class ExactEngine:
    """Scans all vectors in float32."""

    name: ClassVar[str] = "exact"
    array_names: ClassVar[tuple[str, ...]] = ("vectors",)

    def __init__(self, index: Any) -> None:
        """Wrap an ``IndexFlatIP``."""
        self._index, self.dim = index, int(index.d) - 1
        # of a sum of products in any order (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1)
        self.score_error: float | None = index.d * 2.0**-24 * largest_score(self.arrays()["vectors"])

    @classmethod
    def from_vectors(cls, vectors: Vector) -> Self:
        """Copy vectors (n, dim + 1)."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors, np.float32))
        return cls(index)

    @classmethod
    def from_arrays(cls, arrays: Arrays, dim: int) -> Self:
        """Restore an engine from its vectors."""
        vectors = arrays["vectors"]
        if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] != dim + 1:
            raise ValueError(f"vectors of {vectors.dtype} {vectors.shape}")
        return cls.from_vectors(vectors)

    def arrays(self) -> Arrays:
        """Return a view of the vectors (n, dim + 1)."""
        return {"vectors": memory_view(self._index, self._index.get_xb(), np.float32, (len(self), self.dim + 1))}

    def __len__(self) -> int:
        """The number of vectors."""
        return int(self._index.ntotal)

    def candidates(self, queries: Vector, count: int, mask: Mask | None = None) -> tuple[Vector, Rows]:
        """Scan the vectors, as ``Engine.candidates``."""
        parameters = search_parameters(mask, faiss.SearchParameters)
        scores, rows = self._index.search(queries, count, params=parameters)
        return scores, rows


class GpuEngine(ExactEngine):
    """Scans all vectors on all GPUs. It holds them in memory too: a search with a mask runs on the CPU."""

    name: ClassVar[str] = "gpu"

    def __init__(self, index: Any) -> None:
        """Copy an ``IndexFlatIP`` to every GPU."""
        super().__init__(index)
        self._on_gpu = faiss.index_cpu_to_all_gpus(index)
        self.score_error = 16 * (self.score_error or 0)  # GPUs may multiply at a lower precision

    def candidates(self, queries: Vector, count: int, mask: Mask | None = None) -> tuple[Vector, Rows]:
        """Scan the vectors, as ``Engine.candidates``."""
        if mask is not None or count > MOST_ON_GPU:
            return super().candidates(queries, count, mask)
        scores, rows = self._on_gpu.search(queries, count)
        return scores, rows


class CodesEngine:
    """Scans codes of one bit per number, then scores the best rows by one byte per number.

    For vectors of 512 numbers it needs a quarter of the memory of ``ExactEngine``. Biases stay numbers: FAISS adds a
    number of each code to its score.
    """

    name: ClassVar[str] = "codes"
    array_names: ClassVar[tuple[str, ...]] = ("codes", "steps", "lengths", "biases")
    score_error: float | None = None

    def __init__(self, codes: NDArray[np.uint8], steps: NDArray[np.int8], lengths: Vector, biases: Vector) -> None:
        """Take RaBitQ codes (n, bytes), and vectors as integers ``steps`` (n, dim) times ``lengths`` (n,) of a step."""
        self.dim, self._steps, self._lengths, self._biases = steps.shape[1], steps, lengths, biases
        self._index = empty_rabitq_index(self.dim)
        faiss.copy_array_to_vector(codes.ravel(), self._index.codes)
        self._index.ntotal = len(codes)
        # the same codes in another order: twice as fast, but without masks
        self._fast_index = faiss.IndexRaBitQFastScan(self._index)
        self._fast_index.qb = QUERY_BITS

    @classmethod
    def from_vectors(cls, vectors: Vector) -> Self:
        """Encode vectors (n, dim + 1)."""
        vectors, biases = vectors[:, :-1], vectors[:, -1].copy()
        dim = vectors.shape[1]
        index, turn = empty_rabitq_index(dim), rotation(dim)
        codes, steps = np.empty((len(vectors), index.code_size), np.uint8), np.empty(vectors.shape, np.int8)
        lengths = (np.abs(vectors).max(axis=1, initial=1e-30) / 127).astype(np.float32)
        for start in range(0, len(vectors), BLOCK):
            rows = slice(start, start + BLOCK)
            codes[rows] = index.sa_encode(vectors[rows] @ turn)
            steps[rows] = np.rint(vectors[rows] / lengths[rows, None])
        put_biases(codes, biases)
        return cls(codes, steps, lengths, biases)

    @classmethod
    def from_arrays(cls, arrays: Arrays, dim: int) -> Self:
        """Restore an engine from its ``arrays``."""
        codes, steps, lengths, biases = (arrays[name] for name in cls.array_names)
        found = [(array.dtype.name, *array.shape) for array in (codes, steps, lengths, biases)]
        n, code_size = len(lengths), empty_rabitq_index(dim).code_size
        if found != [("uint8", n, code_size), ("int8", n, dim), ("float32", n), ("float32", n)]:
            raise ValueError(f"codes of {found}")
        return cls(codes, steps, lengths, biases)

    def arrays(self) -> Arrays:
        """Return the codes (n, bytes), the steps (n, dim), the lengths (n,) of a step, and the biases (n,)."""
        codes = memory_view(self._index, self._index.codes.data(), np.uint8, (len(self), self._index.code_size))
        return {"codes": codes, "steps": self._steps, "lengths": self._lengths, "biases": self._biases}

    def __len__(self) -> int:
        """The number of vectors."""
        return len(self._lengths)

    def candidates(self, queries: Vector, count: int, mask: Mask | None = None) -> tuple[Vector, Rows]:
        """Scan the codes and score the best rows by their bytes, as ``Engine.candidates``."""
        units = np.ascontiguousarray(queries[:, :-1])
        rotated, wide = units @ rotation(self.dim), max(1, min(approximate_candidates(count), len(self)))
        if mask is None:
            _, wide_rows = self._fast_index.search(rotated, wide)
        else:
            parameters = search_parameters(mask, faiss.RaBitQSearchParameters, qb=QUERY_BITS)
            _, wide_rows = self._index.search(rotated, wide, params=parameters)
        best_scores = np.full((len(queries), count), -np.inf, np.float32)
        best_rows = np.full((len(queries), count), -1, np.int64)
        for number, (query, rows) in enumerate(zip(units, wide_rows, strict=True)):
            rows = rows[rows >= 0]
            scores = (self._steps[rows].astype(np.float32) @ query) * self._lengths[rows] + self._biases[rows]
            order = np.argsort(-scores, kind="stable")[:count]
            best_scores[number, : len(order)], best_rows[number, : len(order)] = scores[order], rows[order]
        return best_scores, best_rows


EngineClass = type[ExactEngine] | type[CodesEngine]
ENGINES: Final[dict[str, EngineClass]] = {"exact": ExactEngine, "codes": CodesEngine, "gpu": GpuEngine}


def has_gpu() -> bool:
    """Whether FAISS finds a GPU."""
    return hasattr(faiss, "index_cpu_to_all_gpus") and faiss.get_num_gpus() > 0


def engine_for(count: int, kind: str = AUTO) -> EngineClass:
    """Return the engine for a number of vectors: of a kind, or chosen by the number and by whether there is a GPU."""
    gpu = has_gpu()
    if kind == AUTO or (kind == GpuEngine.name and not gpu):
        return (GpuEngine if gpu else CodesEngine) if count >= CODES_FROM else ExactEngine
    return ENGINES[kind]


def concatenate(engine_class: EngineClass, parts: Sequence[tuple[Engine, Mask | Rows | None]]) -> Engine:
    """Concatenate engines of a class, or ``ExactEngine`` ones, into one of the class.

    Each comes with a mask or a list of the rows to keep, or None for all.
    """
    kept = []
    for engine, rows in parts:
        if not isinstance(engine, engine_class):
            engine = engine_class.from_vectors(engine.arrays()["vectors"])
        arrays = engine.arrays()
        kept.append(arrays if rows is None else {name: array[rows] for name, array in arrays.items()})
    joined = {name: np.concatenate([arrays[name] for arrays in kept]) for name in kept[0]}
    return engine_class.from_arrays(joined, parts[0][0].dim)


def largest_score(vectors: Vector) -> float:
    """Return the largest score that a vector (n, dim + 1) can have for a unit query, up to its sign."""
    largest = 0.0
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        norms = np.sqrt(np.einsum("ij,ij->i", block[:, :-1], block[:, :-1]))
        largest = max(largest, float((norms + np.abs(block[:, -1])).max()))
    return 1.01 * largest  # the norms are rounded, and so is the bound that they enter


def put_biases(codes: NDArray[np.uint8], biases: Vector) -> None:
    """Write biases (n,) into RaBitQ codes (n, bytes), so that each adds to the scores of its code.

    The bits are followed by two float32 numbers; FAISS subtracts half of the first one from an inner product. In codes
    centred at zero it is zero.
    """
    codes[:, -8:-4] = (-2 * biases.astype("<f4")).view(np.uint8).reshape(-1, 4)


@lru_cache(maxsize=8)
def rotation(dim: int) -> Vector:
    """Return a random rotation (dim, dim), the same in every process.

    It spreads the information of few numbers over all bits.
    """
    normal = np.random.Generator(np.random.PCG64(dim)).standard_normal((dim, dim))
    matrix: Vector = np.linalg.qr(normal)[0].astype(np.float32)
    return matrix


def empty_rabitq_index(dim: int) -> Any:
    """Return an index of codes that is centred at zero, so that codes made at different times fit together."""
    index = faiss.IndexRaBitQ(dim, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(np.zeros(dim, np.float32), index.center)
    index.is_trained = True
    return index
