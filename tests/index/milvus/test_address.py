"""Addresses of zoos in Milvus, and the folders that hold them."""

import json
from pathlib import Path

import pytest

from loradex.index import BadQuery, Zoo, ZooDamaged, ZooExists
from loradex.index.milvus.address import ADDRESS_FILE, Address, folder_of_address, has_address, read_address


@pytest.mark.parametrize(
    ("text", "uri", "name", "database"),
    [
        ("milvus://localhost/loras", "http://localhost:19530", "loras", ""),
        ("milvus://10.0.0.7:1234/a_1?db=team&tls=true", "https://10.0.0.7:1234", "a_1", "team"),
        ("milvus://[::1]:5/x", "http://[::1]:5", "x", ""),
        ("milvus://Host.Example/x?tls=false", "http://host.example:19530", "x", ""),
    ],
)
def test_addresses(tmp_path: Path, text: str, uri: str, name: str, database: str) -> None:
    """They are parsed, written to a folder of their own, and read back."""
    address = Address.parse(text)
    assert (address.uri, address.name, address.database) == (uri, name, database)
    assert Address.parse(str(address)) == address
    folder = folder_of_address(text, tmp_path / "milvus")
    assert folder.parent == tmp_path / "milvus" and read_address(folder) == address
    assert (
        folder_of_address(text, tmp_path / "milvus")
        == folder
        != folder_of_address(f"{text.partition('?')[0]}y", tmp_path / "milvus")
    )


@pytest.mark.parametrize(
    "text",
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
def test_invalid_addresses(tmp_path: Path, text: str) -> None:
    """They are refused in one line without the password, and no folder is created."""
    with pytest.raises(BadQuery, match=r"^[^\n]*expected [^\n]* found [^\n]*$") as refused:
        folder_of_address(text, tmp_path / "milvus")
    assert "secret" not in str(refused.value) and not any(tmp_path.iterdir())


def test_local_address(tmp_path: Path) -> None:
    """Its folder gets an address file only with ``make``, and never if it has a zoo in SQLite."""
    folder = tmp_path / "a b"
    assert folder_of_address(f"milvus://{tmp_path}/a%20b", tmp_path / "milvus") == folder and not folder.exists()
    assert folder_of_address(f"milvus://{folder}", tmp_path / "milvus", make=True) == folder and has_address(folder)
    assert read_address(folder) == Address()
    Zoo.create(tmp_path / "zoo", "words-1", 3).close()
    with pytest.raises(ZooExists, match="found one; copy it to Milvus"):
        folder_of_address(f"milvus://{tmp_path}/zoo", tmp_path / "milvus", make=True)
    assert not has_address(tmp_path / "zoo")


@pytest.mark.parametrize(
    "text",
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
def test_damaged_address_files(tmp_path: Path, text: str) -> None:
    """They are refused in one line."""
    (tmp_path / ADDRESS_FILE).write_text(text)
    with pytest.raises(ZooDamaged, match=r"^[^\n]*expected the address of a zoo in Milvus, found [^\n]*$"):
        read_address(tmp_path)


def test_changed_options(tmp_path: Path) -> None:
    """The last address counts: TLS is used if it asks for it, and not used if it does not."""
    addresses = {tls: f"milvus://host/x?tls={tls}" for tls in ("false", "true")}
    for tls in ("false", "true", "false", "true"):
        assert read_address(folder_of_address(addresses[tls], tmp_path)).tls == (tls == "true")
    folder = folder_of_address(addresses["true"], tmp_path)
    (folder / ADDRESS_FILE).write_text(json.dumps({"version": 1, "address": "milvus://host:19530/x"}))
    assert read_address(folder_of_address(addresses["true"], tmp_path)).uri == "https://host:19530"
