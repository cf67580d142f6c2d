"""A real server under load: every request is answered or refused, and memory and files do not grow."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.app.web.asgi_client import PREDICT
from tests.app.web.live_server import NO_FILTERS, SHIPPED, Server, as_file

pytestmark = pytest.mark.xdist_group("hostile")


def send_batch(server: Server) -> None:
    """Send some requests of every kind."""
    files = server.upload(
        *((f"{number}.safetensors", SHIPPED.read_bytes()) for number in range(5)), ("x.safetensors", b"x")
    )
    for number in range(8):
        assert server.call("label", files, "a dog\na cat", 2, session=f"label {number % 2}").status_code == 200
        assert (
            server.call("search", f"dog {number}", None, None, *NO_FILTERS, session=f"search {number}").status_code
            == 200
        )
        assert (
            server.call("search", "x" * 10**6, None, None, *NO_FILTERS, session=f"search {number}").status_code == 200
        )
        assert server.call("label", [as_file("/etc/passwd")], "", 5).status_code == 500


def test_memory_descriptors_and_files_do_not_grow(server: Server) -> None:
    send_batch(server)
    memory, descriptors = server.resources()
    files = server.stored_files()
    send_batch(server)
    memory_after, descriptors_after = server.resources()
    assert memory_after - memory < 40 and descriptors_after - descriptors <= 2 and server.stored_files() == files


def test_two_hundred_requests_at_once_are_answered_or_refused(server: Server) -> None:
    index = server.function("search")["id"]

    def send(number: int) -> int:
        if number % 4 == 0:
            return server.client.get("/api/v1/search", params={"text": f"dog {number}"}).status_code
        body = {"fn_index": index, "data": [f"cat {number}", None, None, *NO_FILTERS], "session_hash": str(number)}
        return server.client.post(PREDICT, json=body).status_code

    with ThreadPoolExecutor(200) as pool:
        statuses = list(pool.map(send, range(200)))
    assert set(statuses) <= {200, 503} and statuses.count(200) >= 100
    assert "best first" in server.call("search", "dog", None, None, *NO_FILTERS).json()["data"][1]
