"""The API and the tools, serving the shipped zoo."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from loradex.app.api.rest import rest_api
from loradex.app.backend import Backend
from loradex.app.paths import SHIPPED_ZOO
from loradex.app.search.service import Loradex
from tests.app.words.shared import shared_service


@pytest.fixture(scope="session")
def loradex() -> Loradex:
    return Loradex(SHIPPED_ZOO)


@pytest.fixture
def backend(loradex: Loradex) -> Backend:
    backend = Backend(loradex, roots=[])
    backend._words = shared_service()
    return backend


@pytest.fixture
def http(backend: Backend) -> Iterator[TestClient]:
    """A client of the mounted API; internal errors become responses, as on a server."""
    app = FastAPI()
    app.mount("/api/v1", rest_api(backend))
    with TestClient(app, base_url="http://test/api/v1", raise_server_exceptions=False) as client:
        yield client
