"""What is known of one LoRA here: its model in the zoo, or what the server reads from the file that is sent to it."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

from .connection import Server, Upload, model_route
from .documents import as_list, drawn, share_of, text_of, texts_of, trigger_words, words_of
from .errors import LoradexError
from .names import LoraNames, path_key

LISTED = 500  # models of one page of a folder
MAX_PAGES = 4  # of a folder; beyond, the file is sent to be told by its weights
MAX_KNOWN = 10_000

_ids: dict[tuple[str, str, int, int], str] = {}  # by server, path, size and time of the file
_lock = threading.Lock()


@dataclass(frozen=True)
class Known:
    """A LoRA: trigger words that people stated, words read from its weights, and what it draws.

    Attributes:
        reasons: why there are no words or why nothing is known of what it draws.
    """

    stated: list[str]
    words: list[tuple[str, float]]
    draws: list[tuple[str, float | None]]
    reasons: list[str]

    @property
    def trigger_words(self) -> list[str]:
        """The stated ones, else likely ones of its weights."""
        return trigger_words(self.stated, self.words)

    def lines(self) -> list[str]:
        """What is known, one thing a line."""
        return [
            *([f"trigger words: {', '.join(self.stated)}"] if self.stated else []),
            *(f"word in its weights: {word} · {probability:.0%}" for word, probability in self.words),
            *(f"draws: {label}{'' if share is None else f' · {share:.0%}'}" for label, share in self.draws),
            *self.reasons,
        ] or ["nothing is known of what it draws, and no words were read from it"]


def describe(server: Server, names: LoraNames, name: str, count: int) -> Known:
    """What is known of a LoRA.

    Args:
        server: that is asked.
        names: the LoRAs here.
        name: one of them.
        count: of words and of labels.

    Raises:
        LoradexError: the server cannot answer.
    """
    path = names.paths[name]
    try:
        model = server.get(model_route(model_id(server, path)))
    except LoradexError as error:
        if error.kind != "ModelMissing":
            raise
        return read_file(server, path, count)
    facts = model.get("facts") if isinstance(model.get("facts"), dict) else {}
    return Known(
        texts_of((facts or {}).get("trigger_words")),
        words_of(model.get("words"))[:count],
        drawn(model, facts or {})[:count],
        [],
    )


def model_id(server: Server, path: str) -> str:
    """The id of a file's model: looked up by its path, else made from its weights by the server.

    Raises:
        LoradexError: the server cannot answer, or refuses the file.
    """
    state = os.stat(path)
    key = (server.address, path, state.st_size, state.st_mtime_ns)
    with _lock:
        if key in _ids:
            return _ids[key]
    id = listed_id(server, path) or hashed_id(server, path)
    with _lock:
        if len(_ids) >= MAX_KNOWN:
            _ids.clear()
        _ids[key] = id
    return id


def listed_id(server: Server, path: str) -> str | None:
    """The id of the model whose path in the zoo this is, if the server sees the same folders."""
    own = {path_key(path), path_key(os.path.realpath(path))}
    cursor = ""
    for _ in range(MAX_PAGES):
        folder = os.path.dirname(os.path.realpath(path))
        page = server.get("models", [("folder", folder), ("limit", LISTED), ("cursor", cursor)])
        for model in as_list(page.get("models")):
            if isinstance(model, dict) and path_key(text_of(model.get("path"), None)) in own:
                return text_of(model.get("id"))
        cursor = text_of(page.get("next"))
        if not cursor:
            return None
    return None


def hashed_id(server: Server, path: str) -> str:
    """The id that the server makes from the weights of a file.

    Raises:
        LoradexError: it refuses the file, or cannot answer.
    """
    answer = server.post_form("inspect", [("hash", "true")], [as_upload(path)])
    for file in as_list(answer.get("files")):
        if isinstance(file, dict) and isinstance(file.get("id"), str):
            return file["id"]
    reasons = [text_of(each.get("reason")) for each in as_list(answer.get("refused")) if isinstance(each, dict)]
    raise LoradexError("FileRefused", "; ".join(reasons) or f"{path!r}: expected a LoRA, found none; choose another")


def read_file(server: Server, path: str, count: int) -> Known:
    """What the server reads from a file that is in no zoo.

    Raises:
        LoradexError: the server cannot answer.
    """
    inspected = only(server.post_form("inspect", (), [as_upload(path)]), "files")
    words = only(server.post_form("words", [("count", count)], [as_upload(path)]), "results")
    labels = only(server.post_form("label", [("count", count)], [as_upload(path)]), "results")
    draws = [
        (text_of(each.get("label")), share_of(each.get("probability")))
        for each in as_list(labels.get("labels"))
        if isinstance(each, dict) and not labels.get("abstained")
    ]
    reasons = [text_of(words.get("reason")), text_of(labels.get("reason"))]
    return Known(
        texts_of(inspected.get("trigger_words")),
        words_of(words.get("words"))[:count],
        draws[:count],
        [*filter(None, reasons)],
    )


def only(document: dict[str, Any], field: str) -> dict[str, Any]:
    """The only entry of a list in a document; empty if there is none."""
    entries = as_list(document.get(field))
    return entries[0] if entries and isinstance(entries[0], dict) else {}


def as_upload(path: str) -> Upload:
    """A LoRA to send."""
    return Upload("files", path, path)
