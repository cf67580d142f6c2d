"""Where a zoo in Milvus is: ``milvus://host:19530/name?db=DATABASE&tls=true``, or ``milvus:///folder`` for files of this machine (milvus-lite).

Each has a folder on this machine, with drawings, a lock for the one writer, and ``milvus.json``, which says where the rest lies. The token
of a server is never written down: it comes from ``$LORADEX_MILVUS_TOKEN``.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from loradex.index.errors import BadQuery, ZooDamaged, ZooExists
from loradex.index.sqlite.connections import CATALOGUE, typed_errors

SCHEME: Final = "milvus://"
MARK: Final = "milvus.json"
FILES: Final = "milvus.db"  # of milvus-lite, which knows its own by this ending
TOKEN: Final = "LORADEX_MILVUS_TOKEN"  # noqa: S105
PORT: Final = 19530
LARGEST: Final = 10_000  # bytes of a mark
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
HOST: Final = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}")


@dataclass(frozen=True, slots=True)
class Address:
    """A server's zoo; an empty ``host`` is the folder itself."""

    host: str = ""
    name: str = "loradex"
    database: str = ""
    tls: bool = False

    @classmethod
    def read(cls, said: str) -> Self:
        """An address with a host.

        Raises:
            BadQuery: it is none.
        """
        refusal = BadQuery(
            f"{said[:200]!r}: expected {SCHEME}host:{PORT}/name, if wanted with ?db=NAME&tls=true, found another address; mend it"
        )
        try:
            parts = urlsplit(said)
            host, port, name = parts.hostname or "", parts.port or PORT, parts.path.removeprefix("/")
            options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
        except ValueError:
            raise refusal from None
        if parts.username or parts.password:
            raise BadQuery(
                f"{SCHEME}…@{host}: expected no name or password in an address, found some; put NAME:PASSWORD or a key into ${TOKEN}"
            )
        database, tls = options.pop("db", ""), options.pop("tls", "false")
        if (
            options
            or not HOST.fullmatch(host)
            or not NAME.fullmatch(name)
            or (database and not NAME.fullmatch(database))
            or tls not in ("true", "false")
        ):
            raise refusal
        return cls(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", name, database, tls == "true")

    def __str__(self) -> str:
        """As a person writes it."""
        options = [*([f"db={self.database}"] if self.database else []), *(["tls=true"] if self.tls else [])]
        return f"{SCHEME}{self.host}/{self.name}{'?' if options else ''}{'&'.join(options)}"

    @property
    def uri(self) -> str:
        """As pymilvus takes it."""
        return f"{'https' if self.tls else 'http'}://{self.host}"


def folder_of(said: str, parent: Path, *, make: bool = False) -> Path:
    """The folder on this machine of a zoo that is named by an address; that of a server's lies below ``parent``.

    It is marked, so that whatever opens a zoo by its folder finds it; one for files of this machine only if ``make`` says so.

    Raises:
        BadQuery: the address is none.
        ZooExists: the folder holds a zoo in SQLite.
        DiskRefused: the folder cannot be made.
    """
    local = said.startswith(f"{SCHEME}/")
    address = Address() if local else Address.read(said)
    name = re.sub(
        r"[^A-Za-z0-9._-]",
        "_",
        "-".join(filter(None, ("tls" if address.tls else "", address.host, address.database, address.name))),
    )
    folder = Path(unquote(said.removeprefix(SCHEME))) if local else parent / name
    if make or not local:
        mark(folder, address)
    return folder


def mark(folder: Path, address: Address) -> None:
    """Write where a folder's zoo lies, unless that is written; a folder of files stays one.

    Raises:
        ZooExists: the folder holds a zoo in SQLite.
        DiskRefused: the folder cannot be made or written.
    """
    with typed_errors(folder):
        if (folder / MARK).is_file() and (not address.host or address_of(folder) == address):
            return
        if (folder / CATALOGUE).exists():
            raise ZooExists(
                f"{folder}: expected no zoo in SQLite, found one; copy it to Milvus with `loradex zoo copy {SCHEME}…`, or use another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{MARK}.part"
        part.write_text(json.dumps({"version": 1, "address": str(address) if address.host else None}), "utf-8")
        part.replace(folder / MARK)


def is_marked(folder: Path) -> bool:
    """Whether a folder says that its zoo is in Milvus.

    Raises:
        DiskRefused: the system does not let us look.
    """
    with typed_errors(folder):
        return (folder / MARK).is_file()


def address_of(folder: Path) -> Address:
    """Where a marked folder's zoo lies.

    Raises:
        ZooDamaged: the mark is none of Loradex.
        DiskRefused: it cannot be read.
    """
    path = folder / MARK
    with typed_errors(path), path.open("rb") as file:
        raw = file.read(LARGEST)
    try:
        said = json.loads(raw)
        if said["version"] == 1:
            return Address() if said["address"] is None else Address.read(said["address"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, BadQuery):
        pass
    raise ZooDamaged(
        f"{path}: expected where a zoo in Milvus lies, found {raw[:80]!r}; delete the file, and name the zoo by its address again"
    )
