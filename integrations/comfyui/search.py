"""Searches: the hits of a query, each with the name that loaders take, its trigger words and a line about it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from .connection import Query, Server, Upload, model_route
from .documents import MAX_TEXT, as_list, drawn, number_of, share_of, text_of, texts_of, trigger_words, words_of
from .errors import LoradexError
from .names import LoraNames

PAGE = 24  # hits of a request; each is looked up
MAX_FILES = 100  # of one model
LOOKUP_SECONDS = 5.0  # for one model; a hit can do without
MAX_SECONDS = 30.0  # after which a search for hits that are here asks for no further page

_lookups = ThreadPoolExecutor(8, "loradex-lookup")


@dataclass(frozen=True)
class Found:
    """One hit.

    Attributes:
        file: its name as loaders take it; None if it is not in ComfyUI's folders.
        place: the path of its file on the server's machine.
        score: log-odds that it draws what the query says; None where its name alone carries the hit.
        stated: trigger words that stand in its file or side-cars.
        words: words read from its weights, with their probabilities.
        draws: what it draws, with probabilities; None where those are not known.
    """

    id: str
    name: str
    has_drawing: bool
    family: str
    file: str | None
    place: str
    score: float | None
    probability: float | None
    found_by: str
    stated: list[str]
    words: list[tuple[str, float]]
    draws: list[tuple[str, float | None]]

    @property
    def trigger_words(self) -> list[str]:
        """The stated ones, else likely ones of its weights."""
        return trigger_words(self.stated, self.words)

    def document(self) -> dict[str, Any]:
        """The hit as the sidebar shows it."""
        return {**asdict(self), "trigger_words": self.trigger_words}

    def line(self, number: int) -> str:
        """The hit as one line of a list."""
        share = "" if self.probability is None else f" · {self.probability:.0%}"
        words = f" · {', '.join(self.trigger_words[:3])}" if self.trigger_words else ""
        return f"{number}. {self.file or self.name}{share}{words}"


@dataclass(frozen=True)
class Page:
    """Hits, best first, and the offset of the next page; None on the last."""

    hits: list[Found]
    next: int | None


def search(server: Server, names: LoraNames, query: Query, pictures: Sequence[bytes] = ()) -> Page:
    """One page of hits.

    Args:
        server: that is asked.
        names: the LoRAs here.
        query: fields of the search, with its limit.
        pictures: PNGs that hits should be like.

    Raises:
        LoradexError: the server cannot answer.
    """
    fields = list(query)
    if pictures:
        uploads = [Upload("picture", f"{number}.png", picture) for number, picture in enumerate(pictures)]
        document = server.post_form("search", fields, uploads)
    else:
        document = server.get("search", fields)
    hits = [hit for hit in as_list(document.get("hits")) if isinstance(hit, dict) and isinstance(hit.get("id"), str)]
    following = document.get("next")
    looked_up = list(_lookups.map(lambda hit: look_up(server, names, hit), hits[:PAGE]))
    return Page(looked_up, following if isinstance(following, int) else None)


def look_up(server: Server, names: LoraNames, hit: dict[str, Any]) -> Found:
    """A hit with what the zoo knows of its model; with what the hit says alone if that cannot be read."""
    try:
        model = server.get(model_route(hit["id"]), seconds=LOOKUP_SECONDS)
    except LoradexError:
        model = {}
    return found(names, hit, model)


def found(names: LoraNames, hit: dict[str, Any], model: dict[str, Any]) -> Found:
    """A hit by its documents; what is not as expected is left out."""
    files = [file for file in as_list(model.get("files"))[:MAX_FILES] if isinstance(file, dict)]
    facts = model.get("facts") if isinstance(model.get("facts"), dict) else {}
    place = text_of(hit.get("place") or hit.get("path"), None)
    return Found(
        id=hit["id"][:MAX_TEXT],
        name=text_of(hit.get("name")) or "unnamed",
        has_drawing=isinstance(model.get("preview"), str),
        family=text_of(hit.get("family")) or "unknown",
        file=file_of(names, [place, text_of(hit.get("path"), None)], hit, files),
        place=place,
        score=number_of(hit.get("score")),
        probability=share_of(hit.get("probability")),
        found_by=text_of(hit.get("found_by")),
        stated=texts_of((facts or {}).get("trigger_words")),
        words=words_of(hit.get("words")),
        draws=drawn(hit, facts or {}),
    )


def file_of(names: LoraNames, paths: Sequence[str], hit: dict[str, Any], files: Sequence[dict[str, Any]]) -> str | None:
    """The name of a model here: by its paths, by those of all files with the same weights, then by name and size."""
    copies = [text_of(copy.get("path"), None) for copy in as_list(hit.get("copies")) if isinstance(copy, dict)]
    same_weights = [text_of(file.get("path"), None) for file in files]
    if name := names.of_paths([path for path in [*paths, *same_weights, *copies] if path]):
        return name
    sizes = {text_of(file.get("path"), None): file["size"] for file in files if isinstance(file.get("size"), int)}
    tails = (names.of_tail(path, sizes.get(path)) for path in dict.fromkeys([*sizes, *paths]) if path)
    return next((name for name in tails if name), None)


def installed(
    server: Server, names: LoraNames, query: Sequence[tuple[str, object]], pictures: Sequence[bytes], pages: int
) -> Iterator[Found]:
    """The hits that are in ComfyUI's folders, of the first pages of a search; a page is asked for when it is needed.

    Raises:
        LoradexError: as ``search``.
    """
    offset, start = 0, time.monotonic()
    for _ in range(pages):
        page = search(server, names, [*query, ("limit", PAGE), ("offset", offset)], pictures)
        yield from (hit for hit in page.hits if hit.file)
        if page.next is None or page.next <= offset or time.monotonic() - start > MAX_SECONDS:
            return
        offset = page.next
