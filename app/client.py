"""Loradex's API in Python: ``Client("http://127.0.0.1:7860").search("a slice of pizza")``; answers are JSON documents."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from loradex.retrieval.errors import LoradexError

Document = dict[str, Any]

TIMEOUT: Final = httpx.Timeout(120, connect=5)  # seconds; a large upload may be silent while it is read


class ApiError(LoradexError):
    """A server did not do what it was asked; ``kind`` names the error, ``status`` is HTTP's, or None where nothing was answered."""

    def __init__(self, kind: str, message: str, status: int | None = None) -> None:
        """Keep all three."""
        super().__init__(message)
        self.kind, self.message, self.status = kind, message, status


class Client:
    """A server of Loradex that runs with ``loradex serve --api``. Every method raises ApiError."""

    def __init__(
        self, server: str, login: tuple[str, str] | None = None, timeout: httpx.Timeout | float = TIMEOUT
    ) -> None:
        """Name the server by its address, and the login where it has one; nothing is sent yet."""
        self._http = httpx.Client(base_url=f"{server.rstrip('/')}/api/v1/", auth=login, timeout=timeout)

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def zoo(self) -> Document:
        """What the zoo is and holds."""
        return self._document("GET", "zoo")

    def search(
        self,
        *texts: str,
        minus: Sequence[str] = (),
        models: Sequence[str] = (),
        pictures: Sequence[str | Path] = (),
        limit: int = 10,
        offset: int = 0,
        **filters: Any,
    ) -> Document:
        """One page of hits for texts, ids of models and picture files; filters are those of ``loradex search``: family, format, tag, rank, ..."""
        asked = {"text": texts, "minus": minus, "model": models, "limit": limit, "offset": offset, **filters}
        return (
            self._upload("search", "picture", pictures, asked)
            if pictures
            else self._document("GET", "search", params=given(asked))
        )

    def models(self, **filters: Any) -> Iterator[Document]:
        """All models that the filters let through, in order of id, page by page."""
        cursor: str | None = ""
        while cursor is not None:
            page = self._document("GET", "models", params=given({"limit": 200, **filters, "cursor": cursor}))
            yield from page["models"]
            cursor = page["next"]

    def model(self, id: str) -> Document:
        """All that is known of a model."""
        return self._document("GET", f"models/{quoted(id)}")

    def drawing(self, id: str) -> bytes:
        """What a model draws, as a PNG."""
        return self._answer("GET", f"models/{quoted(id)}/drawing").content

    def similar(self, id: str, limit: int = 10) -> Document:
        """The look-alikes of a model."""
        return self._document("GET", f"models/{quoted(id)}/similar", params={"limit": limit})

    def duplicates(self, limit: int = 100) -> Document:
        """The look-alikes of the whole zoo."""
        return self._document("GET", "duplicates", params={"limit": limit})

    def label(self, *files: str | Path, labels: Sequence[str] = (), count: int = 5) -> Document:
        """What LoRA files of this machine draw."""
        return self._upload("label", "files", files, {"labels": labels, "count": count})

    def inspect(self, *files: str | Path, hash: bool = False) -> Document:
        """What LoRA files of this machine say of themselves."""
        return self._upload("inspect", "files", files, {"hash": hash})

    def index(self, *folders: str) -> Document:
        """Begin to add the LoRAs below folders of the server's machine."""
        return self._document("POST", "index", json={"folders": folders})

    def index_run(self) -> Document:
        """How the last run of indexing stands."""
        return self._document("GET", "index")

    def stop(self) -> Document:
        """Stop the run of indexing."""
        return self._document("DELETE", "index")

    def _upload(self, route: str, field: str, files: Sequence[str | Path], asked: Document) -> Document:
        with ExitStack() as opened:
            try:
                sent = [(field, (Path(file).name, opened.enter_context(Path(file).open("rb")))) for file in files]
            except OSError as error:
                raise ApiError(
                    "FileMissing", f"{error.filename}: expected a file to send, found: {error.strerror}; check the path"
                ) from None
            return self._document("POST", route, data=given(asked), files=sent)

    def _document(self, method: str, route: str, **rest: Any) -> Document:
        answer = self._answer(method, route, **rest)
        try:
            document: Document = answer.json()
        except ValueError:
            raise ApiError(
                "NoDocument",
                f"{answer.url}: expected a JSON document, found none; check the address",
                answer.status_code,
            ) from None
        return document

    def _answer(self, method: str, route: str, **rest: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, route, **rest)
        except httpx.HTTPError as error:
            raise ApiError(
                type(error).__name__,
                f"{self._http.base_url}: expected an answer, found: {error}; check the address and the server",
            ) from None
        if answer.is_success:
            return answer
        try:
            told = answer.json()["error"]
            raise ApiError(told["kind"], told["message"], answer.status_code)
        except (ValueError, KeyError, TypeError):
            advice = (
                "give the login" if answer.status_code == 401 else "check the address, and that it serves with --api"
            )
            raise ApiError(
                "NoDocument",
                f"{answer.url}: expected success, found status {answer.status_code}; {advice}",
                answer.status_code,
            ) from None


def given(asked: Document) -> Document:
    """What was asked for, without what was not."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in asked.items() if value is not None
    }


def quoted(id: str) -> str:
    """An id as one part of an address, even where it is made of dots or slashes."""
    return quote(id, safe="").replace(".", "%2E")
