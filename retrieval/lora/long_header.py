"""Headers too long to be parsed at once: their metadata are read entry by entry, and what is long is kept in short.

safetensors reads headers of up to 100 MB. Those of LoRAs get long by captions in ``ss_tag_frequency`` and
``ss_datasets``. Here the bytes are checked where they lie, as strictly as safetensors does, and only what is kept is
decoded, so that a header takes little more memory than its bytes.
"""

import codecs
import json
import re
from typing import Final

from loradex.retrieval.errors import FileCorrupt, FileUnsupported
from loradex.retrieval.lora.long_metadata import SUMMARIES

MAX_ENTRIES: Final = 1_000_000  # of the metadata
MAX_KEPT_ENTRIES: Final = 10_000  # further ones are kept if their key is known
KNOWN_KEYS: Final = ("ss_", "modelspec.", "lora_adapter_metadata")  # how they begin
MAX_VALUE_BYTES: Final = 2**20  # of a key, and of a value that is kept as it is
SETTINGS_KEY: Final = "settings"  # of experts that are shared, whose settings are kept whole
MAX_KEPT_BYTES: Final = 16 * 2**20  # of all values that are kept as they are
MAX_LAYOUT_BYTES: Final = 16 * 2**20  # of what describes the tensors
BEGINNING_BYTES: Final = 2**13  # kept of a value that is longer, and has no summary
BLOCK_BYTES: Final = 2**20

# JSON as bytes. The repeats are possessive: nothing is tried twice, and nothing is remembered.
SPACE: Final = rb"[ \t\r\n]*+"
ESCAPE: Final = (
    rb'\\(?:["\\/bfnrt]|u(?:[0-9a-cA-CefEF][0-9a-fA-F]{3}|[dD](?:[0-7][0-9a-fA-F]{2}'
    rb"|[89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})))"  # no half of a surrogate pair
)
LETTERS: Final = rb'[^"\\\x00-\x1f]*+(?:' + ESCAPE + rb'[^"\\\x00-\x1f]*+)*+'
STRING: Final = rb'"' + LETTERS + rb'"'
TENSOR: Final = re.compile(
    SPACE + STRING + SPACE + rb":" + SPACE + rb'\{[^{}"]*+(?:' + STRING + rb'[^{}"]*+)*+\}' + SPACE + rb","
)
METADATA_KEY: Final = re.compile(SPACE + rb'"__metadata__"' + SPACE + rb":" + SPACE)
NULL_OR_EMPTY: Final = re.compile(rb"null|\{" + SPACE + rb"\}")
KEY: Final = SPACE + rb"(" + STRING + rb")" + SPACE + rb":" + SPACE
ENTRY: Final = re.compile(KEY + rb"(" + STRING + rb")" + SPACE + rb"([,}])")
OTHER_ENTRY: Final = re.compile(KEY + rb'[^"]')
BEGINNING: Final = re.compile(rb'"' + LETTERS)
AFTER_METADATA: Final = re.compile(SPACE + rb"(?:,(?!" + SPACE + rb"\})|(?=\}))")  # as in layout


def split_long_header(raw: memoryview) -> tuple[dict[str, str] | None, str]:
    """Split the JSON of a header into its metadata, None if there are none, and the rest.

    Long values of the metadata are kept in short: see ``shorten``.

    Raises:
        ValueError: it is not JSON.
        FileCorrupt: the metadata do not map text to text.
        FileUnsupported: there is more than any LoRA has.
    """
    start = find_metadata(raw)
    if start is None:
        return None, decode_layout(raw)
    key = METADATA_KEY.match(raw, start)
    assert key is not None
    metadata, end = read_metadata(raw, key.end())
    after = AFTER_METADATA.match(raw, end)
    if after is None:
        raise ValueError("expected a comma behind __metadata__")
    before = decode_layout(raw[:start])
    rest = decode_layout(raw[after.end() :])
    # What follows had a comma before it; what is last leaves the comma of the entry before it.
    return metadata, (before.removesuffix(",") if rest.startswith("}") else before) + rest


def find_metadata(raw: memoryview) -> int | None:
    """Find where the entry of the metadata begins; None if there is none, or no JSON before it."""
    if bytes(raw[:1]) != b"{" or not re.search(rb'"__metadata__"', raw):
        return None
    position = 1
    while METADATA_KEY.match(raw, position) is None:
        tensor = TENSOR.match(raw, position)
        if tensor is None or tensor.end() > MAX_LAYOUT_BYTES:
            return None
        position = tensor.end()
    return position


def decode_layout(raw: memoryview) -> str:
    """Decode what describes tensors."""
    if len(raw) > MAX_LAYOUT_BYTES:
        raise FileUnsupported(
            f"expected at most {MAX_LAYOUT_BYTES >> 20} MiB of names and shapes in the header, found {len(raw)} bytes; choose another file"
        )
    return str(raw, "utf-8")


def read_metadata(raw: memoryview, start: int) -> tuple[dict[str, str], int]:
    """Read the metadata that begin at a byte of the header; returns them and the byte after them.

    Raises:
        ValueError: they are not JSON.
        FileCorrupt: they do not map text to text.
        FileUnsupported: there are more than any LoRA has.
    """
    if nothing := NULL_OR_EMPTY.match(raw, start):
        return {}, nothing.end()
    if bytes(raw[start : start + 1]) != b"{":
        raise no_text()
    metadata: dict[str, str] = {}
    position, whole_bytes = start + 1, 0
    for number in range(MAX_ENTRIES):
        entry = ENTRY.match(raw, position)
        if entry is None:
            raise (
                no_text() if OTHER_ENTRY.match(raw, position) else ValueError(f"no entry of __metadata__ at {position}")
            )
        key, value = (raw[slice(*entry.span(group))] for group in (1, 2))
        if len(key) > MAX_VALUE_BYTES:
            break
        name = decode_string(key)
        if name in metadata:
            raise ValueError("a key stands twice")
        if number < MAX_KEPT_ENTRIES or name.startswith(KNOWN_KEYS):
            most = MAX_KEPT_BYTES if name == SETTINGS_KEY else MAX_VALUE_BYTES
            is_whole = len(value) <= min(most, max(MAX_KEPT_BYTES - whole_bytes, BEGINNING_BYTES))
            metadata[name] = decode_string(value) if is_whole else shorten(name, value)
            whole_bytes += len(value) if is_whole else 0
        position = entry.end()
        if entry[3] == b"}":
            check_utf8(raw[start:position])
            return metadata, position
    raise FileUnsupported(
        f"expected up to {MAX_ENTRIES} entries of metadata with keys up to {MAX_VALUE_BYTES >> 20} MiB, found more; choose another file"
    )


def no_text() -> FileCorrupt:
    """The error of metadata that do not map text to text."""
    return FileCorrupt(
        "expected text for each entry of __metadata__, found other types; save it again with safetensors"
    )


def shorten(name: str, raw: memoryview) -> str:
    """The summary of a long value of the metadata, or its beginning."""
    if name in SUMMARIES:
        return SUMMARIES[name](raw)
    beginning = BEGINNING.match(raw[:BEGINNING_BYTES])
    assert beginning is not None  # the whole was matched before
    return str(json.loads(str(beginning[0], "utf-8", "ignore") + '"'))


def decode_string(raw: memoryview) -> str:
    """Decode a JSON text with its quotes."""
    return str(json.loads(str(raw, "utf-8")))


def check_utf8(raw: memoryview) -> None:
    """Raise ValueError if bytes are not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(raw), BLOCK_BYTES):
        decoder.decode(raw[start : start + BLOCK_BYTES])
    decoder.decode(b"", final=True)
