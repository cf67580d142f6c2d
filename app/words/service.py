"""Reads the words of files, each with the text encoder of its base model, which is loaded when it is first needed."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Final

from loradex.app.bases import Bases, NoBase
from loradex.app.bases.registry import read_registry
from loradex.app.paths import user_cache_dir
from loradex.app.words.file_words import FileWords
from loradex.retrieval.base_model import BaseModel
from loradex.retrieval.errors import CheckpointError, FileError, NoWords, NoWordsReason
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.family import UNKNOWN
from loradex.retrieval.words import READABLE_FAMILIES, Candidates, WordReader

MAX_READERS: Final = 2  # in memory: each holds a text encoder and the states of some 20,000 words
MORE_LIKELY: Final = 0.5


class WordsService:
    """The readers of words, by base model; several threads may use it.

    Attributes:
        bases: as they were when this was made. A family that has none is looked up again, as it may be added meanwhile.
        progress: called with the number of words that a text encoder has read, and that of all, while one is loaded.
    """

    def __init__(self, bases: Bases, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Nothing is loaded yet."""
        self.bases, self.progress = bases, progress
        self._opened: dict[str, BaseModel] = {}  # by family
        self._readers: OrderedDict[str, WordReader] = OrderedDict()  # by fingerprint, the one used last at the end
        self._candidates: tuple[str, tuple[str, ...], Candidates] | None = (
            None  # of which reader; words; those used last
        )
        self._lock = Lock()

    def read(
        self,
        lora: LoraFile,
        k: int = 10,
        candidates: Sequence[str] = (),
        spell: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> FileWords:
        """Read the words of a file, or the reason why none can be read.

        Args:
            lora: the file.
            k: the number of words.
            candidates: among which they are looked for, in place of the usual ones.
            spell: also look for words that are no candidates, token by token; takes long.
            progress: called with steps done and steps in all, while words are spelt.

        Raises:
            QueryError: there are too many candidates, or one cannot be encoded.
        """
        file = str(lora.path)
        try:
            reader = self.reader(lora.family)
        except (NoBase, NoWords) as error:
            return FileWords(file, lora.family, False, f"{file}: {error}")
        encoded = self._encoded(reader, tuple(candidates)) if candidates else None
        try:
            reading = reader.read(lora, k, encoded, spell, progress)
        except (NoWords, FileError) as error:
            return FileWords(file, lora.family, False, str(error))
        says_nothing = reading.nothing >= MORE_LIKELY
        reason = f"there are no words to be read, with a probability of {reading.nothing:.0%}" if says_nothing else None
        return FileWords(file, lora.family, True, reason, tuple(reading.words), reading.nothing)

    def read_path(
        self,
        path: Path,
        k: int = 10,
        candidates: Sequence[str] = (),
        spell: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> FileWords:
        """Open a file and read its words, or the reason why none can be read.

        Args:
            path: of the file.
            k: as ``read``, like the others.
            candidates: as ``read``.
            spell: as ``read``.
            progress: as ``read``.

        Raises:
            QueryError: as ``read``.
        """
        try:
            lora = LoraFile.open(path)
        except FileError as error:
            return FileWords(str(path), UNKNOWN, False, str(error))
        return self.read(lora, k, candidates, spell, progress)

    def reader(self, family: str) -> WordReader:
        """The reader of a family, loaded if it is not in memory.

        Raises:
            NoWords: words of this family cannot be read.
            NoBase: no base model of it is named, or that one cannot be used.
        """
        base = self.base(family)
        with self._lock:
            if base.fingerprint not in self._readers:
                while len(self._readers) >= MAX_READERS:  # before, so that memory is free
                    self._readers.popitem(last=False)
                self._readers[base.fingerprint] = self._load(base)
            self._readers.move_to_end(base.fingerprint)
            return self._readers[base.fingerprint]

    def base(self, family: str) -> BaseModel:
        """The base model of a family; only its headers are read.

        Raises:
            NoWords, NoBase: as ``reader``.
        """
        if family not in READABLE_FAMILIES:
            readable = ", ".join(sorted(READABLE_FAMILIES))
            raise NoWords(
                f"expected a LoRA of a family whose words can be read ({readable}), found {family}; "
                "`loradex label` names what it draws if an expert reads it",
                NoWordsReason.FAMILY,
            )
        if family not in self._opened:
            self.bases = replace(self.bases, entries=tuple(read_registry()))
            try:
                self._opened[family] = self.bases.get(family)
            except FileError as error:
                raise NoBase(f"base model of {family}: {error}") from None
        return self._opened[family]

    def _load(self, base: BaseModel) -> WordReader:
        """Load a reader; states of words are kept in the person's cache.

        Raises:
            NoBase: the base model cannot be used.
        """
        try:
            return WordReader.load(base, user_cache_dir() / "words", self.progress)
        except (FileError, CheckpointError) as error:
            self._opened.pop(base.family, None)  # it may be mended meanwhile
            raise NoBase(f"base model of {base.family}: {error}") from None

    def _encoded(self, reader: WordReader, words: tuple[str, ...]) -> Candidates:
        """A person's own candidates, whose states are made once for many files.

        Raises:
            QueryError: there are too many, or one cannot be encoded.
        """
        with self._lock:
            if self._candidates is None or self._candidates[:2] != (reader.fingerprint, words):
                self._candidates = reader.fingerprint, words, reader.candidates(words, self.progress)
            return self._candidates[2]
