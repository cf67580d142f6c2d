"""Sets members of a JSON object in its text; every other byte stays as it is."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

DECODER: Final = json.JSONDecoder()
WHITESPACE: Final = re.compile(r"[ \t\r\n]*")
DEFAULT_INDENT: Final = "  "  # as ComfyUI-Lora-Manager writes it


def member_spans(text: str) -> dict[str, tuple[int, int]]:
    """The start and end of the value of each member in the text of a JSON object.

    Raises:
        ValueError: the text is not a JSON object, or has a key twice.
    """
    if not isinstance(json.loads(text), dict):
        raise ValueError("it is no object")
    spans: dict[str, tuple[int, int]] = {}
    position = skip_whitespace(text, skip_whitespace(text, 0) + 1)
    while text[position] != "}":
        key, position = DECODER.raw_decode(text, position)
        start = skip_whitespace(text, skip_whitespace(text, position) + 1)
        _, end = DECODER.raw_decode(text, start)
        if key in spans:
            raise ValueError(f"the key {key[:80]!r} stands in it twice")
        spans[key] = start, end
        position = skip_whitespace(text, end)
        position = skip_whitespace(text, position + 1) if text[position] == "," else position
    return spans


def skip_whitespace(text: str, position: int) -> int:
    """The first position from ``position`` on that is not whitespace."""
    match = WHITESPACE.match(text, position)
    return match.end() if match else position


def separator_of(text: str) -> str:
    """The whitespace before the first member of an object, or before the closing brace if it is empty."""
    start = text.index("{") + 1
    return text[start : skip_whitespace(text, start)]


def indent_of(text: str) -> str:
    """One level of indentation in the text of a document."""
    return separator_of(text).rpartition("\n")[2] or DEFAULT_INDENT


def set_members(text: str, values: Mapping[str, Any], indent: str = DEFAULT_INDENT, outer: str = "\n") -> str:
    """Set members in the text of a JSON object; new ones are added at the end, laid out like the others.

    Args:
        text: the object.
        values: the members to set.
        indent: one level of indentation.
        outer: the whitespace before the object itself, where it is a member of another; a line break for a document.

    Raises:
        ValueError: the text is not a JSON object, or has a key twice.
    """
    spans = member_spans(text)
    separator = separator_of(text) if spans else outer + indent if "\n" in outer else ""
    edits = [(*spans[key], dump_value(value, separator, indent)) for key, value in values.items() if key in spans]
    added = [
        f"{json.dumps(key, ensure_ascii=False)}: {dump_value(value, separator, indent)}"
        for key, value in values.items()
        if key not in spans
    ]
    comma = f",{separator}" if "\n" in separator else ", "
    if added and spans:
        end = max(end for _, end in spans.values())
        edits.append((end, end, comma + comma.join(added)))
    elif added:
        closing = outer if separator else ""
        edits.append((text.index("{") + 1, text.rindex("}"), separator + comma.join(added) + closing))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def set_nested_members(text: str, key: str, values: Mapping[str, Any], indent: str) -> str:
    """Set members of the object that is the value of member ``key``; any other value is replaced by an object.

    Raises:
        ValueError: the text is not a JSON object, or has a key twice.
    """
    start, end = member_spans(text).get(key, (0, 0))
    if text[start:end][:1] != "{":
        return set_members(text, {key: dict(values)}, indent)
    return text[:start] + set_members(text[start:end], values, indent, separator_of(text)) + text[end:]


def dump_value(value: Any, separator: str, indent: str) -> str:
    """Write a value as JSON, on several lines if the members around it are on lines of their own."""
    if "\n" not in separator:
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, indent=indent).replace("\n", separator)
