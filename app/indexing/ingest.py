"""Folders and repositories of LoRAs -> a zoo. An engine reads the files; this is the one writer, and the same for every engine."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from loradex.app.indexing.answer import IndexAnswer
from loradex.app.indexing.file_reader import Engine, Entry, Outcome, Reader, Task
from loradex.app.indexing.folder_scan import Scan
from loradex.app.indexing.local_reading_engine import LocalEngine
from loradex.app.previews import keep_preview
from loradex.app.reporting import Progress
from loradex.index import AnyZoo, KnownFile, Model, open_or_create_zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FetchError
from loradex.retrieval.remote import RemoteFolder, is_remote, open_folder

BATCH: Final = 64  # files a transaction


def index_places(
    places: Sequence[str | Path],
    zoo_folder: Path,
    encoder: Encoder,
    progress: Progress = lambda done, total, file: None,
    *,
    prune: bool = False,
    engine: Engine | None = None,
) -> IndexAnswer:
    """Add the LoRAs below some folders, and of places elsewhere (``hf://owner/name[@revision]``, ``s3://bucket/folder``), to a zoo, made if there is none.

    Files that are unchanged cost one look. ``prune`` forgets files that are gone, and models of which no file is left. ``engine`` reads the files, by
    default threads of this machine.

    Raises:
        FileMissing: there is nothing to index.
        FetchError: no place elsewhere can be listed, and there is nothing else to index; one of several is noted among the refused.
        EngineError: the engine cannot be used.
        ZooError: the zoo is locked, damaged, or bound to another space.
    """
    elsewhere, unlisted = listed(
        [str(place) for place in places if is_remote(str(place))], alone=all(is_remote(str(place)) for place in places)
    )
    folders = [Path(place) for place in places if not is_remote(str(place))]
    scan = Scan.of(folders) if folders else Scan()
    engine = engine or LocalEngine()
    with open_or_create_zoo(zoo_folder, encoder.space.name, encoder.space.dim) as zoo:
        run = Ingestion(
            zoo, Reader(encoder), len(scan.files) + sum(len(folder.files) for folder in elsewhere), progress
        )
        run.answer.refused |= unlisted
        run.take_all(engine, scan, elsewhere)
        run.note_missing(scan, prune)
        zoo.save_engine()
        return run.answer


def listed(places: Sequence[str], *, alone: bool) -> tuple[list[RemoteFolder[Any]], dict[str, str]]:
    """The places elsewhere that can be listed, and why others cannot.

    Raises:
        FetchError: none can, and nothing else is to be indexed (``alone``).
    """
    found, refused = list[RemoteFolder[Any]](), dict[str, str]()
    for place in places:
        try:
            found.append(open_folder(place))
        except FetchError as error:
            refused[place] = str(error)
    if alone and refused and not found:
        raise FetchError(next(iter(refused.values())))
    return found, refused


class Ingestion:
    """One run over some files."""

    def __init__(self, zoo: AnyZoo, reader: Reader, total: int, progress: Progress) -> None:
        """Write to ``zoo`` what ``reader`` reads of ``total`` files."""
        self.zoo, self.reader, self.total, self.progress = zoo, reader, total, progress
        self.answer = IndexAnswer(str(zoo.folder))
        self.known = zoo.known_files()

    def tasks(self, scan: Scan, elsewhere: Sequence[RemoteFolder[Any]]) -> Iterator[Task]:
        """The files that are not as they were."""
        self.answer.refused |= scan.refused
        for path, (size, mtime_ns) in scan.files.items():
            file = KnownFile(path, size, mtime_ns, reader=self.reader.signature)
            if not self.is_unchanged(file):
                yield Task(file)
        for folder in elsewhere:
            for listed in folder.files:
                file = KnownFile(listed.path, listed.size, listed.stamp, reader=self.reader.signature)
                if not self.is_unchanged(file):
                    yield Task(file, folder.only(listed))

    def is_unchanged(self, file: KnownFile) -> bool:
        """Whether a file was read before, by what reads now, as it is; if so, that is noted."""
        known = self.known.get(file.path)
        if known is None or (known.size, known.mtime_ns, known.reader) != (file.size, file.mtime_ns, file.reader):
            return False
        if known.refusal:
            self.answer.refused[file.path] = known.refusal
        else:
            self.answer.unchanged += 1
        if self.answer.files % BATCH == 0:
            self.progress(self.answer.files, self.total, "")
        return True

    def take_all(self, engine: Engine, scan: Scan, elsewhere: Sequence[RemoteFolder[Any]]) -> None:
        """Have an engine read what is to be read, committing every ``BATCH``; a bad file is noted and never stops the run."""
        with closing(engine.outcomes(self.tasks(scan, elsewhere), self.reader)) as outcomes:
            while batch := list(islice(outcomes, BATCH)):
                self.commit(batch)
        engine.finish()
        self.progress(self.answer.files, self.total, "")

    def commit(self, outcomes: Sequence[Outcome]) -> None:
        """Add what was read, all at once, then note the files."""
        entries: dict[str, Entry] = {}
        noted, forgotten = [], []
        ids = list({outcome.entry.model.id for outcome in outcomes if outcome.entry})
        files, known = self.zoo.files_of(ids), self.zoo.models_of(ids)
        for outcome in outcomes:
            file, entry = outcome.file, outcome.entry
            if entry is None:
                self.answer.refused[file.path] = str(outcome.refusal)
                if outcome.noted:
                    noted.append(replace(file, refusal=outcome.refusal))
                continue
            gone = self.sort_in(file, entry, entries, files.get(entry.model.id, []), known.get(entry.model.id))
            noted.append(replace(file, model_id=entry.model.id))
            forgotten += gone
            self.progress(self.answer.files, self.total, Path(file.path).name)
        models = [
            replace(entry.model, preview=keep_preview(entry.preview, id, self.zoo.folder))
            for id, entry in entries.items()
        ]
        prints = {id: entry.fingerprint for id, entry in entries.items() if entry.fingerprint is not None}
        self.zoo.add(models, [entry.vector for entry in entries.values()], prints)
        self.zoo.note_files(noted, forgotten)
        for path in forgotten:
            self.known.pop(path, None)
        self.known |= {file.path: file for file in noted}

    def sort_in(
        self, file: KnownFile, entry: Entry, entries: dict[str, Entry], files: Sequence[KnownFile], before: Model | None
    ) -> list[str]:
        """Count a file as added, updated, moved or a copy of the model ``before``, which has other ``files``; paths that are gone come back.

        Its model goes into ``entries`` unless it is a copy.
        """
        id, found_by = entry.model.id, entry.model.found_by
        self.answer.understood[found_by][file.path] = entry.model.family
        others = [known.path for known in files if known.path != file.path]
        there = [path for path in others if is_remote(path) or Path(path).exists()]
        if id in entries or (there and before and before.path != file.path and before.found_by is found_by):
            self.answer.copies += 1
        else:
            if before is None:
                self.answer.added += 1
            elif others and not there:
                self.answer.moved += 1
            else:
                self.answer.updated += 1
            entries[id] = entry
        return [path for path in others if path not in there]

    def note_missing(self, scan: Scan, prune: bool) -> None:
        """Name the known files below the folders that are no longer there; forget them if wished, with the models that had no other file."""
        missing = [path for path in self.known if scan.covers(path) and path not in scan.files]
        self.answer.missing = missing
        if prune and missing:
            models, gone = {str(self.known[path].model_id) for path in missing} - {"None"}, set(missing)
            files = self.zoo.files_of(sorted(models))
            orphans = [id for id in sorted(models) if all(file.path in gone for file in files.get(id, []))]
            self.answer.removed = self.zoo.remove(
                orphans
            )  # first, with their files: if this is cut short, the rest is found again
            self.zoo.note_files([], missing)
