"""Runs of the backend that read words: results, errors, bounds, and the end of the server."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from loradex.app import backend as backend_module
from loradex.app.backend import Backend, TooManyRuns
from loradex.app.bases.registry import registry_file
from loradex.app.paths import SHIPPED_ZOO
from loradex.app.search.service import Loradex
from loradex.retrieval.errors import QueryError
from tests.app.words.captioned import SHIPPED, write_captioned
from tests.app.words.shared import shared_service

OWN_WORDS = ("tovan", "dog", "kozu", "brelix", "mirku", "sefalo")


@pytest.fixture
def backend() -> Iterator[Backend]:
    backend = Backend(Loradex(SHIPPED_ZOO), roots=[])
    yield backend
    backend.close()


def test_results_equal_those_of_the_service(backend: Backend, tmp_path: Path) -> None:
    backend._words = shared_service()
    files = [str(write_captioned(tmp_path / "kozu.safetensors", "kozu")), str(tmp_path / "none"), str(SHIPPED)]
    run = backend.read_words(files, 3, OWN_WORDS)
    assert run.ended.wait(60) and run.error is None and backend.preparing is None
    assert run.results == [shared_service().read_path(Path(file), 3, OWN_WORDS) for file in files]
    assert run.results[0].words[0].word == "kozu" and len(run.results[0].words) == 3
    assert [result.readable for result in run.results] == [True, False, True]


def test_errors_end_a_run(backend: Backend) -> None:
    registry_file().parent.mkdir(parents=True)
    registry_file().write_text("no list")
    run = backend.read_words([str(SHIPPED)], 3)
    assert run.ended.wait(60) and run.results == [] and "bases.json: expected" in str(run.error)
    registry_file().unlink()
    backend._words = shared_service()
    for words in (["dog", "x" * 1000], ["dog"] * 1_000_000):
        run = backend.read_words([str(SHIPPED)], 3, words)
        assert run.ended.wait(60) and run.results == [] and isinstance(run.error, QueryError)


def test_runs_are_bounded_and_stop(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one prepares a base model others wait; as the server ends, all do."""
    monkeypatch.setattr(backend_module, "MAX_WORDS_RUNS", 3)
    prepares, goes_on, report = threading.Event(), threading.Event(), backend._report_preparing

    def held(done: int, total: int) -> None:
        report(done, total)
        prepares.set()
        assert goes_on.wait(60)

    monkeypatch.setattr(backend, "_report_preparing", held)
    runs = [backend.read_words([str(SHIPPED)] * 2, 3) for _ in range(3)]
    assert prepares.wait(60)
    done, total = backend.preparing or (1, 0)
    assert 0 <= done < total
    with pytest.raises(TooManyRuns, match="fewer than 3 sets of files"):
        backend.read_words([str(SHIPPED)], 3)
    runs[1].stop.set()
    backend._closing.set()
    goes_on.set()
    assert all(run.ended.wait(60) and run.results == [] for run in runs)
    assert backend.preparing is None
