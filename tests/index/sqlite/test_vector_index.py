"""Vector search in a zoo in a folder: exact order, and no more reads than needed."""

from pathlib import Path

import numpy as np

from loradex.index import Zoo
from loradex.index.sqlite.engine import ExactEngine
from loradex.index.sqlite.snapshot import Segment
from loradex.index.vectors import scored_queries, scored_rows
from tests.index.zoo_oracle import DIM, SPACE, models, random_vectors, unit


def test_order_in_float64() -> None:
    """Candidates whose order FAISS cannot tell in float32 are in the order of their cosines in float64."""
    rng = np.random.default_rng(3)
    base = unit(rng.normal(size=256).astype(np.float32))
    crowd = np.stack([unit(base + rng.normal(size=256).astype(np.float32) * 1e-5) for _ in range(600)])
    queries = scored_queries(base[None])
    for scale, bias in ((1, 0), (20, -2)):
        rows = scored_rows(crowd, np.full(600, scale), np.full(600, bias))
        segment = Segment(ExactEngine.from_vectors(rows), 8 * np.arange(600))
        exact = (rows.astype(np.float64) * queries[0].astype(np.float64)).sum(axis=1)
        for k in (1, 10, 100):
            ((slots, _),) = segment.search(queries, k, None, lambda slots, rows=rows: rows[slots // 8])  # type: ignore[misc]
            assert (slots // 8).tolist() == np.argsort(-exact, kind="stable")[:k].tolist()


def test_only_the_rows_of_hits_are_read(folder: Path) -> None:
    """A search reads ``k`` rows of models and their positions, not all."""
    with Zoo.create(folder, SPACE, DIM) as zoo:
        zoo.add(models(f"m{i:03}" for i in range(200)), random_vectors(200))
        zoo.search(random_vectors(1)[0], 1)  # loads the engine
        statements: list[str] = []
        with zoo._catalogue.reading() as connection:
            connection.set_trace_callback(statements.append)
        zoo.search(random_vectors(1, seed=5)[0], 4)
        with zoo._catalogue.reading() as connection:
            connection.set_trace_callback(None)
    for table in ("models", "vectors"):
        (read,) = [statement for statement in statements if f" FROM {table} " in statement]
        assert read.split(" IN ")[1].count(",") == 3
    assert len(statements) <= 7
