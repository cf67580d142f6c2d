"""Members of a JSON object set in its text, so that all else stays as it was written, to the byte."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

DECODER: Final = json.JSONDecoder()
SPACE: Final = re.compile(r"[ \t\r\n]*")
STEP: Final = "  "  # of indentation, as ComfyUI-Lora-Manager has it


def members_of(text: str) -> dict[str, tuple[int, int]]:
    """Where the value of each member begins and ends in the text of a JSON object.

    Raises:
        ValueError: it is no JSON object, or a key stands in it twice.
    """
    if not isinstance(json.loads(text), dict):
        raise ValueError("it is no object")
    found: dict[str, tuple[int, int]] = {}
    at = after_space(text, after_space(text, 0) + 1)
    while text[at] != "}":
        key, at = DECODER.raw_decode(text, at)
        start = after_space(text, after_space(text, at) + 1)
        _, end = DECODER.raw_decode(text, start)
        if key in found:
            raise ValueError(f"the key {key[:80]!r} stands in it twice")
        found[key] = start, end
        at = after_space(text, end)
        at = after_space(text, at + 1) if text[at] == "," else at
    return found


def after_space(text: str, at: int) -> int:
    """The first place from ``at`` on that is no white space."""
    found = SPACE.match(text, at)
    return found.end() if found else at


def lead_of(text: str) -> str:
    """The white space before the first member of an object, or before the closing brace where it has none."""
    start = text.index("{") + 1
    return text[start : after_space(text, start)]


def step_of(text: str) -> str:
    """One step of indentation in the text of a document."""
    return lead_of(text).rpartition("\n")[2] or STEP


def with_members(text: str, values: Mapping[str, Any], step: str = STEP, outside: str = "\n") -> str:
    """The text of a JSON object with some members set; new ones come last, in the layout of the others.

    Args:
        text: of the object.
        values: of the members.
        step: of indentation.
        outside: the white space before the member that the object is the value of; a new line for the document itself.

    Raises:
        ValueError: as ``members_of``.
    """
    places = members_of(text)
    lead = lead_of(text) if places else outside + step if "\n" in outside else ""
    edits = [(*places[key], dumped(value, lead, step)) for key, value in values.items() if key in places]
    added = [
        f"{json.dumps(key, ensure_ascii=False)}: {dumped(value, lead, step)}"
        for key, value in values.items()
        if key not in places
    ]
    joined = (f",{lead}" if "\n" in lead else ", ").join(added)
    if added and places:
        end = max(end for _, end in places.values())
        edits.append((end, end, (f",{lead}" if "\n" in lead else ", ") + joined))
    elif added:
        edits.append((text.index("{") + 1, text.rindex("}"), lead + joined + (outside if lead else "")))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def with_members_within(text: str, key: str, values: Mapping[str, Any], step: str) -> str:
    """The text of a JSON object with some members set of the object that its member ``key`` is, or becomes.

    Raises:
        ValueError: as ``members_of``.
    """
    start, end = members_of(text).get(key, (0, 0))
    if text[start:end][:1] != "{":
        return with_members(text, {key: dict(values)}, step)
    return text[:start] + with_members(text[start:end], values, step, lead_of(text)) + text[end:]


def dumped(value: Any, lead: str, step: str) -> str:
    """A value as JSON, laid out as a member after ``lead`` is."""
    return (
        json.dumps(value, ensure_ascii=False, indent=step).replace("\n", lead)
        if "\n" in lead
        else json.dumps(value, ensure_ascii=False)
    )
