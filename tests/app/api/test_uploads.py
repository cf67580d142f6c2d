"""Hostile and odd uploads: each gets an error message, and leaves no file behind."""

import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest
from starlette.testclient import TestClient

from loradex.app.api import multipart, uploads
from loradex.app.api.multipart import LORA_UPLOADS, safe_filename
from loradex.app.paths import MINIATURE
from loradex.retrieval.errors import QueryError

SHIPPED = sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))[0]
LABELS = {"labels": "a dog"}


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The folder of temporary files; after the test it must be empty, with no file left open."""
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


def error_message(answer: Any, status: int, kind: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["kind"] == kind
    message = str(answer.json()["error"]["message"])
    assert message.isprintable()
    assert "loradex-" not in message
    return message


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
def test_file_names_are_made_safe(http: TestClient, name: str, shown: str) -> None:
    assert safe_filename(name) == shown
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    body = (
        head
        + SHIPPED.read_bytes()
        + b'\r\n--x\r\nContent-Disposition: form-data; name="labels"\r\n\r\na dog\r\n--x--\r\n'
    )
    answer = http.post("label", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert [(result["file"], result["family"]) for result in answer.json()["results"]] == [(shown, "mini-a")]


def test_files_that_are_not_loras_are_refused(http: TestClient) -> None:
    for name in ("model.ckpt", "model.pt", "x.safetensors.exe", "", "safetensors", "x.png"):
        assert error_message(http.post("label", files=[("files", (name, b"x"))]), 422, "QueryError")
    results = http.post(
        "label", files=[("files", (f"{number}.safetensors", b"x" * number)) for number in range(32)], data=LABELS
    ).json()["results"]
    assert [result["reason"].split(": ")[0] for result in results] == [f"{number}.safetensors" for number in range(32)]


def test_paths_are_not_accepted_as_uploads(http: TestClient) -> None:
    message = error_message(
        http.post("label", data={"files": str(SHIPPED)}, files=[("files", ("x.safetensors", b"x"))]), 422, "QueryError"
    )
    assert message == "files: expected an uploaded file, found a text; send the file itself"
    error_message(http.post("label", data={"files": str(SHIPPED)}), 422, "QueryError")
    error_message(http.post("label", json={"files": [str(SHIPPED)]}), 422, "QueryError")
    error_message(
        http.post("search", data={"picture": "/etc/passwd"}, files=[("picture", ("x.png", b"x"))]), 422, "QueryError"
    )
    error_message(http.post("search", files=[("text", ("x.png", b"x"))]), 422, "QueryError")
    error_message(
        http.post("label", data={"path": str(SHIPPED)}, files=[("files", ("x.safetensors", b"x"))]), 422, "QueryError"
    )


def test_size_limits(http: TestClient, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [("files", (f"{number}.safetensors", b"x")) for number in range(33)]
    assert "up to 32 files" in error_message(http.post("inspect", files=many), 413, "TooLarge")
    assert "20,000,000 bytes" in error_message(
        http.post("search", files=[("picture", ("x.png", bytes(20_000_001)))]), 413, "TooLarge"
    )
    assert "16384 bytes" in error_message(
        http.post("label", data={"labels": "x" * 16_385}, files=many[:1]), 413, "TooLarge"
    )
    error_message(http.post("label", data={"labels": "x" * 301}, files=many[:1]), 422, "QueryError")
    monkeypatch.setattr(multipart, "MAX_PARTS", 10)
    error_message(http.post("label", data={"labels": ["x"] * 11}, files=many[:1]), 413, "TooLarge")
    assert replace(LORA_UPLOADS, max_bytes=1).max_bytes == 1
    assert LORA_UPLOADS.max_bytes == 2**30


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
    error_message(http.post("label", content=body, headers={"content-type": kind.encode("latin-1")}), 422, "QueryError")


def test_a_silent_sender_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "READ_TIMEOUT", 0.05)

    class Silent:
        headers: ClassVar = {"content-type": "multipart/form-data; boundary=x"}

        async def stream(self) -> AsyncIterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.safetensors"\r\n\r\nhalf'
            await anyio.sleep_forever()

    reader = multipart.FormReader(tmp_path, "files", LORA_UPLOADS)
    with pytest.raises(QueryError, match=r"found nothing for 0\.05 s"):
        anyio.run(uploads.receive_form, Silent(), reader)
    reader.close()


def test_repeated_batches_leave_nothing_behind(http: TestClient, backend: Any) -> None:
    for _ in range(2):
        assert (
            http.post(
                "inspect", files=[("files", (f"{number}.safetensors", SHIPPED.read_bytes())) for number in range(5)]
            ).status_code
            == 200
        )


def test_a_full_disk_is_reported(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device", "/secret/path")

    monkeypatch.setattr(Path, "open", fail)
    answer = http.post("label", files=[("files", ("a.safetensors", b"x"))])
    monkeypatch.undo()
    assert "No space left" in error_message(answer, 500, "DiskRefused")
    assert "secret" not in answer.text
