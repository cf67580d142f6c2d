"""Byte ranges of a remote file, read over HTTP, and the retries that all readers share.

Nothing that a server sends is trusted.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from loradex.retrieval.errors import FetchError

TRIES: Final = 6
PAUSE: Final = 1.0  # seconds before the second try, twice as long before each later one
MAX_PAUSE: Final = 300.0  # seconds; a hub's rate limits are for windows of five minutes
TIMEOUT: Final = 30.0  # seconds without a byte
RETRY_STATUSES: Final = (408, 425, 429, 500, 502, 503, 504)
# OSError, and the HTTPError of the client that huggingface_hub uses
HTTP_ERRORS: Final = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)
CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


class RangeReader(Protocol):
    """Reads byte ranges of one file.

    Attributes:
        name: the file as error messages name it.
        size: of the file, in bytes.
        received: how many bytes came so far.
    """

    name: str
    size: int
    received: int

    def read(self, start: int, end: int) -> bytes:
        """Read the bytes from ``start`` to before ``end``.

        Raises:
            FetchError: they are not sent.
        """
        ...


class Interrupted(Exception):
    """A fault that may pass; the request is repeated.

    Attributes:
        pause: seconds that the server asks to wait, if it does.
    """

    def __init__(self, reason: str, pause: float | None = None) -> None:
        """See the attributes."""
        super().__init__(reason)
        self.pause = pause


PASSING_ERRORS: Final[tuple[type[Exception], ...]] = (Interrupted, *HTTP_ERRORS)


@dataclass(slots=True)
class HttpFile:
    """A file of a hub, read over HTTP.

    Attributes:
        name: the file as error messages name it.
        url: from which the hub redirects to the file.
        size: in bytes, as the hub lists it.
        headers: of every request; those that identify the user are sent to the hub's own host only.
        received: how many bytes of data came so far.
        final_url: where the last answer came from, after redirects; a signed address serves several reads until it
            expires.
    """

    name: str
    url: str
    size: int
    headers: Mapping[str, str]
    received: int = 0
    final_url: str = ""

    def read(self, start: int, end: int) -> bytes:
        """Read the bytes from ``start`` to before ``end``; faults that may pass are retried.

        Raises:
            FetchError: the server does not send them.
        """
        return read_with_retries(self.name, start, end, self._try)

    def _try(self, start: int, end: int) -> bytes:
        """One try; after a failed one, the next goes to the hub again."""
        try:
            return self._request(start, end)
        except PASSING_ERRORS:
            self.final_url = ""
            raise

    def _request(self, start: int, end: int) -> bytes:
        """One request."""
        url = self.final_url or self.url
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() != "authorization" or origin(url) == origin(self.url)
        }
        headers |= {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        body = bytearray()
        with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT) as response:
            self._check(response, start, end)
            self.final_url = str(response.url)
            for part in response.iter_raw():
                body += part
                self.received += len(part)
                if len(body) > end - start:
                    raise FetchError(
                        f"{self.name}: expected {end - start} bytes, found more; the server does not keep to its own headers, use another"
                    )
        if len(body) != end - start:
            raise Interrupted(f"an answer that ends after {len(body)} of {end - start} bytes")
        return bytes(body)

    def _check(self, response: Any, start: int, end: int) -> None:
        """Refuse a response that is not the requested range."""
        status = int(response.status_code)
        if status in RETRY_STATUSES or (status in (401, 403) and self.final_url):
            raise Interrupted(f"status {status}", parse_retry_after(response.headers.get("Retry-After")))
        whole_file = status == 200 and (start, end) == (0, self.size)
        if status == 200 and not whole_file:
            raise FetchError(
                f"{self.name}: expected a part of the file, found all of it: the server ignores Range; fetch whole files from it, or use another"
            )
        if status not in (200, 206):
            raise FetchError(
                f"{self.name}: expected status 206, found {status} at {origin(self.url)}; check the repository, its revision and HF_TOKEN"
            )
        content_range = response.headers.get("Content-Range", "none")
        if not whole_file and not self._is_range(content_range, start, end):
            raise FetchError(
                f"{self.name}: expected Content-Range bytes {start}-{end - 1}/{self.size}, found {content_range[:80]!r}; the file changed, run it again"
            )
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise FetchError(
                f"{self.name}: expected plain bytes, found {response.headers['Content-Encoding'][:40]!r}; the server re-encodes parts, use another"
            )

    def _is_range(self, content_range: str, start: int, end: int) -> bool:
        """Whether the header ``Content-Range`` names these bytes of a file of this size."""
        parsed = CONTENT_RANGE.fullmatch(content_range.strip())
        if parsed is None:
            return False
        return (int(parsed[1]), int(parsed[2])) == (start, end - 1) and parsed[3] in ("*", str(self.size))


def read_with_retries(name: str, start: int, end: int, read: Callable[[int, int], bytes]) -> bytes:
    """Read the bytes from ``start`` to before ``end`` of a file, again after faults that may pass.

    Raises:
        FetchError: they are not sent.
    """
    reason = ""
    for attempt in range(TRIES):
        try:
            return read(start, end)
        except OfflineModeIsEnabled:
            raise FetchError(f"{name}: expected a way to the hub, found offline mode; unset HF_HUB_OFFLINE") from None
        except PASSING_ERRORS as error:
            reason = str(error) or type(error).__name__
            if attempt < TRIES - 1:
                requested = error.pause if isinstance(error, Interrupted) else None
                time.sleep(min(PAUSE * 2**attempt if requested is None else requested, MAX_PAUSE))
    raise FetchError(
        f"{name}: expected bytes {start} to {end - 1}, found after {TRIES} tries: {reason[:200]}; run it again later to go on"
    )


def origin(url: str) -> tuple[str, str]:
    """Scheme and host of an address, with the port."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def parse_retry_after(retry_after: str | None) -> float | None:
    """The seconds of the header ``Retry-After``; None if it is missing or a date."""
    return float(retry_after) if retry_after and retry_after.strip().isdecimal() else None
