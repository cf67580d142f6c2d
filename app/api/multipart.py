"""Reads multipart forms as they arrive: texts stay in memory, files go to a folder, and everything is bounded."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from python_multipart.multipart import MultipartParser, parse_options_header

from loradex.app.api.errors import TooLarge
from loradex.app.api.texts import bounded_line
from loradex.app.pictures import PICTURE_EXTENSIONS
from loradex.app.reporting import printable_line
from loradex.app.search.query import MAX_QUERY_PARTS
from loradex.retrieval.errors import QueryError
from loradex.retrieval.lora.weights_folder import WEIGHTS_SUFFIX

MAX_FILENAME_LENGTH: Final = 200  # characters; longer names are shortened
MAX_HEADER_BYTES: Final = 16_384
MAX_TEXT_BYTES: Final = 16_384
MAX_PARTS: Final = 20_100  # texts and files
MAX_FILE_BYTES: Final = 2**30  # of one uploaded file; also the bound of the page (``app/web/server.py``)
MAX_PICTURE_BYTES: Final = 20 * 10**6  # of one picture uploaded to the API


@dataclass(frozen=True, slots=True)
class UploadKind:
    """Which files a form may hold."""

    suffixes: tuple[str, ...]
    min_files: int
    max_files: int
    max_bytes: int  # of each file


LORA_UPLOADS: Final = UploadKind(suffixes=(WEIGHTS_SUFFIX,), min_files=1, max_files=32, max_bytes=MAX_FILE_BYTES)
PICTURE_UPLOADS: Final = UploadKind(
    suffixes=PICTURE_EXTENSIONS,
    min_files=0,
    max_files=MAX_QUERY_PARTS,
    max_bytes=MAX_PICTURE_BYTES,
)


@dataclass(slots=True)
class FormReader:
    """Receives the parts of a multipart body from a parser.

    Attributes:
        folder: where files are written, under generated names.
        file_field: the only field that may hold files.
        kind: which files it may hold.
        texts: the texts received so far, by field.
        filenames: the senders' names of the files received so far, by the paths of the written files.
        ended: whether the form is complete.
    """

    folder: Path
    file_field: str
    kind: UploadKind
    texts: dict[str, list[str]] = field(default_factory=dict)
    filenames: dict[str, str] = field(default_factory=dict)
    _header: bytes = b""
    _value: bytes = b""
    _disposition: bytes = b""
    _field: str = ""
    _text: bytearray = field(default_factory=bytearray)
    _file: IO[bytes] | None = None
    _bytes_left: int = 0
    _parts: int = 0
    ended: bool = False

    def parser(self, content_type: str) -> MultipartParser:
        """Return a parser that calls the methods below.

        Raises:
            QueryError: the body is not a multipart form.
        """
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise QueryError(
                f"body: expected multipart/form-data with a boundary, found {content_type[:80]!r}; send a form with files"
            )
        events = (
            "part_begin",
            "part_data",
            "part_end",
            "header_field",
            "header_value",
            "header_end",
            "headers_finished",
            "end",
        )
        callbacks: Any = {f"on_{event}": getattr(self, event) for event in events}
        return MultipartParser(options[b"boundary"], callbacks, max_header_size=MAX_HEADER_BYTES)

    def part_begin(self) -> None:
        """Begin a part.

        Raises:
            TooLarge: there are too many.
        """
        self._disposition, self._header, self._value, self._text = b"", b"", b"", bytearray()
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise TooLarge(f"form: expected up to {MAX_PARTS:,} fields, found more; send fewer")

    def header_field(self, data: bytes, start: int, end: int) -> None:
        """Receive a piece of a header's name."""
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        """Receive a piece of a header's value."""
        self._value += data[start:end]

    def header_end(self) -> None:
        """End a header."""
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def headers_finished(self) -> None:
        """End the headers of a part, which name its field and, for a file, its name.

        Raises:
            QueryError: a text came in place of a file.
        """
        _, options = parse_options_header(self._disposition)
        self._field = decode_text(options.get(b"name", b""))
        if b"filename" in options:
            self.begin_file(safe_filename(decode_text(options[b"filename"])))
        elif self._field == self.file_field:
            raise QueryError(f"{self.file_field}: expected an uploaded file, found a text; send the file itself")

    def begin_file(self, name: str) -> None:
        """Open a file for the part.

        Raises:
            QueryError: its field or suffix is not allowed.
            TooLarge: there are too many.
        """
        suffix = Path(name).suffix.lower()
        if self._field != self.file_field or suffix not in self.kind.suffixes:
            suffixes = ", ".join(self.kind.suffixes)
            raise QueryError(
                f"{bounded_line(self._field)[:80]} {name!r}: expected {self.file_field} named *{suffixes}, found another field or ending; send these"
            )
        if len(self.filenames) == self.kind.max_files:
            raise TooLarge(
                f"{self.file_field}: expected up to {self.kind.max_files} files, found more; send fewer at a time"
            )
        path = self.folder / f"{len(self.filenames)}{suffix}"
        self.filenames[str(path)], self._bytes_left = name, self.kind.max_bytes
        self._file = path.open("xb")

    def part_data(self, data: bytes, start: int, end: int) -> None:
        """Receive a piece of a text or file.

        Raises:
            TooLarge: the text or file is.
        """
        if self._file is None:
            self._text += data[start:end]
            if len(self._text) > MAX_TEXT_BYTES:
                raise TooLarge(
                    f"{bounded_line(self._field)[:80]}: expected up to {MAX_TEXT_BYTES} bytes of text, found more; send less"
                )
            return
        self._bytes_left -= end - start
        if self._bytes_left < 0:
            raise TooLarge(
                f"{list(self.filenames.values())[-1]!r}: expected up to {self.kind.max_bytes:,} bytes, found more; use the command line for it"
            )
        self._file.write(data[start:end])

    def part_end(self) -> None:
        """End a part."""
        if self._file is None:
            self.texts.setdefault(self._field, []).append(decode_text(bytes(self._text)))
        self.close()

    def end(self) -> None:
        """End the form."""
        self.ended = True

    def close(self) -> None:
        """Close the open file, if any."""
        if self._file is not None:
            self._file.close()
            self._file = None


def decode_text(data: bytes) -> str:
    """Decode UTF-8, replacing invalid bytes."""
    return data.decode("utf-8", "replace")


def safe_filename(name: str) -> str:
    """Return a file name without folders and control characters, shortened in the middle if it is long."""
    name = printable_line(name).replace("\\", "/").rpartition("/")[2]
    return name if len(name) <= MAX_FILENAME_LENGTH else name[: MAX_FILENAME_LENGTH - 20] + "..." + name[-17:]
