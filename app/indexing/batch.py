"""What some read files change in a zoo: which models are written, with the row of which file."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum

from loradex.app.indexing.copies import OtherFiles, with_row_of
from loradex.app.indexing.evidence.preview import PreviewPlacer, open_copy
from loradex.app.indexing.file_reader import ReadResult, ZooEntry
from loradex.app.indexing.picture_mark import has_pictures
from loradex.app.previews import store_preview
from loradex.index import AnyZoo, Evidence, Position
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

    def __init__(self, zoo: AnyZoo, results: Sequence[ReadResult]) -> None:
        """Fetch what the zoo knows of the models that were read."""
        self.zoo = zoo
        self.gone: list[str] = []
        ids = list({result.entry.model.id for result in results if result.entry})
        self._paths = {result.file.path for result in results}
        self._files, self._stored = zoo.files_by_model(ids), zoo.models_by_id(ids)
        self._entries: dict[str, ZooEntry] = {}  # to be written
        self._previews: dict[str, Position] = {}

    def add(self, path: str, entry: ZooEntry) -> Role:
        """Add what was read of a file; if another file gives the row of its model, it changes no more than it must."""
        id = entry.model.id
        others = OtherFiles.of(path, self._files.get(id, ()))
        self.gone += others.gone
        stored, pending = self._stored.get(id), self._entries.get(id)
        row = pending.model if pending else stored
        if row and row.path != path and (pending or row.path in others.present):
            if pending:
                self._entries[id] = replace(pending, pictures=pending.pictures or entry.pictures)
            elif self._says_more(entry):
                self._entries[id] = replace(entry, model=with_row_of(entry.model, row))
            return Role.COPY
        self._entries[id] = replace(entry, pictures=entry.pictures or pending.pictures) if pending else entry
        if stored is None:
            return Role.ADDED
        is_moved = stored.path in others.gone or (others.gone and not others.present)
        return Role.MOVED if is_moved else Role.UPDATED

    def place(self, placer: PreviewPlacer, progress: Callable[[str], None]) -> None:
        """Place the models by their pictures; ``progress`` is called with the name of a model now and then."""
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
        kept = self.zoo.positions_by_id([id for id in ids if self._keeps_preview(id)])
        self._previews |= {id: positions[Evidence.PREVIEW] for id, positions in kept.items()}
        models = [
            replace(
                entry.model,
                preview=store_preview(open_copy(entry.pictures[0]) if entry.pictures else None, id, self.zoo.folder),
            )
            for id, entry in self._entries.items()
        ]
        fingerprints = {id: entry.fingerprint for id, entry in self._entries.items() if entry.fingerprint is not None}
        self.zoo.add(models, [self._positions(id) for id in ids], fingerprints)

    def evidence(self, id: str) -> tuple[Evidence, ...]:
        """The kinds of evidence that a model has after ``write``."""
        return evidence_of(self._positions(id)) if id in self._entries else self._stored[id].evidence

    def _says_more(self, entry: ZooEntry) -> bool:
        """Whether a copy has evidence that its model in the zoo lacks, or lacks some by weights that is outdated."""
        evidence = set(self._stored[entry.model.id].evidence)
        return evidence - {Evidence.PREVIEW} != set(entry.positions) or bool(
            entry.pictures and Evidence.PREVIEW not in evidence
        )

    def _keeps_preview(self, id: str) -> bool:
        """Whether a model keeps its old position by previews: by those of another file, or as none can be placed."""
        stored = self._stored.get(id)
        if stored is None or Evidence.PREVIEW not in stored.evidence or id in self._previews:
            return False
        others = (file for file in self._files.get(id, ()) if file.path not in {*self._paths, *self.gone})
        return bool(self._entries[id].pictures) or any(has_pictures(file.reader) for file in others)

    def _positions(self, id: str) -> dict[Evidence, Position]:
        """All positions of a model."""
        previews = {Evidence.PREVIEW: self._previews[id]} if id in self._previews else {}
        return {**self._entries[id].positions, **previews}
