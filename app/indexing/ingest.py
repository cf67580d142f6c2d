"""Indexes files into a zoo: scan, read what changed, write.

A reading engine reads the files; ``IndexRun`` is the only writer, and the same for every engine.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from loradex.app.indexing.answer import IndexAnswer
from loradex.app.indexing.file_reader import FileReader, ReadResult, ReadTask, ZooEntry
from loradex.app.indexing.folder_scan import FolderScan
from loradex.app.indexing.local_reading_engine import LocalReadingEngine
from loradex.app.indexing.reading_engines import ReadingEngine
from loradex.app.previews import store_preview
from loradex.app.reporting import ProgressCallback
from loradex.index import AnyZoo, KnownFile, Model, open_or_create_zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FetchError
from loradex.retrieval.remote import RemoteFolder, is_remote, open_folder

BATCH: Final = 64  # files a transaction


def index_places(
    places: Sequence[str | Path],
    zoo_folder: Path,
    encoder: Encoder,
    progress: ProgressCallback = lambda done, total, file: None,
    *,
    prune: bool = False,
    engine: ReadingEngine | None = None,
) -> IndexAnswer:
    """Add the LoRAs and full models below folders and remote folders to a zoo, which is made if there is none.

    Args:
        places: folders and files of this machine, and remote folders (``hf://owner/name[@revision]``,
            ``s3://bucket/folder``). An unchanged file costs one ``stat``.
        zoo_folder: the zoo.
        encoder: the experts, and the space of the zoo.
        progress: called after each file.
        prune: whether to forget files that no longer exist, and models without any file left.
        engine: reads the files; by default threads of this machine.

    Raises:
        FileMissing: there is nothing to index.
        FetchError: no remote folder can be listed and no local place was given; otherwise it is added to ``refused``.
        EngineError: the reading engine cannot be used.
        ZooError: the zoo is locked, damaged, or bound to another space.
    """
    remote_places = [str(place) for place in places if is_remote(str(place))]
    local_places = [Path(place) for place in places if not is_remote(str(place))]
    remote_folders, unlisted = list_remote_folders(remote_places, required=not local_places)
    scan = FolderScan.of(local_places) if local_places else FolderScan()
    engine = engine or LocalReadingEngine()
    with open_or_create_zoo(zoo_folder, encoder.space.name, encoder.space.dim) as zoo:
        total = len(scan.files) + sum(len(folder.files) for folder in remote_folders)
        run = IndexRun(zoo, FileReader(encoder), total, progress)
        run.answer.refused |= unlisted
        run.read_and_commit(engine, scan, remote_folders)
        run.report_missing(scan, prune)
        zoo.save_engine()
        return run.answer


def list_remote_folders(places: Sequence[str], *, required: bool) -> tuple[list[RemoteFolder[Any]], dict[str, str]]:
    """List remote folders; returns those that can be listed, and the reason for each other one.

    Raises:
        FetchError: none can be listed, and ``required`` is set.
    """
    folders, refused = list[RemoteFolder[Any]](), dict[str, str]()
    for place in places:
        try:
            folders.append(open_folder(place))
        except FetchError as error:
            refused[place] = str(error)
    if required and refused and not folders:
        raise FetchError(next(iter(refused.values())))
    return folders, refused


class IndexRun:
    """One run of indexing into one zoo."""

    def __init__(self, zoo: AnyZoo, reader: FileReader, total: int, progress: ProgressCallback) -> None:
        """Prepare to write what ``reader`` reads of ``total`` files to ``zoo``."""
        self.zoo, self.reader, self.total, self.progress = zoo, reader, total, progress
        self.answer = IndexAnswer(str(zoo.folder))
        self.known_files = zoo.known_files()

    def read_and_commit(
        self, engine: ReadingEngine, scan: FolderScan, remote_folders: Sequence[RemoteFolder[Any]]
    ) -> None:
        """Read new and changed files and commit each ``BATCH`` of them.

        Raises:
            EngineError: the reading engine cannot be used.
        """
        with closing(engine.read_files(self.tasks(scan, remote_folders), self.reader)) as results:
            while batch := list(islice(results, BATCH)):
                self.commit(batch)
        engine.finish()
        self.progress(self.answer.file_count, self.total, "")

    def tasks(self, scan: FolderScan, remote_folders: Sequence[RemoteFolder[Any]]) -> Iterator[ReadTask]:
        """Yield new and changed files; the others are counted."""
        self.answer.refused |= scan.refused
        for path, (size, mtime_ns) in scan.files.items():
            file = KnownFile(path, size, mtime_ns, reader=self.reader.signature)
            if not self.count_unchanged(file):
                yield ReadTask(file)
        for folder in remote_folders:
            for listed in folder.files:
                file = KnownFile(listed.path, listed.size, listed.stamp, reader=self.reader.signature)
                if not self.count_unchanged(file):
                    yield ReadTask(file, folder.only(listed))

    def count_unchanged(self, file: KnownFile) -> bool:
        """Count a file if the same experts have read it in its present state; returns whether they have."""
        known = self.known_files.get(file.path)
        if known is None or (known.size, known.mtime_ns, known.reader) != (file.size, file.mtime_ns, file.reader):
            return False
        if known.refusal:
            self.answer.refused[file.path] = known.refusal
        else:
            self.answer.unchanged += 1
        if self.answer.file_count % BATCH == 0:
            self.progress(self.answer.file_count, self.total, "")
        return True

    def commit(self, results: Sequence[ReadResult]) -> None:
        """Write the entries to the zoo in one transaction, then the states of their files."""
        entries: dict[str, ZooEntry] = {}
        read_files: list[KnownFile] = []
        vanished: list[str] = []
        ids = list({result.entry.model.id for result in results if result.entry})
        stored_files, stored_models = self.zoo.files_by_model(ids), self.zoo.models_by_id(ids)
        for result in results:
            file, entry = result.file, result.entry
            if entry is None:
                self.answer.refused[file.path] = str(result.refusal)
                if result.permanent:
                    read_files.append(replace(file, refusal=result.refusal))
                continue
            id = entry.model.id
            vanished += self.count_entry(file, entry, entries, stored_files.get(id, []), stored_models.get(id))
            read_files.append(replace(file, model_id=id))
            self.progress(self.answer.file_count, self.total, Path(file.path).name)
        models = [
            replace(entry.model, preview=store_preview(entry.preview, id, self.zoo.folder))
            for id, entry in entries.items()
        ]
        fingerprints = {id: entry.fingerprint for id, entry in entries.items() if entry.fingerprint is not None}
        self.zoo.add(models, [entry.vector for entry in entries.values()], fingerprints)
        self.zoo.note_files(read_files, vanished)
        for path in vanished:
            self.known_files.pop(path, None)
        self.known_files |= {file.path: file for file in read_files}

    def count_entry(
        self,
        file: KnownFile,
        entry: ZooEntry,
        entries: dict[str, ZooEntry],
        stored_files: Sequence[KnownFile],
        stored: Model | None,
    ) -> list[str]:
        """Count a file as added, updated, moved or a copy; unless it is a copy, put its entry into ``entries``.

        Args:
            file: the file that was read.
            entry: what was read.
            entries: the entries to write, by id.
            stored_files: the files of the same model that the zoo knows.
            stored: the model with the same id in the zoo, if there is one.

        Returns:
            Paths of ``stored_files`` that no longer exist.
        """
        id, found_by = entry.model.id, entry.model.found_by
        self.answer.understood[found_by][file.path] = entry.model.family
        if entry.no_expert is not None:
            self.answer.no_expert[file.path] = entry.no_expert
        other_paths = [known.path for known in stored_files if known.path != file.path]
        existing = [path for path in other_paths if is_remote(path) or Path(path).exists()]
        if id in entries or (existing and stored and stored.path != file.path and stored.found_by is found_by):
            self.answer.copies += 1
        else:
            if stored is None:
                self.answer.added += 1
            elif other_paths and not existing:
                self.answer.moved += 1
            else:
                self.answer.updated += 1
            entries[id] = entry
        return [path for path in other_paths if path not in existing]

    def report_missing(self, scan: FolderScan, prune: bool) -> None:
        """Report known files that the scan did not find; with ``prune`` forget them, and models without a file."""
        missing = [path for path in self.known_files if scan.covers(path) and path not in scan.files]
        self.answer.missing = missing
        if prune and missing:
            missing_set = set(missing)
            ids = sorted({id for path in missing if (id := self.known_files[path].model_id) is not None})
            files = self.zoo.files_by_model(ids)
            orphans = [id for id in ids if all(file.path in missing_set for file in files.get(id, []))]
            # Models go first, with their files: if this is interrupted, the next run finds the rest again.
            self.answer.removed = self.zoo.remove(orphans)
            self.zoo.note_files([], missing)
