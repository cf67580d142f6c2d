"""Engines: candidates among unit vectors that never change, so that any number of threads may search one at once.

The smallest zoos are scanned exactly. Larger ones are scanned as codes of one bit a number (RaBitQ: Gao and Long, SIGMOD 2024) after a random
rotation, and what comes near is compared again by the vectors in the catalogue. docs/architecture.md has why not HNSW or IVF.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Final, Protocol, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from loradex.index.vectors import Vector

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]

AUTO: Final = "auto"
CODES_FROM: Final = 50_000  # vectors from which codes are faster than an exact scan and all that is done besides
BLOCK: Final = 65_536  # rows encoded at a time
QUERY_BITS: Final = 4
WIDER: Final = 8  # codes looked at for each candidate, and
WIDE: Final = 160  # besides, with which recall was measured
MOST_ON_GPU: Final = 2048  # candidates that FAISS gives on a GPU


class View:
    """Memory of a FAISS index as an array, which keeps the index alive."""

    def __init__(self, index: Any, pointer: Any, dtype: type, shape: tuple[int, int]) -> None:
        """``pointer`` is where the numbers (n, m) lie."""
        self.index = index
        address = int(faiss.rev_swig_ptr(pointer, 1).__array_interface__["data"][0])
        self.__array_interface__ = {
            "data": (address, True),
            "typestr": np.dtype(dtype).str,
            "shape": shape,
            "version": 3,
        }


def view(index: Any, pointer: Any, dtype: type, shape: tuple[int, int]) -> NDArray[Any]:
    """The numbers (n, m) that an index holds, read-only and not copied."""
    return np.asarray(View(index, pointer, dtype, shape)) if shape[0] else np.empty(shape, dtype)


class Engine(Protocol):
    """Candidates among vectors (n, dim).

    Attributes:
        name: how a person asks for it.
        holds: what its arrays are called.
        dim: the length of its vectors.
        slack: the most that a score may be off; None where nothing bounds it, so that the best candidates may be missed.
    """

    name: ClassVar[str]
    holds: ClassVar[tuple[str, ...]]
    dim: int
    slack: float | None

    @classmethod
    def of(cls, vectors: Vector) -> Self:
        """Take unit vectors (n, dim)."""
        ...

    @classmethod
    def restore(cls, arrays: Arrays, dim: int) -> Self:
        """The reverse of ``arrays``.

        Raises:
            ValueError, KeyError: they are not those of such an engine.
        """
        ...

    def arrays(self) -> Arrays:
        """All that it holds, each array with a row for each vector."""
        ...

    def __len__(self) -> int:
        """The number of vectors."""
        ...

    def candidates(self, queries: Vector, count: int, mask: Mask | None = None) -> tuple[Vector, Rows]:
        """Scores and rows (q, count), best first, of each unit query (q, dim) among the rows of a mask (n,); -1 where there are no more."""
        ...


def parameters(mask: Mask | None, kind: Any, **settings: Any) -> Any:
    """FAISS's search parameters for the rows of a mask."""
    if mask is not None:
        settings["sel"] = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))  # type: ignore[call-arg, arg-type]
    return kind(**settings) if settings else None


