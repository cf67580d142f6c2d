"""The address of a zoo in Milvus.

It is ``milvus://host:19530/name?db=DATABASE&tls=true``, or ``milvus:///folder`` for files of this machine
(milvus-lite).

Every zoo has a folder on this machine, with its previews, the writer's lock, and ``milvus.json``, which holds the
address. The token of a server is never written down: it comes from ``$LORADEX_MILVUS_TOKEN``.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from loradex.index.disk import typed_errors
from loradex.index.errors import BadQuery, ZooDamaged, ZooExists
from loradex.index.sqlite.catalogue import CATALOGUE

SCHEME: Final = "milvus://"
ADDRESS_FILE: Final = "milvus.json"
LARGEST_ADDRESS_FILE: Final = 10_000  # bytes
LITE_FILE: Final = "milvus.db"  # the data of milvus-lite, which recognizes it by this ending
TOKEN: Final = "LORADEX_MILVUS_TOKEN"  # noqa: S105
PORT: Final = 19530
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
HOST: Final = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}")


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a zoo on a server, or, with an empty ``host``, in files of its folder.

    Attributes:
        host: with the port.
        name: prefix of the zoo's collections.
    """

    host: str = ""
    name: str = "loradex"
    database: str = ""
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an address with a host.

        Raises:
            BadQuery: it is invalid, or has a name and password.
        """
        refusal = BadQuery(
            f"{text[:200]!r}: expected {SCHEME}host:{PORT}/name, optionally with ?db=NAME&tls=true, found another address; correct it"
        )
        try:
            parts = urlsplit(text)
            host, port, name = parts.hostname or "", parts.port or PORT, parts.path.removeprefix("/")
            options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
        except ValueError:
            raise refusal from None
        if parts.username or parts.password:
            raise BadQuery(
                f"{SCHEME}…@{host}: expected no name or password in an address, found some; put NAME:PASSWORD or a key into ${TOKEN}"
            )
        database, tls = options.pop("db", ""), options.pop("tls", "false")
        is_valid = (
            not options
            and HOST.fullmatch(host)
            and NAME.fullmatch(name)
            and (not database or NAME.fullmatch(database))
            and tls in ("true", "false")
        )
        if not is_valid:
            raise refusal
        return cls(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", name, database, tls == "true")

    def __str__(self) -> str:
        """The address as ``parse`` takes it."""
        options = [*([f"db={self.database}"] if self.database else []), *(["tls=true"] if self.tls else [])]
        return f"{SCHEME}{self.host}/{self.name}{'?' if options else ''}{'&'.join(options)}"

    @property
    def uri(self) -> str:
        """The server's URI, as pymilvus takes it."""
        return f"{'https' if self.tls else 'http'}://{self.host}"


def folder_of_address(text: str, parent: Path, *, make: bool = False) -> Path:
    """Return the folder on this machine for an address: below ``parent`` for a server, else the one in the address.

    The address is written to the folder, so that ``open_zoo`` finds the zoo by it; for files of this machine only with
    ``make``, where a zoo is to be created.

    Raises:
        BadQuery: the address is invalid.
        ZooExists: the folder holds a zoo in SQLite.
        DiskRefused: the folder cannot be created.
    """
    is_local = text.startswith(f"{SCHEME}/")
    address = Address() if is_local else Address.parse(text)
    if is_local:
        folder = Path(unquote(text.removeprefix(SCHEME)))
    else:
        parts = ("tls" if address.tls else "", address.host, address.database, address.name)
        folder = parent / re.sub(r"[^A-Za-z0-9._-]", "_", "-".join(filter(None, parts)))
    if make or not is_local:
        write_address(folder, address)
    return folder


def write_address(folder: Path, address: Address) -> None:
    """Write the address of a zoo to its folder, unless it is there. One without a host does not replace another.

    Raises:
        ZooExists: the folder holds a zoo in SQLite.
        DiskRefused: the folder cannot be created or written.
    """
    with typed_errors(folder):
        if (folder / ADDRESS_FILE).is_file() and (not address.host or read_address(folder) == address):
            return
        if (folder / CATALOGUE).exists():
            raise ZooExists(
                f"{folder}: expected no zoo in SQLite, found one; copy it to Milvus with `loradex zoo copy {SCHEME}…`, or use another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{ADDRESS_FILE}.part"
        part.write_text(json.dumps({"version": 1, "address": str(address) if address.host else None}), "utf-8")
        part.replace(folder / ADDRESS_FILE)


def has_address(folder: Path) -> bool:
    """Whether a folder has the address of a zoo in Milvus.

    Raises:
        DiskRefused: the folder cannot be accessed.
    """
    with typed_errors(folder):
        return (folder / ADDRESS_FILE).is_file()


def read_address(folder: Path) -> Address:
    """Return the address in a folder.

    Raises:
        ZooDamaged: the file was not written by Loradex.
        DiskRefused: it cannot be read.
    """
    path = folder / ADDRESS_FILE
    with typed_errors(path), path.open("rb") as file:
        data = file.read(LARGEST_ADDRESS_FILE)
    try:
        document = json.loads(data)
        if document["version"] == 1:
            return Address() if document["address"] is None else Address.parse(document["address"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, BadQuery):
        pass
    raise ZooDamaged(
        f"{path}: expected the address of a zoo in Milvus, found {data[:80]!r}; delete the file, and open the zoo by its address again"
    )
