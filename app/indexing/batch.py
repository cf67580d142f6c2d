"""What some read files change in a zoo: which models are written, with the row of which file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

import numpy as np

from loradex.app.indexing.copies import OtherFiles, with_row_of
from loradex.app.indexing.evidence.preview import PreviewPlacer, open_copy
from loradex.app.indexing.file_reader import ReadResult, ZooEntry
from loradex.app.indexing.model_pictures import pictures_of_model
from loradex.app.indexing.picture_mark import has_pictures
from loradex.app.pictures import PictureFinder
from loradex.app.previews import store_preview
from loradex.index import AnyZoo, Evidence, KnownFile, Position
from loradex.index.evidence import evidence_of

PICTURES_AT_A_TIME = 64  # encoded together


class Role(StrEnum):
    """What a read file is to the zoo."""

    ADDED = "added"  # a new model
    UPDATED = "updated"  # read again
    MOVED = "moved"
    COPY = "copy"  # of a file that is there


class Batch:
    """The files of one transaction.

    Attributes:
        gone: paths of known files that no longer exist.
    """

    def __init__(
        self, zoo: AnyZoo, results: Sequence[ReadResult], finder: PictureFinder, added: Mapping[str, int]
    ) -> None:
        """Fetch what the zoo knows of the models that were read.

        Args:
            zoo: the zoo.
            results: what was read.
            finder: finds the pictures of other files of these models.
            added: when models were first added, by id, in seconds since 1970; the others are added now.
        """
        self.zoo, self._finder, self._added = zoo, finder, added
        self.gone: list[str] = []
        self._read: dict[str, dict[str, ReadResult]] = {}  # by id, then by path
        for result in results:
            if result.entry:
                self._read.setdefault(result.entry.model.id, {})[result.file.path] = result
        ids = list(self._read)
        self._paths = {result.file.path for result in results}
        self._files, self._stored = zoo.files_by_model(ids), zoo.models_by_id(ids)
        self._positions_before = zoo.positions_by_id(ids)
        self._entries: dict[str, ZooEntry] = {}  # to be written
        self._previews: dict[str, Position] = {}

    def add(self, file: KnownFile, entry: ZooEntry) -> Role:
        """Add what was read of a file; if another file gives the row of its model, it changes no more than it must."""
        path, id = file.path, entry.model.id
        others = OtherFiles.of(path, self._files.get(id, ()))
        self.gone += others.gone
        stored, pending = self._stored.get(id), self._entries.get(id)
        row = pending.model if pending else stored
        if row and row.path != path and (pending or row.path in others.present):
            if not pending and (others.gone or self._says_more(file, entry)):
                self._entries[id] = replace(entry, model=with_row_of(entry.model, row))
            return Role.COPY
        self._entries[id] = entry
        if stored is None:
            return Role.ADDED
        is_moved = stored.path in others.gone or (others.gone and not others.present)
        return Role.MOVED if is_moved else Role.UPDATED

    def place(self, placer: PreviewPlacer, progress: Callable[[str], None]) -> None:
        """Place the models by their pictures; ``progress`` is called with the name of a model now and then."""
        self._entries = {id: replace(entry, pictures=self._pictures(id)) for id, entry in self._entries.items()}
        waiting: list[str] = []
        count = 0
        with_pictures = [id for id, entry in self._entries.items() if entry.pictures]
        for id in with_pictures:
            waiting.append(id)
            count += len(self._entries[id].pictures)
            if count >= PICTURES_AT_A_TIME or id == with_pictures[-1]:
                pictures = [[open_copy(copy) for copy in self._entries[each].pictures] for each in waiting]
                placed = placer.place(pictures)
                self._previews |= {each: position for each, position in zip(waiting, placed, strict=True) if position}
                progress(self._entries[id].model.name)
                waiting, count = [], 0

    def write(self) -> None:
        """Write the models to the zoo, in one transaction.

        Raises:
            ZooError: the zoo cannot be written.
        """
        ids = list(self._entries)
        self._previews |= {id: self._positions_before[id][Evidence.PREVIEW] for id in ids if self._keeps_preview(id)}
        models = [
            replace(
                entry.model,
                added=self._added.get(id),
                preview=store_preview(open_copy(entry.pictures[0]) if entry.pictures else None, id, self.zoo.folder),
            )
            for id, entry in self._entries.items()
        ]
        fingerprints = {id: entry.fingerprint for id, entry in self._entries.items() if entry.fingerprint is not None}
        self.zoo.add(models, [self._positions(id) for id in ids], fingerprints)

    def evidence(self, id: str) -> tuple[Evidence, ...]:
        """The kinds of evidence that a model has after ``write``."""
        return evidence_of(self._positions(id)) if id in self._entries else self._stored[id].evidence

    def _says_more(self, file: KnownFile, entry: ZooEntry) -> bool:
        """Whether a copy has other evidence than its model in the zoo, or had other pictures when it was read last."""
        id = entry.model.id
        before = dict(self._positions_before.get(id, {}))
        if before.pop(Evidence.PREVIEW, None) is None and entry.pictures:
            return True
        if any(known.path == file.path and known.reader != file.reader for known in self._files.get(id, ())):
            return True
        return before.keys() != entry.positions.keys() or not all(
            is_same(before[kind], position) for kind, position in entry.positions.items()
        )

    def _pictures(self, id: str) -> tuple[bytes, ...]:
        """The pictures that place a model, with those of its files that were not read now."""
        read = self._read[id]
        pictures = {path: result.entry.pictures for path, result in read.items() if result.entry}
        files = [*self._unread_files(id), *(result.file for result in read.values())]
        return pictures_of_model(self._entries[id].model.path, files, self._finder, pictures)

    def _keeps_preview(self, id: str) -> bool:
        """Whether a model keeps its old position by previews: by those of another file, or as none can be placed."""
        stored = self._stored.get(id)
        if stored is None or Evidence.PREVIEW not in stored.evidence or id in self._previews:
            return False
        return bool(self._entries[id].pictures) or any(has_pictures(file.reader) for file in self._unread_files(id))

    def _unread_files(self, id: str) -> list[KnownFile]:
        """The known files of a model that were not read now, and are there as far as is known."""
        paths = self._paths.union(self.gone)
        return [file for file in self._files.get(id, ()) if file.path not in paths]

    def _positions(self, id: str) -> dict[Evidence, Position]:
        """All positions of a model."""
        previews = {Evidence.PREVIEW: self._previews[id]} if id in self._previews else {}
        return {**self._entries[id].positions, **previews}


def is_same(position: Position, other: Position) -> bool:
    """Whether two positions differ by no more than two machines do."""
    numbers, others = ([*each.vector, each.scale, each.bias] for each in (position, other))
    return np.allclose(numbers, others, rtol=1e-4, atol=1e-5)
