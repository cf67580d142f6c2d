"""Bytes of one file on a hub, read by HTTP ranges; nothing that the server says is taken on trust."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urlsplit

from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from loradex.retrieval.errors import FetchError

TRIES: Final = 6
PAUSE: Final = 1.0  # seconds before the second try, twice as long before each later one
LONGEST_PAUSE: Final = 300.0  # a hub's windows of rate limits are of five minutes
TIMEOUT: Final = 30.0  # seconds without a byte
BUSY: Final = (408, 425, 429, 500, 502, 503, 504)
HTTP_ERRORS: Final = cast(
    tuple[type[Exception], ...], HfHubHTTPError.__bases__
)  # the HTTPError of the client that huggingface_hub uses, and OSError
CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


class Interrupted(Exception):
    """An answer that another try may mend.

    Attributes:
        pause: seconds that the server asks to wait, if it says so.
    """

    def __init__(self, reason: str, pause: float | None = None) -> None:
        """See the attributes."""
        super().__init__(reason)
        self.pause = pause


PASSING: Final[tuple[type[Exception], ...]] = (Interrupted, *HTTP_ERRORS)


@dataclass(slots=True)
class RemoteFile:
    """One file of a hub.

    Attributes:
        name: what messages call it.
        url: where the hub resolves it.
        size: in bytes, as the hub lists it.
        headers: of every request; those that identify the user stay with the hub's own host.
        received: how many bytes of data came so far.
        place: where the last answer came from, after redirects; signed addresses serve several reads and then expire.
    """

    name: str
    url: str
    size: int
    headers: Mapping[str, str]
    received: int = 0
    place: str = ""

    def read(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to before ``end``, tried again after faults that pass.

        Raises:
            FetchError: the server does not send them.
        """
        return ask_again(self.name, start, end, self._ask)

    def _ask(self, start: int, end: int) -> bytes:
        """One try; after one that failed, the next goes to the hub again."""
        try:
            return self._request(start, end)
        except PASSING:
            self.place = ""
            raise

    def _request(self, start: int, end: int) -> bytes:
        """One request."""
        url = self.place or self.url
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() != "authorization" or host(url) == host(self.url)
        }
        headers |= {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        body = bytearray()
        with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT) as answer:
            self._check(answer, start, end)
            self.place = str(answer.url)
            for part in answer.iter_raw():
                body += part
                self.received += len(part)
                if len(body) > end - start:
                    raise FetchError(
                        f"{self.name}: expected {end - start} bytes, found more; the server does not keep to its own headers, use another"
                    )
        if len(body) != end - start:
            raise Interrupted(f"an answer that ends after {len(body)} of {end - start} bytes")
        return bytes(body)

    def _check(self, answer: Any, start: int, end: int) -> None:
        """Refuse an answer that is not the range that was asked for."""
        status = int(answer.status_code)
        if status in BUSY or (status in (401, 403) and self.place):
            raise Interrupted(f"status {status}", seconds(answer.headers.get("Retry-After")))
        whole = status == 200 and (start, end) == (0, self.size)
        if status == 200 and not whole:
            raise FetchError(
                f"{self.name}: expected a part of the file, found all of it: the server ignores Range; fetch whole files from it, or use another"
            )
        if status not in (200, 206):
            raise FetchError(
                f"{self.name}: expected status 206, found {status} at {host(self.url)}; check the repository, its revision and HF_TOKEN"
            )
        said = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        if not whole and (
            said is None or (int(said[1]), int(said[2])) != (start, end - 1) or said[3] not in ("*", str(self.size))
        ):
            found = answer.headers.get("Content-Range", "none")[:80]
            raise FetchError(
                f"{self.name}: expected Content-Range bytes {start}-{end - 1}/{self.size}, found {found!r}; the file changed, run it again"
            )
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise FetchError(
                f"{self.name}: expected plain bytes, found {answer.headers['Content-Encoding'][:40]!r}; the server re-encodes parts, use another"
            )


def ask_again(name: str, start: int, end: int, ask: Callable[[int, int], bytes]) -> bytes:
    """The bytes from ``start`` to before ``end`` of a file, asked for again after faults that pass.

    Raises:
        FetchError: they are not sent.
    """
    reason = ""
    for attempt in range(TRIES):
        try:
            return ask(start, end)
        except OfflineModeIsEnabled:
            raise FetchError(f"{name}: expected a way to the hub, found offline mode; unset HF_HUB_OFFLINE") from None
        except PASSING as error:
            reason = str(error) or type(error).__name__
            if attempt < TRIES - 1:
                asked = error.pause if isinstance(error, Interrupted) else None
                time.sleep(min(PAUSE * 2**attempt if asked is None else asked, LONGEST_PAUSE))
    raise FetchError(
        f"{name}: expected bytes {start} to {end - 1}, found after {TRIES} tries: {reason[:200]}; run it again later to go on"
    )


def host(url: str) -> tuple[str, str]:
    """Scheme and host, with its port."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def seconds(retry_after: str | None) -> float | None:
    """The header ``Retry-After`` in seconds; dates count as not said."""
    return float(retry_after) if retry_after and retry_after.strip().isdecimal() else None
