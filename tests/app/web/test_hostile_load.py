"""A real server under load: everyone is answered or sent away, and nothing grows."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.app.web.asking import PREDICT
from tests.app.web.serving import REST, SHIPPED, Server, as_file

pytestmark = pytest.mark.xdist_group("hostile")


def batch(server: Server) -> None:
    """A little of everything."""
    files = server.send(
        *((f"{number}.safetensors", SHIPPED.read_bytes()) for number in range(5)), ("x.safetensors", b"x")
    )
    for number in range(8):
        assert server.run("label", files, "a dog\na cat", 2, session=f"label {number % 2}").status_code == 200
        assert server.run("search", f"dog {number}", None, None, *REST, session=f"search {number}").status_code == 200
        assert server.run("search", "x" * 10**6, None, None, *REST, session=f"search {number}").status_code == 200
        assert server.run("label", [as_file("/etc/passwd")], "", 5).status_code == 500


def test_nothing_grows(server: Server) -> None:
    batch(server)
    memory, descriptors = server.holds()
    files = server.files()
    batch(server)
    again, opened = server.holds()
    assert again - memory < 40 and opened - descriptors <= 2 and server.files() == files


def test_two_hundred_at_once_are_answered_or_sent_away(server: Server) -> None:
    index = server.function("search")["id"]

    def ask(number: int) -> int:
        if number % 4 == 0:
            return server.client.get("/api/v1/search", params={"text": f"dog {number}"}).status_code
        body = {"fn_index": index, "data": [f"cat {number}", None, None, *REST], "session_hash": str(number)}
        return server.client.post(PREDICT, json=body).status_code

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(ask, range(200)))
    assert set(answers) <= {200, 503} and answers.count(200) >= 100
    assert "best first" in server.run("search", "dog", None, None, *REST).json()["data"][1]
