"""The shipped zoo behind the API and the tools."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from loradex.app.api.rest import rest_api
from loradex.app.backend import Desk
from loradex.app.paths import SHIPPED_ZOO
from loradex.app.search.service import Loradex


@pytest.fixture(scope="session")
def loradex() -> Loradex:
    return Loradex(SHIPPED_ZOO)


@pytest.fixture
def desk(loradex: Loradex) -> Desk:
    return Desk(loradex, roots=[])


@pytest.fixture
def http(desk: Desk) -> Iterator[TestClient]:
    """The API where it is mounted; an error of its own is answered, as it is by a server."""
    app = FastAPI()
    app.mount("/api/v1", rest_api(desk))
    with TestClient(app, base_url="http://test/api/v1", raise_server_exceptions=False) as client:
        yield client
