"""Multipart forms, piece by piece: texts stay in memory, files go to a folder, and all has a bound while it comes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from python_multipart.multipart import MultipartParser, parse_options_header

from loradex.app.api.errors import TooLarge
from loradex.app.api.texts import one_line, printable
from loradex.app.indexing.folder_scan import ENDING
from loradex.app.previews import PICTURES
from loradex.app.search.query import MOST_PARTS
from loradex.retrieval.errors import QueryError

LONGEST_NAME: Final = 200  # characters of a file's name that are kept
LARGEST_HEADER: Final = 16_384  # bytes
LARGEST_FIELD: Final = 16_384  # bytes of a text
MOST_FIELDS: Final = 20_100


@dataclass(frozen=True, slots=True)
class Kind:
    """What is taken as one field's uploads."""

    endings: tuple[str, ...]
    least: int
    most: int
    largest: int  # bytes


LORAS: Final = Kind((ENDING,), 1, 32, 2**30)
DRAWINGS: Final = Kind(tuple(ending for ending in PICTURES if ending.count(".") == 1), 0, MOST_PARTS, 20 * 10**6)


@dataclass(slots=True)
class FormReader:
    """Takes a multipart body piece by piece; texts stay in memory, files go to a folder under names of our own."""

    folder: Path
    upload: str  # the one field that takes files
    kind: Kind
    texts: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    _header: bytes = b""
    _value: bytes = b""
    _disposition: bytes = b""
    _field: str = ""
    _text: bytearray = field(default_factory=bytearray)
    _file: IO[bytes] | None = None
    _left: int = 0
    _fields: int = 0
    ended: bool = False

    def parser(self, content_type: str) -> MultipartParser:
        """What calls the methods below.

        Raises:
            QueryError: the body is no multipart form.
        """
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise QueryError(
                f"body: expected multipart/form-data with a boundary, found {content_type[:80]!r}; send a form with files"
            )
        names = (
            "part_begin",
            "part_data",
            "part_end",
            "header_field",
            "header_value",
            "header_end",
            "headers_finished",
            "end",
        )
        calls: Any = {f"on_{name}": getattr(self, name) for name in names}
        return MultipartParser(options[b"boundary"], calls, max_header_size=LARGEST_HEADER)

    def part_begin(self) -> None:
        """A part begins."""
        self._disposition, self._header, self._value, self._text = b"", b"", b"", bytearray()
        self._fields += 1
        if self._fields > MOST_FIELDS:
            raise TooLarge(f"form: expected up to {MOST_FIELDS:,} fields, found more; send fewer")

    def header_field(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's name."""
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        """A piece of its value."""
        self._value += data[start:end]

    def header_end(self) -> None:
        """A header is whole."""
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def headers_finished(self) -> None:
        """The part's name, and the file's, are known."""
        _, options = parse_options_header(self._disposition)
        self._field = text_of(options.get(b"name", b""))
        if b"filename" in options:
            self.begin_file(bare_name(text_of(options[b"filename"])))
        elif self._field == self.upload:
            raise QueryError(f"{self.upload}: expected an uploaded file, found a text; send the file itself")

    def begin_file(self, name: str) -> None:
        """A file comes.

        Raises:
            QueryError: it is not of the kind that is taken.
            TooLarge: there are too many.
        """
        ending = Path(name).suffix.lower()
        if self._field != self.upload or ending not in self.kind.endings:
            endings = ", ".join(self.kind.endings)
            raise QueryError(
                f"{one_line(self._field)[:80]} {name!r}: expected {self.upload} named *{endings}, found another field or ending; send these"
            )
        if len(self.names) == self.kind.most:
            raise TooLarge(f"{self.upload}: expected up to {self.kind.most} files, found more; send fewer at a time")
        path = self.folder / f"{len(self.names)}{ending}"
        self.names[str(path)], self._left = name, self.kind.largest
        self._file = path.open("xb")

    def part_data(self, data: bytes, start: int, end: int) -> None:
        """A piece of a text or file."""
        if self._file is None:
            self._text += data[start:end]
            if len(self._text) > LARGEST_FIELD:
                raise TooLarge(
                    f"{one_line(self._field)[:80]}: expected up to {LARGEST_FIELD} bytes of text, found more; send less"
                )
            return
        self._left -= end - start
        if self._left < 0:
            raise TooLarge(
                f"{list(self.names.values())[-1]!r}: expected up to {self.kind.largest:,} bytes, found more; use the command line for it"
            )
        self._file.write(data[start:end])

    def part_end(self) -> None:
        """A text or file is whole."""
        if self._file is None:
            self.texts.setdefault(self._field, []).append(text_of(bytes(self._text)))
        self.close()

    def end(self) -> None:
        """The form is whole."""
        self.ended = True

    def close(self) -> None:
        """Close the file that was being written."""
        if self._file is not None:
            self._file.close()
            self._file = None


def text_of(data: bytes) -> str:
    """Bytes as text, whatever they are."""
    return data.decode("utf-8", "replace")


def bare_name(name: str) -> str:
    """A file's name without folders, harmless wherever it is shown."""
    bare = printable(name).replace("\\", "/").rpartition("/")[2]
    return bare if len(bare) <= LONGEST_NAME else bare[: LONGEST_NAME - 20] + "..." + bare[-17:]
