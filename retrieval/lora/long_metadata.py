"""Long values of kohya's metadata in short: what is shown of them, read from their bytes without parsing them whole.

The value is JSON within a JSON text, as the header has it: each of its quotes stands after a backslash.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from heapq import heappush, heappushpop, nlargest
from itertools import islice
from typing import Any, Final

MAX_FOLDERS: Final = 50
MAX_READ: Final = 2_000_000  # texts of a value; a larger data set is known by its first captions
MAX_TAGS: Final = 200  # the most frequent of a folder
MAX_TAG_BYTES: Final = 2**12
MAX_SUBSETS: Final = 200

# A text of the inner JSON. Of the outer escapes \" ends it, and \\ begins an inner escape, as in \\\" and \\n.
INNER_STRING: Final = rb'\\"[^"\\]*+(?:\\(?:\\(?:\\["\\]|[^"\\])|[^"\\])[^"\\]*+)*+\\"'
# A text, and if it is a key the number behind it, or the brace of an object
TAG: Final = re.compile(rb"(" + INNER_STRING + rb")(?:\s*+:\s*+(?:(\d{1,15})(?=[\s,}])|(\{))?)?")
SUBSET_ENTRY: Final = re.compile(rb'\\"(?:class_tokens\\"\s*+:\s*+(' + INNER_STRING + rb')|is_reg\\"\s*+:\s*+true)')

Count = tuple[int, int, int, int]  # count; place, the first highest; start and end of the tag


def summarise_frequency(raw: memoryview) -> str:
    """``ss_tag_frequency`` with the most frequent tags of its first folders."""
    frequency: dict[str, dict[str, int]] = {}
    for folder, counts in tags_by_folder(raw):
        tags = frequency.setdefault(folder, {}) if folder is not None else frequency
        for count, _, start, end in nlargest(MAX_TAGS, counts):
            tag = decode_inner(raw[start:end])
            if tag is not None:
                tags[tag] = count  # type: ignore[assignment]  # of a frequency without folders
    return json.dumps(frequency)


def tags_by_folder(raw: memoryview) -> Iterator[tuple[str | None, list[Count]]]:
    """The most frequent tags of each folder; the folder None has those that stand in none."""
    folder: str | None = None
    counts: list[Count] = []
    folders = 0
    for found in islice(TAG.finditer(raw), MAX_READ):
        if found[3]:
            if counts or folder is not None:
                yield folder, counts
            folder, counts, folders = decode_inner(raw[found.start(1) : found.end(1)]) or "", [], folders + 1
            if folders > MAX_FOLDERS:
                return
        elif found[2] and found.end(1) - found.start(1) <= MAX_TAG_BYTES:
            count = (int(found[2]), -found.start(), found.start(1), found.end(1))
            (heappush if len(counts) < MAX_TAGS else heappushpop)(counts, count)
    yield folder, counts


def summarise_datasets(raw: memoryview) -> str:
    """``ss_datasets`` with the class tokens of its subsets alone."""
    subsets: list[dict[str, Any]] = []
    for found in islice(SUBSET_ENTRY.finditer(raw), MAX_READ):
        if found[1]:
            subsets.append({"class_tokens": decode_inner(raw[found.start(1) : found.end(1)])})
        elif subsets:
            subsets[-1]["is_reg"] = True  # it stands behind the class tokens
        if len(subsets) > MAX_SUBSETS:
            break
    return json.dumps([{"subsets": subsets}])


def decode_inner(raw: memoryview) -> str | None:
    """Decode a text of the inner JSON, with its quotes; None if it is too long or invalid."""
    if len(raw) > MAX_TAG_BYTES:
        return None
    try:
        text = json.loads(json.loads('"' + str(raw, "utf-8") + '"'))
    except ValueError:
        return None
    return text if isinstance(text, str) else None


SUMMARIES: Final[Mapping[str, Callable[[memoryview], str]]] = {
    "ss_tag_frequency": summarise_frequency,
    "ss_datasets": summarise_datasets,
}
