"""Indexes files into a zoo: scan, read what changed, write.

A reading engine reads the files; ``IndexRun`` is the only writer, and the same for every engine.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from loradex.app.bases.at_hand import families_at_hand
from loradex.app.indexing.answer import IndexAnswer
from loradex.app.indexing.batch import Batch
from loradex.app.indexing.copies import hand_over, noted
from loradex.app.indexing.evidence.preview import PreviewPlacer
from loradex.app.indexing.evidence.words import WordsEvidence
from loradex.app.indexing.file_reader import NO_FAMILY, FileReader, ReadResult, ReadTask
from loradex.app.indexing.folder_scan import FolderScan
from loradex.app.indexing.local_reading_engine import LocalReadingEngine
from loradex.app.indexing.picture_mark import marked, not_placed
from loradex.app.indexing.reading_engines import ReadingEngine
from loradex.app.indexing.recalibration import calibrate_old_positions, note_calibrated
from loradex.app.indexing.words_mark import bare_reader, with_reader
from loradex.app.pictures import PictureFinder
from loradex.app.reporting import ProgressCallback
from loradex.app.words import WordsService
from loradex.index import AnyZoo, KnownFile, ZooDamaged, open_or_create_zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FetchError
from loradex.retrieval.remote import RemoteFolder, is_remote, open_folder

BATCH: Final = 64  # files a transaction
NO_TIMES: Final[Mapping[str, int]] = {}


def index_places(
    places: Sequence[str | Path],
    zoo_folder: Path,
    encoder: Encoder,
    progress: ProgressCallback = lambda done, total, file: None,
    *,
    prune: bool = False,
    engine: ReadingEngine | None = None,
    added: Mapping[str, int] = NO_TIMES,
    words: WordsService | None = None,
) -> IndexAnswer:
    """Add the LoRAs and full models below folders and remote folders to a zoo, which is made if there is none.

    Args:
        places: folders and files of this machine, and remote folders (``hf://owner/name[@revision]``,
            ``s3://bucket/folder``). An unchanged file costs one ``stat``, and one for each of its pictures.
        zoo_folder: the zoo.
        encoder: the experts, and the space of the zoo.
        progress: called after each file.
        prune: whether to forget files that no longer exist, and models without any file left.
        engine: reads the files; by default threads of this machine.
        added: when models were first added to another zoo, by id, in seconds since 1970.
        words: reads the words that files were trained with; without it those stay that the zoo has.

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
        is_sound = True
        try:
            calibrate_old_positions(zoo, encoder, progress)
        except ZooDamaged:  # which `loradex zoo verify` names; files are read all the same
            is_sound = False
        total = len(scan.files) + sum(len(folder.files) for folder in remote_folders)
        run = IndexRun(zoo, FileReader(encoder), total, progress, added, words)
        run.answer.refused |= unlisted
        run.read_and_commit(engine, scan, remote_folders)
        run.report_missing(scan, prune)
        zoo.save_engine()
        if is_sound:
            note_calibrated(zoo, encoder)
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

    def __init__(
        self,
        zoo: AnyZoo,
        reader: FileReader,
        total: int,
        progress: ProgressCallback,
        added: Mapping[str, int],
        words: WordsService | None = None,
    ) -> None:
        """Prepare to write what ``reader`` reads of ``total`` files to ``zoo``."""
        self.zoo, self.reader, self.total, self.progress, self.added = zoo, reader, total, progress, added
        self.answer = IndexAnswer(str(zoo.folder))
        self.known_files, self.current_signatures = zoo.known_files(), reader.current_signatures()
        self.finder, self.placer = PictureFinder(), PreviewPlacer(reader.encoder)
        self.words = WordsEvidence(zoo, reader.encoder, words)

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
        self.answer.no_previews = self.placer.reason
        self.answer.waiting_for_base, self.answer.bad_bases = dict(self.words.waiting), self.words.reasons
        self.answer.with_base = families_at_hand()
        self.progress(self.answer.file_count, self.total, "")

    def tasks(self, scan: FolderScan, remote_folders: Sequence[RemoteFolder[Any]]) -> Iterator[ReadTask]:
        """Yield new and changed files, and those with new or changed pictures; the others are counted."""
        self.answer.refused |= scan.refused
        for path, (size, mtime_ns) in scan.files.items():
            pictures = self.finder.of(path)
            reader = self.current_reader(path) + self.words.expected_mark(self.known_files.get(path))
            file = marked(KnownFile(path, size, mtime_ns, reader=reader), pictures)
            if not self.count_unchanged(file):
                yield ReadTask(file, pictures=tuple(picture.path for picture in pictures))
        for folder in remote_folders:
            for listed in folder.files:
                file = KnownFile(listed.path, listed.size, listed.stamp, reader=self.current_reader(listed.path))
                if not self.count_unchanged(file):
                    yield ReadTask(file, folder.only(listed))

    def current_reader(self, path: str) -> str:
        """The reader that a file is known by, if it would read the file in the same way now; else that of this run."""
        known = self.known_files.get(path)
        reader = bare_reader(known.reader) if known else ""
        return reader if reader in self.current_signatures else self.reader.signature

    def by_family(self, result: ReadResult) -> ReadResult:
        """A result whose file is noted with the experts of its family alone: others may come and go."""
        family = result.entry.model.family if result.entry else NO_FAMILY
        return replace(result, file=with_reader(result.file, self.reader.signature_of(family)))

    def count_unchanged(self, file: KnownFile) -> bool:
        """Count a file if the same experts have read it in its present state; returns whether they have."""
        known = self.known_files.get(file.path)
        if known is None or (known.size, known.mtime_ns) != (file.size, file.mtime_ns):
            return False
        if known.reader != file.reader and (known.reader != not_placed(file).reader or self.placer.can_place()):
            return False
        if known.refusal:
            self.answer.refused[file.path] = known.refusal
        else:
            self.answer.unchanged += 1
            self.words.count_waiting(file)
        if self.answer.file_count % BATCH == 0:
            self.progress(self.answer.file_count, self.total, "")
        return True

    def commit(self, results: Sequence[ReadResult]) -> None:
        """Write the entries to the zoo in one transaction, then the states of their files."""
        results = self.words.read([self.by_family(result) for result in results], self.report_file)
        batch = Batch(self.zoo, results, self.finder, self.added)
        roles = {result.file.path: batch.add(result.file, result.entry) for result in results if result.entry}
        batch.place(self.placer, self.report_file)
        batch.write()
        read_files: list[KnownFile] = []
        for result in results:
            file, entry = result.file, result.entry
            if entry is None:
                self.answer.refused[file.path] = str(result.refusal)
                if result.permanent:
                    read_files.append(replace(file, refusal=result.refusal))
                continue
            self.answer.count(file.path, entry, batch.evidence(entry.model.id), roles[file.path])
            state = not_placed(file) if entry.pictures and self.placer.reason else file
            read_files.append(noted(state, entry))
            self.report_file(file.path)
        self.zoo.note_files(read_files, batch.gone)
        self.hand_over_changed(read_files)
        for path in batch.gone:
            self.known_files.pop(path, None)
        self.known_files |= {file.path: file for file in read_files}

    def report_file(self, file: str) -> None:
        """Report progress at a file or a model."""
        self.progress(self.answer.file_count, self.total, Path(file).name)

    def hand_over_changed(self, files: Sequence[KnownFile]) -> None:
        """Let other files give the rows of models that these files held before, and no longer hold."""
        former = {file.path: self.known_files[file.path].model_id for file in files if file.path in self.known_files}
        changed = {file.path: id for file in files if (id := former.get(file.path)) not in (None, file.model_id)}
        if changed:
            self.hand_over([id for id in changed.values() if id], changed)

    def hand_over(self, ids: Sequence[str], paths: Iterable[str]) -> None:
        """Let other files give the rows and previews that the files of some paths gave, as they were known."""
        hand_over(self.zoo, ids, [self.known_files[path] for path in paths], self.placer, self.finder)

    def replaced(self, scan: FolderScan) -> set[str]:
        """The ids of models whose last file now holds another model."""
        held = {file.model_id for file in self.known_files.values() if file.model_id}
        if len(held) == len(self.zoo):
            return set()
        paths = {
            path
            for path, file in self.known_files.items()
            if (file.model_id or path not in scan.files) and scan.covers(path)
        }
        ids = sorted(model.id for model in self.zoo.models() if model.id not in held and model.path in paths)
        files = self.zoo.files_by_model(ids)  # as they are now: others may write to a server, too
        return {id for id in ids if not files.get(id)}

    def report_missing(self, scan: FolderScan, prune: bool) -> None:
        """Report known files that the scan did not find; with ``prune`` forget them, and models without a file.

        A file that now holds another model, or cannot be read, may be put back: without ``prune`` its model stays.
        """
        missing = [path for path in self.known_files if path not in scan.files and scan.covers(path)]
        self.answer.missing = missing
        replaced = self.replaced(scan) if prune else set()
        if prune and (missing or replaced):
            missing_set = set(missing)
            ids = sorted({id for path in missing if (id := self.known_files[path].model_id) is not None})
            files = self.zoo.files_by_model(ids)
            orphans = {id for id in ids if all(file.path in missing_set for file in files.get(id, []))}
            # Models go first, with their files: if this is interrupted, the next run finds the rest again.
            self.answer.removed = self.zoo.remove(sorted(orphans | replaced))
            self.hand_over([id for id in ids if id not in orphans], missing)
            self.zoo.note_files([], missing)
