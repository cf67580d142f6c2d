"""Texts and lists of words as people and programs write them, cleaned and cut to a bound."""

import json
import re
from collections.abc import Iterable
from html import unescape
from typing import Any, Final

MAX_TEXT_LENGTH: Final = 200  # characters of a word or a title
MAX_NOTES_LENGTH: Final = 2000
MAX_WORDS: Final = 50
MAX_RAW_LENGTH: Final = 2**16  # characters of a text that are looked at
# Sequences for terminals; controls; marks of direction or without width. U+200D stays, which joins emoji.
ESCAPE_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)")
INVISIBLE: Final = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)
LINE_BREAK: Final = re.compile(r"[\n\r\x0b\x0c\x85\u2028\u2029]+")
BETWEEN_WORDS: Final = re.compile(r"[,，、\n\r\x0b\x0c\x85\u2028\u2029]+")  # the Chinese ones too
LORA_OF_A_PROMPT: Final = re.compile(r"<(?:lora|lyco):[^<>]*>", re.IGNORECASE)
PARAGRAPH: Final = re.compile(r"<(?:br|/?p|/?div|/?li|/?ul|/?ol|/?h[1-6]|/?tr)\b[^<>]*>", re.IGNORECASE)
TAG: Final = re.compile(
    r"</?(?:a|b|i|u|s|em|strong|span|code|pre|img|blockquote|table|tbody|thead|td|th|hr|sub|sup|font|script|style|iframe|video|source)"
    r"\b[^<>]*>",
    re.IGNORECASE,
)


def clean_text(value: Any, max_length: int = MAX_TEXT_LENGTH) -> str | None:
    """A text on one line and cut to a bound; None if ``value`` is no text, empty, or kohya's word "None".

    Halves of surrogate pairs become question marks; controls and marks of direction are left out.
    """
    if not isinstance(value, str):
        return None
    text = value.strip()[: 4 * max_length]
    if not text.isprintable():
        text = " ".join(without_invisible(text).split())
    text = text[:max_length].strip()
    return None if text in ("", "None") else text.encode(errors="replace").decode()


def clean_notes(value: Any) -> str | None:
    """A text of several lines, without HTML; None as for ``clean_text``."""
    if not isinstance(value, str):
        return None
    text = without_invisible(value[:MAX_RAW_LENGTH])
    if "<" in text:
        text = unescape(TAG.sub("", PARAGRAPH.sub("\n", text)))
        text = without_invisible(text)  # what stood in it as &#8238;
    lines = (" ".join(line.split()) for line in LINE_BREAK.split(text))
    text = "\n".join(filter(None, lines))[:MAX_NOTES_LENGTH].strip()
    return None if text in ("", "None") else text.encode(errors="replace").decode()


def without_invisible(text: str) -> str:
    """A text without sequences for terminals, controls and marks of direction; line breaks and tabs stay."""
    return INVISIBLE.sub("", ESCAPE_SEQUENCE.sub("", text))


def split_words(value: Any) -> tuple[str, ...]:
    """The words of a text with commas or line breaks, or of a list, whose items only line breaks split.

    A list may stand as JSON in a text. Of a list of objects, their names are taken.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = as_list(value) or value
    if isinstance(value, str):
        parts: list[Any] = BETWEEN_WORDS.split(value[:MAX_RAW_LENGTH])
    elif isinstance(value, list):
        names = (
            item.get("name") or item.get("word") if isinstance(item, dict) else item for item in value[: 4 * MAX_WORDS]
        )
        parts = [part for name in names if isinstance(name, str) for part in LINE_BREAK.split(name[:MAX_RAW_LENGTH])]
    else:
        return ()
    cleaned = (clean_text(LORA_OF_A_PROMPT.sub("", part) if "<" in part else part) for part in parts[: 4 * MAX_WORDS])
    return unique_words(word for word in cleaned if word)


def unique_words(words: Iterable[str]) -> tuple[str, ...]:
    """The first ``MAX_WORDS`` different words."""
    return tuple(dict.fromkeys(words))[:MAX_WORDS]


def parse_json(value: Any) -> Any:
    """The value of a JSON text, None if it is invalid; other values as they are."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return None


def as_object(value: Any) -> dict[str, Any]:
    """A JSON object, given as such or as text; empty for other values."""
    parsed = parse_json(value)
    return parsed if isinstance(parsed, dict) else {}


def as_list(value: Any) -> list[Any]:
    """A JSON list, given as such or as text; empty for other values."""
    parsed = parse_json(value)
    return parsed if isinstance(parsed, list) else []
