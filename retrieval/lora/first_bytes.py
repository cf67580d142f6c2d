"""What a file is that is no safetensors file, told from its first bytes: pointers, web pages, archives, pickles ...

The first bytes are only looked at: nothing is unpacked, parsed further than a few patterns, or executed.
"""

import codecs
import re
from dataclasses import dataclass
from typing import Final

from loradex.retrieval.errors import FileCorrupt, FileUnsafe

FIRST_BYTES: Final = 512  # enough for the title of a web page and the "ustar" of a tar archive
SHOWN_TEXT: Final = 80  # characters of a text that messages show
CONVERT: Final = "convert it to .safetensors first"
DOWNLOAD: Final = "download it again"
SIGNED_IN: Final = f"{DOWNLOAD}, signed in or with a token where the site asks for one"
UNPACK: Final = "unpack it, and name the .safetensors file in it"
CONTROL_CHARACTERS: Final = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
TITLE: Final = re.compile(r"<title[^>]*>\s*([^<]{1,200})", re.IGNORECASE)
JSON_MESSAGE: Final = re.compile(r'"(?:message|error|detail|error_description|msg|title)"\s*:\s*"([^"]{1,200})')
XML_MESSAGE: Final = re.compile(r"<(?:Message|Code)>\s*([^<]{1,200})", re.IGNORECASE)
LFS_SIZE: Final = re.compile(r"^size (\d{1,18})\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class OtherFile:
    """A kind of file that people meet under the name of a safetensors file.

    Attributes:
        description: what it is, in words that follow "found".
        mend: what to do about it.
        name: a short name of its kind, for callers that know a better way to mend it.
        runs_code: whether opening it could run code.
    """

    description: str
    mend: str
    name: str
    runs_code: bool = False


ZIP: Final = OtherFile("a zip archive, as torch.save writes it", CONVERT, "zip", runs_code=True)
PICKLE: Final = OtherFile("a pickle", CONVERT, "pickle", runs_code=True)
MAGIC: Final = (
    (b"PK\x03\x04", ZIP),
    (b"PK\x05\x06", ZIP),
    *((bytes([0x80, protocol]), PICKLE) for protocol in range(2, 6)),
    (b"\x1f\x8b", OtherFile("gzip data", CONVERT, "archive", runs_code=True)),
    (b"7z\xbc\xaf\x27\x1c", OtherFile("a 7z archive", UNPACK, "archive")),
    (b"Rar!\x1a\x07", OtherFile("a RAR archive", UNPACK, "archive")),
    (b"\xfd7zXZ\0", OtherFile("xz data", UNPACK, "archive")),
    (b"BZh", OtherFile("bzip2 data", UNPACK, "archive")),
    (b"\x28\xb5\x2f\xfd", OtherFile("Zstandard data", UNPACK, "archive")),
    (b"GGUF", OtherFile("GGUF, a quantised model", "name the LoRA that it was made from, as .safetensors", "gguf")),
    *(
        (magic, OtherFile("GGML, a quantised model", "name the LoRA that it was made from, as .safetensors", "gguf"))
        for magic in (b"ggjt", b"tjgg", b"lmgg", b"ggla", b"algg")
    ),
    (b"\x93NUMPY", OtherFile("an array of NumPy", CONVERT, "array")),
    (b"\x89HDF\r\n\x1a\n", OtherFile("an HDF5 file, as Keras writes it", CONVERT, "array")),
    (b"\x89PNG\r\n\x1a\n", OtherFile("a PNG picture", DOWNLOAD, "picture")),
    (b"\xff\xd8\xff", OtherFile("a JPEG picture", DOWNLOAD, "picture")),
    (b"GIF8", OtherFile("a GIF picture", DOWNLOAD, "picture")),
    (b"RIFF", OtherFile("a WebP picture or another RIFF file", DOWNLOAD, "picture")),
    (b"%PDF-", OtherFile("a PDF document", DOWNLOAD, "document")),
    (b"\x7fELF", OtherFile("a program", "delete it, and download the LoRA elsewhere", "program", runs_code=True)),
    (b"MZ\x90\0", OtherFile("a program", "delete it, and download the LoRA elsewhere", "program", runs_code=True)),
    (b"SQLite format 3\0", OtherFile("a database of SQLite", DOWNLOAD, "document")),
)


def recognise(start: bytes) -> OtherFile | None:
    """Tell what a file is by its first ``FIRST_BYTES`` bytes, or all if it has fewer; None if it cannot be told.

    Nothing that begins like a safetensors file is told to be a text: the length of its header, in eight bytes, holds
    bytes of zero.
    """
    for magic, kind in MAGIC:
        if start.startswith(magic):
            return kind
    if start[4:8] == b"ftyp":
        return OtherFile("a video", DOWNLOAD, "picture")
    if start[257:262] == b"ustar":
        return OtherFile("a tar archive", UNPACK, "archive")
    if not start:
        return OtherFile("an empty file", DOWNLOAD, "empty")
    if len(start) > 8 and not start.strip(b"\0"):
        return OtherFile("zeros at its beginning, as of a download that was never filled", DOWNLOAD, "empty")
    text = text_of(start)
    return None if text is None else recognise_text(text)


def refuse_other_file(start: bytes) -> None:
    """Refuse a file that is known to be no safetensors file, by its first bytes.

    Raises:
        FileUnsafe: opening it could run code.
        FileCorrupt: it is another kind of file.
    """
    other = recognise(start)
    if other and other.runs_code:
        raise FileUnsafe(
            f"expected safetensors, found {other.description}, which was not opened as it could run code; {other.mend}"
        )
    if other:
        raise FileCorrupt(f"expected safetensors, found {other.description}; {other.mend}")


def recognise_text(text: str) -> OtherFile:
    """Tell what a text is by its beginning."""
    lowered = text[:200].lower()
    if lowered.startswith("version https://git-lfs"):
        size = LFS_SIZE.search(text)
        of_size = f" to a file of {size[1]} bytes" if size else ""
        return OtherFile(
            f"a pointer of Git LFS{of_size} instead of the file itself", "run `git lfs pull` in its repository", "lfs"
        )
    if lowered.startswith("# xet version"):
        return OtherFile("a pointer of Xet instead of the file itself", "run `git xet pull`, or download it", "lfs")
    if lowered.startswith(("/annex/objects/", "../.git/annex/", ".git/annex/")):
        return OtherFile("a pointer of git-annex instead of the file itself", "run `git annex get` on it", "lfs")
    if lowered.startswith(("<!doctype html", "<html", "<head", "<body", "<script")):
        return OtherFile(f"a web page{quoted(TITLE, text)}", SIGNED_IN, "page")
    if lowered.startswith(("<?xml", "<error")):
        is_page = "<html" in lowered
        return OtherFile(
            f"a web page{quoted(TITLE, text)}" if is_page else f"an XML document{quoted(XML_MESSAGE, text)}",
            SIGNED_IN,
            "page",
        )
    if lowered.startswith(("{", "[")):
        return OtherFile(f"a JSON document{quoted(JSON_MESSAGE, text)}", SIGNED_IN, "json")
    line = shown(text)
    return OtherFile(f"plain text that begins with {line!r}" if line else "blank text", SIGNED_IN, "text")


def text_of(start: bytes) -> str | None:
    """The first bytes as text without white space at its beginning; None if they are no text."""
    encoding = "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(start)  # the last letter may be cut
    except UnicodeDecodeError:
        return None
    return None if CONTROL_CHARACTERS.search(text) else text.lstrip()


def quoted(pattern: re.Pattern[str], text: str) -> str:
    """What a document says of itself, in quotation marks and brackets; "" if it says nothing."""
    found = pattern.search(text)
    return f" ({shown(found[1])!r})" if found else ""


def shown(text: str) -> str:
    """The beginning of a text on one line."""
    return " ".join(text.split())[:SHOWN_TEXT].strip()


def describe_size(expected: int, found: int) -> str:
    """Why a file is not as long as its header says, and what to do: a download cut short, or something appended."""
    if found < expected:
        return (
            f"expected {expected} bytes, found {found} ({found / expected:.0%}): the download is cut short; {DOWNLOAD}"
        )
    return f"expected {expected} bytes, found {found - expected} more: something was appended; {DOWNLOAD}"
