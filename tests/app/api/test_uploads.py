"""Uploads that are hostile, or only odd: each is answered in words, and nothing of it is left."""

import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest
from starlette.testclient import TestClient

from loradex.app.api import multipart, uploads
from loradex.app.api.multipart import LORAS, bare_name
from loradex.app.paths import MINIATURE
from loradex.retrieval.errors import QueryError

SHIPPED = sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))[0]
LABELS = {"labels": "a dog"}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder for temporary files, which is empty and without open files when all is answered."""
    (tmp_path / "uploads").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "uploads"))
    yield tmp_path / "uploads"
    assert list((tmp_path / "uploads").iterdir()) == []
    opened = (
        [str(path.readlink()) for path in Path("/proc/self/fd").glob("*") if path.is_symlink()]
        if Path("/proc/self/fd").is_dir()
        else []
    )
    assert not [path for path in opened if path.startswith(str(tmp_path / "uploads"))]


def message(answer: Any, status: int, kind: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["kind"] == kind
    said = str(answer.json()["error"]["message"])
    assert said.isprintable()
    assert "loradex-" not in said
    return said


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/cron.d/x.safetensors", "x.safetensors"),
        ("C:\\loras\\x.safetensors", "x.safetensors"),
        ("/proc/self/mem.safetensors", "mem.safetensors"),
        ("x" * 4096 + ".safetensors", "x" * 180 + "...xxxxx.safetensors"),
        ("a\x00b\x1b[2J\u202e.safetensors", "a?b?[2J?.safetensors"),
        ("<img onerror=alert(1)>.safetensors", "<img onerror=alert(1)>.safetensors"),
        ("^2 - x.SAFETENSORS", "^2 - x.SAFETENSORS"),
        (".safetensors.safetensors", ".safetensors.safetensors"),
    ],
)
def test_names_are_harmless(http: TestClient, name: str, shown: str) -> None:
    assert bare_name(name) == shown
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    body = (
        head
        + SHIPPED.read_bytes()
        + b'\r\n--x\r\nContent-Disposition: form-data; name="labels"\r\n\r\na dog\r\n--x--\r\n'
    )
    answer = http.post("label", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert [(result["file"], result["family"]) for result in answer.json()["results"]] == [(shown, "mini-a")]


def test_what_is_no_lora_is_refused(http: TestClient) -> None:
    for name in ("model.ckpt", "model.pt", "x.safetensors.exe", "", "safetensors", "x.png"):
        assert message(http.post("label", files=[("files", (name, b"x"))]), 422, "QueryError")
    told = http.post(
        "label", files=[("files", (f"{number}.safetensors", b"x" * number)) for number in range(32)], data=LABELS
    ).json()["results"]
    assert [result["reason"].split(": ")[0] for result in told] == [f"{number}.safetensors" for number in range(32)]


def test_a_path_is_no_upload(http: TestClient) -> None:
    said = message(
        http.post("label", data={"files": str(SHIPPED)}, files=[("files", ("x.safetensors", b"x"))]), 422, "QueryError"
    )
    assert said == "files: expected an uploaded file, found a text; send the file itself"
    message(http.post("label", data={"files": str(SHIPPED)}), 422, "QueryError")
    message(http.post("label", json={"files": [str(SHIPPED)]}), 422, "QueryError")
    message(
        http.post("search", data={"picture": "/etc/passwd"}, files=[("picture", ("x.png", b"x"))]), 422, "QueryError"
    )
    message(http.post("search", files=[("text", ("x.png", b"x"))]), 422, "QueryError")
    message(
        http.post("label", data={"path": str(SHIPPED)}, files=[("files", ("x.safetensors", b"x"))]), 422, "QueryError"
    )


def test_too_large_and_too_many(http: TestClient, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [("files", (f"{number}.safetensors", b"x")) for number in range(33)]
    assert "up to 32 files" in message(http.post("inspect", files=many), 413, "TooLarge")
    assert "20,000,000 bytes" in message(
        http.post("search", files=[("picture", ("x.png", bytes(20_000_001)))]), 413, "TooLarge"
    )
    assert "16384 bytes" in message(http.post("label", data={"labels": "x" * 16_385}, files=many[:1]), 413, "TooLarge")
    message(http.post("label", data={"labels": "x" * 301}, files=many[:1]), 422, "QueryError")
    monkeypatch.setattr(multipart, "MOST_FIELDS", 10)
    message(http.post("label", data={"labels": ["x"] * 11}, files=many[:1]), 413, "TooLarge")
    assert replace(LORAS, largest=1).largest == 1
    assert LORAS.largest == 2**30


BROKEN = [
    (b"", "multipart/form-data; boundary=x"),
    (b"--x", "multipart/form-data; boundary=x"),
    (b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--", "multipart/form-data; boundary=x"),
    (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.safetensors"\r\n\r\nhalf',
        "multipart/form-data; boundary=x",
    ),
    (b'--x\r\n: ; name="files"\r\n\r\n--x--', "multipart/form-data; boundary=x"),
    (b"--x\r\n" + b"A" * 20_000 + b": b\r\n\r\n", "multipart/form-data; boundary=x"),
    (b"--x\r\n" + b"A: b\r\n" * 1000 + b"\r\n", "multipart/form-data; boundary=x"),
    (b"x", "multipart/form-data"),
    (b"files=x", "application/x-www-form-urlencoded"),
    (b"x", "\xff"),
]


@pytest.mark.parametrize(("body", "kind"), BROKEN)
def test_broken_forms(http: TestClient, body: bytes, kind: str) -> None:
    message(http.post("label", content=body, headers={"content-type": kind.encode("latin-1")}), 422, "QueryError")


def test_one_who_falls_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "SILENCE", 0.05)

    class Silent:
        headers: ClassVar = {"content-type": "multipart/form-data; boundary=x"}

        async def stream(self) -> AsyncIterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.safetensors"\r\n\r\nhalf'
            await anyio.sleep_forever()

    reader = multipart.FormReader(tmp_path, "files", LORAS)
    with pytest.raises(QueryError, match=r"found nothing for 0\.05 s"):
        anyio.run(uploads.receive, Silent(), reader)
    reader.close()


def test_nothing_grows_after_two_identical_batches(http: TestClient, desk: Any) -> None:
    for _ in range(2):
        assert (
            http.post(
                "inspect", files=[("files", (f"{number}.safetensors", SHIPPED.read_bytes())) for number in range(5)]
            ).status_code
            == 200
        )


def test_a_full_disk_is_told(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "/secret/path")

    monkeypatch.setattr(Path, "open", full)
    answer = http.post("label", files=[("files", ("a.safetensors", b"x"))])
    monkeypatch.undo()
    assert "No space left" in message(answer, 500, "DiskRefused")
    assert "secret" not in answer.text
