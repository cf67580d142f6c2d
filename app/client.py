"""Client of a Loradex server: ``Client("http://127.0.0.1:7860").search("a slice of pizza")`` returns JSON documents."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from loradex.retrieval.errors import LoradexError

Document = dict[str, Any]

TIMEOUT: Final = httpx.Timeout(120, connect=5)  # seconds; the server is silent while it reads a large upload


class ApiError(LoradexError):
    """A request that failed.

    Attributes:
        kind: name of the error.
        message: one line: what was expected, what was found, how to mend it.
        status: HTTP status; None if there was no response.
    """

    def __init__(self, kind: str, message: str, status: int | None = None) -> None:
        """Create the error."""
        super().__init__(message)
        self.kind, self.message, self.status = kind, message, status


class Client:
    """Client of a server that runs ``loradex serve --api``. Every method that sends a request may raise ApiError."""

    def __init__(
        self, server: str, login: tuple[str, str] | None = None, timeout: httpx.Timeout | float = TIMEOUT
    ) -> None:
        """Create a client; nothing is sent yet.

        Args:
            server: address of the server, such as ``http://127.0.0.1:7860``.
            login: user and password, if the server has a login.
            timeout: of each request, in seconds.
        """
        self._http = httpx.Client(base_url=f"{server.rstrip('/')}/api/v1/", auth=login, timeout=timeout)

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def zoo(self) -> Document:
        """Describe the zoo: its name, space, and number of models by family, format and evidence."""
        return self._get_document("GET", "zoo")

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
        """Return one page of hits for a query.

        Args:
            texts: what the models should draw.
            minus: what they should not draw.
            models: ids of models that they should be like.
            pictures: image files that they should be like.
            limit: number of hits.
            offset: number of hits to skip.
            filters: those of ``loradex search``: family, format, tag, rank, found_by, ...
        """
        fields = {"text": texts, "minus": minus, "model": models, "limit": limit, "offset": offset, **filters}
        if pictures:
            return self._upload("search", "picture", pictures, fields)
        return self._get_document("GET", "search", params=without_none(fields))

    def models(self, **filters: Any) -> Iterator[Document]:
        """Iterate over all models that pass the filters, in order of id; requests one page at a time."""
        cursor: str | None = ""
        while cursor is not None:
            page = self._get_document("GET", "models", params=without_none({"limit": 200, **filters, "cursor": cursor}))
            yield from page["models"]
            cursor = page["next"]

    def model(self, id: str) -> Document:
        """Return all that is known about a model, with its files."""
        return self._get_document("GET", f"models/{quote_id(id)}")

    def drawing(self, id: str) -> bytes:
        """Return the preview of a model as PNG."""
        return self._request("GET", f"models/{quote_id(id)}/drawing").content

    def similar(self, id: str, limit: int = 10) -> Document:
        """Find the look-alikes of a model."""
        return self._get_document("GET", f"models/{quote_id(id)}/similar", params={"limit": limit})

    def duplicates(self, limit: int = 100) -> Document:
        """Find all look-alikes in the zoo."""
        return self._get_document("GET", "duplicates", params={"limit": limit})

    def label(self, *files: str | Path, labels: Sequence[str] = (), count: int = 5) -> Document:
        """Upload LoRA files and label what they draw."""
        return self._upload("label", "files", files, {"labels": labels, "count": count})

    def words(self, *files: str | Path, words: Sequence[str] = (), count: int = 10) -> Document:
        """Upload LoRA files and read the words that they were trained with from their weights.

        The first call for a family may fail with status 503 while the server reads the base model: call it again.

        Args:
            files: LoRA files.
            words: the words to choose from, in place of the usual ones.
            count: number of words for each file.
        """
        return self._upload("words", "files", files, {"words": words, "count": count})

    def inspect(self, *files: str | Path, hash: bool = False) -> Document:
        """Upload LoRA files and return the facts in them: format, ranks, trigger words, ..."""
        return self._upload("inspect", "files", files, {"hash": hash})

    def family(self, tensors: Mapping[str, Sequence[int]]) -> Document:
        """Tell the family of a base model by the shapes of its diffusion model's tensors, by name."""
        return self._get_document(
            "POST", "family", json={"tensors": {name: [*shape] for name, shape in tensors.items()}}
        )

    def index(self, *folders: str) -> Document:
        """Start to index folders of the server's machine."""
        return self._get_document("POST", "index", json={"folders": folders})

    def index_run(self) -> Document:
        """Return the state of the last indexing run."""
        return self._get_document("GET", "index")

    def stop(self) -> Document:
        """Stop the indexing run."""
        return self._get_document("DELETE", "index")

    def _upload(self, route: str, field: str, paths: Sequence[str | Path], fields: Document) -> Document:
        with ExitStack() as stack:
            try:
                files = [(field, (Path(path).name, stack.enter_context(Path(path).open("rb")))) for path in paths]
            except OSError as error:
                raise ApiError(
                    "FileMissing", f"{error.filename}: expected a file to send, found: {error.strerror}; check the path"
                ) from None
            return self._get_document("POST", route, data=without_none(fields), files=files)

    def _get_document(self, method: str, route: str, **options: Any) -> Document:
        response = self._request(method, route, **options)
        try:
            document: Document = response.json()
        except ValueError:
            raise ApiError(
                "NoDocument",
                f"{response.url}: expected a JSON document, found none; check the address",
                response.status_code,
            ) from None
        return document

    def _request(self, method: str, route: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, route, **options)
        except httpx.HTTPError as error:
            raise ApiError(
                type(error).__name__,
                f"{self._http.base_url}: expected an answer, found: {error}; check the address and the server",
            ) from None
        if response.is_success:
            return response
        try:
            reason = response.json()["error"]
            raise ApiError(reason["kind"], reason["message"], response.status_code)
        except (ValueError, KeyError, TypeError):
            advice = (
                "give the login" if response.status_code == 401 else "check the address, and that it serves with --api"
            )
            raise ApiError(
                "NoDocument",
                f"{response.url}: expected success, found status {response.status_code}; {advice}",
                response.status_code,
            ) from None


def without_none(fields: Document) -> Document:
    """Return the fields that are not None, with tuples as lists."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in fields.items() if value is not None
    }


def quote_id(id: str) -> str:
    """Quote an id so that it is one segment of a URL path, even if it holds dots or slashes."""
    return quote(id, safe="").replace(".", "%2E")