class Exact:
    """All vectors, scanned in float32."""

    name: ClassVar[str] = "exact"
    holds: ClassVar[tuple[str, ...]] = ("vectors",)

    def __init__(self, index: Any) -> None:
        """Wrap an ``IndexFlatIP``."""
        self._index, self.dim = index, int(index.d)
        self.slack: float | None = index.d * 2.0**-24  # of the inner product of two unit vectors

    @classmethod
    def of(cls, vectors: Vector) -> Self:
        """Copy unit vectors (n, dim)."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors, np.float32))
        return cls(index)

    @classmethod
    def restore(cls, arrays: Arrays, dim: int) -> Self:
        """From its vectors."""
        vectors = arrays["vectors"]
        if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] != dim:
            raise ValueError(f"vectors of {vectors.dtype} {vectors.shape}")
        return cls.of(vectors)

    def arrays(self) -> Arrays:
        """A view of the vectors (n, dim)."""
        return {"vectors": view(self._index, self._index.get_xb(), np.float32, (len(self), self.dim))}

    def __len__(self) -> int:
        """The number of vectors."""
        return int(self._index.ntotal)

    def candidates(self, queries: Vector, count: int, mask: Mask | None = None) -> tuple[Vector, Rows]:
        """See ``Engine``."""
        found: tuple[Vector, Rows] = self._index.search(queries, count, params=parameters(mask, faiss.SearchParameters))
        return found


class ExactOnGpu(Exact):
    """The same on all GPUs, with the vectors in memory too; a search among some rows goes to the CPU."""

    name: ClassVar[str] = "gpu"

    def __init__(self, index: Any) -> None:
        """Copy an ``IndexFlatIP`` to every GPU."""
        super().__init__(index)
        self._on_gpu = faiss.index_cpu_to_all_gpus(index)
        self.slack = index.d * 2.0**-20  # another order of sums

    def candidates(self, queries: Vector, count: int, mask: Mask | None = None) -> tuple[Vector, Rows]:
        """See ``Engine``."""
        if mask is not None or count > MOST_ON_GPU:
            return super().candidates(queries, count, mask)
        found: tuple[Vector, Rows] = self._on_gpu.search(queries, count)
        return found


class Codes:
    """One bit a number, all of which are scanned, and one byte a number, for the best of those: at 512 numbers four times smaller than the vectors."""

    name: ClassVar[str] = "codes"
    holds: ClassVar[tuple[str, ...]] = ("codes", "steps", "lengths")
    slack: float | None = None

    def __init__(self, codes: NDArray[np.uint8], steps: NDArray[np.int8], lengths: Vector) -> None:
        """Take codes (n, bytes), steps (n, dim), and the length (n,) of a step."""
        self.dim, self._steps, self._lengths = steps.shape[1], steps, lengths
        self._index = empty_codes(self.dim)
        faiss.copy_array_to_vector(codes.ravel(), self._index.codes)
        self._index.ntotal = len(codes)
        self._all = faiss.IndexRaBitQFastScan(
            self._index
        )  # the same codes in another order, twice as fast, which takes no mask
        self._all.qb = QUERY_BITS

    @classmethod
    def of(cls, vectors: Vector) -> Self:
        """Encode unit vectors (n, dim)."""
        dim = vectors.shape[1]
        index, turn = empty_codes(dim), rotation(dim)
        codes, steps = np.empty((len(vectors), index.code_size), np.uint8), np.empty(vectors.shape, np.int8)
        lengths = (np.abs(vectors).max(axis=1, initial=1e-30) / 127).astype(np.float32)
        for start in range(0, len(vectors), BLOCK):
            rows = slice(start, start + BLOCK)
            codes[rows] = index.sa_encode(vectors[rows] @ turn)
            steps[rows] = np.rint(vectors[rows] / lengths[rows, None])
        return cls(codes, steps, lengths)

    @classmethod
    def restore(cls, arrays: Arrays, dim: int) -> Self:
        """From all that it holds."""
        codes, steps, lengths = (arrays[name] for name in cls.holds)
        kinds = [array.dtype.name for array in (codes, steps, lengths)] == ["uint8", "int8", "float32"]
        shapes = (codes.shape, steps.shape) == (
            (len(lengths), empty_codes(dim).code_size),
            (len(lengths), dim),
        ) and lengths.ndim == 1
        if not kinds or not shapes:
            raise ValueError(
                f"codes of {codes.dtype} {codes.shape}, {steps.dtype} {steps.shape}, {lengths.dtype} {lengths.shape}"
            )
        return cls(codes, steps, lengths)

    def arrays(self) -> Arrays:
        """The codes (n, bytes), the steps (n, dim) and the length (n,) of a step."""
        codes = view(self._index, self._index.codes.data(), np.uint8, (len(self), self._index.code_size))
        return {"codes": codes, "steps": self._steps, "lengths": self._lengths}

    def __len__(self) -> int:
        """The number of vectors."""
        return len(self._lengths)

    def candidates(self, queries: Vector, count: int, mask: Mask | None = None) -> tuple[Vector, Rows]:
        """See ``Engine``."""
        turned, wanted = queries @ rotation(self.dim), max(1, min(WIDER * count + WIDE, len(self)))
        if mask is None:
            _, rows = self._all.search(turned, wanted)
        else:
            _, rows = self._index.search(
                turned, wanted, params=parameters(mask, faiss.RaBitQSearchParameters, qb=QUERY_BITS)
            )
        found_scores, found_rows = (
            np.full((len(queries), count), -np.inf, np.float32),
            np.full((len(queries), count), -1, np.int64),
        )
        for number, (query, some) in enumerate(zip(queries, rows, strict=True)):
            some = some[some >= 0]
            scores = (self._steps[some].astype(np.float32) @ query) * self._lengths[some]
            best = np.argsort(-scores, kind="stable")[:count]
            found_scores[number, : len(best)], found_rows[number, : len(best)] = scores[best], some[best]
        return found_scores, found_rows


ENGINES: Final[dict[str, type[Exact] | type[Codes]]] = {"exact": Exact, "codes": Codes, "gpu": ExactOnGpu}


def has_gpu() -> bool:
    """Whether FAISS finds a GPU."""
    return hasattr(faiss, "index_cpu_to_all_gpus") and faiss.get_num_gpus() > 0


def engine_for(count: int, wanted: str = AUTO) -> type[Exact] | type[Codes]:
    """The kind of engine for a number of vectors; where none is asked for, by size, and on a GPU where FAISS finds one."""
    gpu = has_gpu()
    if wanted == AUTO or (wanted == ExactOnGpu.name and not gpu):
        return (ExactOnGpu if gpu else Codes) if count >= CODES_FROM else Exact
    return ENGINES[wanted]


def joined(kind: type[Exact] | type[Codes], parts: Sequence[tuple[Engine, Mask | None]]) -> Engine:
    """One engine of the rows of others, which are of the same kind or hold vectors."""
    arrays = [
        (engine if isinstance(engine, kind) else kind.of(engine.arrays()["vectors"])).arrays() for engine, _ in parts
    ]
    picked = [
        {name: array if mask is None else array[mask] for name, array in each.items()}
        for each, (_, mask) in zip(arrays, parts, strict=True)
    ]
    together = {name: np.concatenate([each[name] for each in picked]) for name in picked[0]}
    return kind.restore(together, parts[0][0].dim)


@lru_cache(maxsize=8)
def rotation(dim: int) -> Vector:
    """A random rotation (dim, dim), the same for all, which spreads what few numbers hold over all bits."""
    normal = np.random.Generator(np.random.PCG64(dim)).standard_normal((dim, dim))
    turn: Vector = np.linalg.qr(normal)[0].astype(np.float32)
    return turn


def empty_codes(dim: int) -> Any:
    """An index of codes around zero, so that codes made at different times fit together."""
    index = faiss.IndexRaBitQ(dim, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(np.zeros(dim, np.float32), index.center)
    index.is_trained = True
    return index
