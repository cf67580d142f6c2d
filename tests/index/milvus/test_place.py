"""Addresses of Milvus, and the folders that say where a zoo lies."""

import json
from pathlib import Path

import pytest

from loradex.index import BadQuery, Zoo, ZooDamaged, ZooExists
from loradex.index.milvus.address import MARK, Address, address_of, folder_of, is_marked


@pytest.mark.parametrize(
    ("said", "uri", "name", "database"),
    [
        ("milvus://localhost/loras", "http://localhost:19530", "loras", ""),
        ("milvus://10.0.0.7:1234/a_1?db=team&tls=true", "https://10.0.0.7:1234", "a_1", "team"),
        ("milvus://[::1]:5/x", "http://[::1]:5", "x", ""),
        ("milvus://Host.Example/x?tls=false", "http://host.example:19530", "x", ""),
    ],
)
def test_addresses(tmp_path: Path, said: str, uri: str, name: str, database: str) -> None:
    """They are read, kept in a folder of their own, and read back as the same."""
    address = Address.read(said)
    assert (address.uri, address.name, address.database) == (uri, name, database)
    assert Address.read(str(address)) == address
    folder = folder_of(said, tmp_path / "milvus")
    assert folder.parent == tmp_path / "milvus" and address_of(folder) == address
    assert (
        folder_of(said, tmp_path / "milvus") == folder != folder_of(f"{said.partition('?')[0]}y", tmp_path / "milvus")
    )


@pytest.mark.parametrize(
    "said",
    [
        "milvus://host",
        "milvus://host/",
        "milvus://host/a/b",
        "milvus://host/a-b",
        "milvus://host/../x",
        "milvus://host:99999/x",
        "milvus://host:x/x",
        "milvus://ho st/x",
        "milvus://[::1/x",
        "milvus://host/x?tls=yes",
        "milvus://host/x?db=a-b",
        "milvus://host/x?user=me",
        "milvus://host/x?db",
        f"milvus://host/{'x' * 101}",
        "milvus://me:secret@host/x",
    ],
)
def test_what_is_no_address(tmp_path: Path, said: str) -> None:
    """It is refused in one line that tells no password, and nothing is made."""
    with pytest.raises(BadQuery, match=r"^[^\n]*expected [^\n]* found [^\n]*$") as refused:
        folder_of(said, tmp_path / "milvus")
    assert "secret" not in str(refused.value) and not any(tmp_path.iterdir())


def test_files_of_this_machine(tmp_path: Path) -> None:
    """A folder is marked only to make a zoo, and never one that has a zoo in SQLite."""
    folder = tmp_path / "a b"
    assert folder_of(f"milvus://{tmp_path}/a%20b", tmp_path / "milvus") == folder and not folder.exists()
    assert folder_of(f"milvus://{folder}", tmp_path / "milvus", make=True) == folder and is_marked(folder)
    assert address_of(folder) == Address()
    Zoo.create(tmp_path / "zoo", "words-1", 3).close()
    with pytest.raises(ZooExists, match="found one; copy it to Milvus"):
        folder_of(f"milvus://{tmp_path}/zoo", tmp_path / "milvus", make=True)
    assert not is_marked(tmp_path / "zoo")


@pytest.mark.parametrize(
    "said",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"version": 2, "address": null}',
        '{"version": 1, "address": 5}',
        "[" * 9000,
        "x" * 20_000,
    ],
)
def test_damaged_marks(tmp_path: Path, said: str) -> None:
    """They are refused in one line."""
    (tmp_path / MARK).write_text(said)
    with pytest.raises(ZooDamaged, match=r"^[^\n]*expected where a zoo in Milvus lies, found [^\n]*$"):
        address_of(tmp_path)


def test_what_is_named_last_counts(tmp_path: Path) -> None:
    """Whoever asks for TLS gets it, though the zoo was named without it before, and the other way round."""
    said = {tls: f"milvus://host/x?tls={tls}" for tls in ("false", "true")}
    for tls in ("false", "true", "false", "true"):
        assert address_of(folder_of(said[tls], tmp_path)).tls == (tls == "true")
    folder = folder_of(said["true"], tmp_path)
    (folder / MARK).write_text(json.dumps({"version": 1, "address": "milvus://host:19530/x"}))
    assert address_of(folder_of(said["true"], tmp_path)).uri == "https://host:19530"
