"""Folders and repositories of LoRAs -> a zoo: each file by its weights where an expert reads it, else by its metadata."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from app.answers import IndexAnswer, Progress
from app.folders import Scan
from app.pictures import keep_preview
from index import AnyZoo, FoundBy, KnownFile, Model, open_or_create_zoo
from retrieval.encoder import Encoder
from retrieval.errors import FetchError, FileError, FileUnsupported, NoExpert
from retrieval.fingerprint import Fingerprint
from retrieval.hub import HubFile, HubRepository
from retrieval.lora import WeightsFile
from retrieval.lora.facts import Facts

HUB: Final = "hf://"
BATCH: Final = 64  # files a transaction
READERS: Final = min(4, os.cpu_count() or 1)  # files read at a time
HUB_READERS: Final = 8
MOST_LABELS: Final = 3  # kept of a model
LIKELY: Final = 0.05  # least probability of a label that is kept
GENERIC_STEMS: Final = {"pytorch_lora_weights", "adapter_model", "diffusion_pytorch_model", "model"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A LoRA as a zoo takes it."""

    model: Model
    vector: NDArray[np.float32] | None
    fingerprint: bytes | None = None


Task = tuple[KnownFile, Callable[[], Entry]]


def index_places(
    places: Sequence[str | Path], zoo_folder: Path, encoder: Encoder, progress: Progress = lambda done, total, file: None, *, prune: bool = False
) -> IndexAnswer:
    """Add the LoRAs below some folders, and of repositories named ``hf://owner/name[@revision]``, to a zoo, which is made if there is none.

    Files that are unchanged cost one look. ``prune`` forgets files that are gone, and models of which no file is left.

    Raises:
        FileMissing: there is nothing to index.
        FetchError: a repository cannot be listed.
        ZooError: the zoo is locked, damaged, or bound to another space.
    """
    repositories = [HubRepository.open(str(place)) for place in places if str(place).startswith(HUB)]
    folders = [Path(place) for place in places if not str(place).startswith(HUB)]
    scan = Scan.of(folders) if folders else Scan()
    with open_or_create_zoo(zoo_folder, encoder.space.name, encoder.space.dim) as zoo:
        run = Ingestion(zoo, encoder)
        total = len(scan.files) + sum(len(repository.files) for repository in repositories)
        run.take_all(run.local_tasks(scan), READERS, total, progress)
        for repository in repositories:
            run.take_all(run.hub_tasks(repository), HUB_READERS, total, progress)
        run.note_missing(scan, prune)
        zoo.save_engine()
        return run.answer


class Ingestion:
    """One run over some files."""

    def __init__(self, zoo: AnyZoo, encoder: Encoder) -> None:
        """Write to ``zoo`` with the experts of ``encoder``."""
        self.zoo, self.encoder = zoo, encoder
        self.answer = IndexAnswer(str(zoo.folder))
        self.known = zoo.known_files()

    def local_tasks(self, scan: Scan) -> Iterator[Task | None]:
        """What is to be read of the files of some folders; None for each that is as it was."""
        self.answer.refused |= scan.refused
        for path, (size, mtime_ns) in scan.files.items():
            file = KnownFile(path, size, mtime_ns, reader=self.encoder.signature)
            yield None if self.is_unchanged(file) else (file, lambda path=path: self.read(path))  # type: ignore[misc]

    def hub_tasks(self, repository: HubRepository) -> Iterator[Task | None]:
        """What is to be read of a repository."""
        for listed in repository.files:
            file = KnownFile(listed.path, listed.size, 0, reader=self.encoder.signature)
            yield None if self.is_unchanged(file) else (file, lambda listed=listed: self.fetch(repository, listed))  # type: ignore[misc]

    def is_unchanged(self, file: KnownFile) -> bool:
        """Whether a file was read before, by what reads now, as it is; if so, that is noted."""
        known = self.known.get(file.path)
        if known is None or (known.size, known.mtime_ns, known.reader) != (file.size, file.mtime_ns, file.reader):
            return False
        if known.refusal:
            self.answer.refused[file.path] = known.refusal
        else:
            self.answer.unchanged += 1
        return True

    def take_all(self, tasks: Iterator[Task | None], readers: int, total: int, progress: Progress) -> None:
        """Read what is to be read, some files at a time, committing every ``BATCH``; a bad file is noted and never stops the run."""
        with ThreadPoolExecutor(readers) as pool:
            waiting: list[tuple[KnownFile, Future[Entry]]] = []
            try:
                while batch := list(islice(tasks, BATCH)):
                    started = [(task[0], pool.submit(task[1])) for task in batch if task]
                    self.commit(waiting, total, progress)  # while the next ones are read
                    waiting = started
                    progress(self.answer.files, total, "")
                self.commit(waiting, total, progress)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def commit(self, read: Iterable[tuple[KnownFile, Future[Entry]]], total: int, progress: Progress) -> None:
        """Add what was read, all at once, then note the files."""
        entries: dict[str, Entry] = {}
        noted, forgotten = [], []
        for file, future in read:
            try:
                entry = future.result()
            except (FileError, FetchError) as error:
                self.answer.refused[file.path] = str(error)
                if isinstance(error, FileError):  # what a hub refuses today it may send tomorrow
                    noted.append(replace(file, refusal=str(error)))
                continue
            gone = self.sort_in(file, entry, entries)
            noted.append(replace(file, model_id=entry.model.id))
            forgotten += gone
            progress(self.answer.files, total, Path(file.path).name)
        prints = {id: entry.fingerprint for id, entry in entries.items() if entry.fingerprint is not None}
        self.zoo.add([entry.model for entry in entries.values()], [entry.vector for entry in entries.values()], prints)
        self.zoo.note_files(noted, forgotten)
        for path in forgotten:
            self.known.pop(path, None)
        self.known |= {file.path: file for file in noted}

    def sort_in(self, file: KnownFile, entry: Entry, entries: dict[str, Entry]) -> list[str]:
        """Count a file as added, updated, moved or a copy; its model goes into ``entries`` unless it is a copy; paths that are gone come back."""
        id, found_by = entry.model.id, entry.model.found_by
        self.answer.understood[found_by][file.path] = entry.model.family
        others = [known.path for known in self.zoo.files_of([id]).get(id, []) if known.path != file.path]
        there = [path for path in others if path.startswith(HUB) or Path(path).exists()]
        before = self.zoo.get(id) if self.zoo.has(id) else None
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
            models = {str(self.known[path].model_id) for path in missing} - {"None"}
            self.zoo.note_files([], missing)
            left = self.zoo.files_of(sorted(models))
            self.answer.removed = self.zoo.remove(sorted(models - left.keys()))

    def read(self, path: str) -> Entry:
        """A file on this machine.

        Raises:
            FileError: it cannot be used.
        """
        model = self.encoder.router.open(path)
        fingerprint = Fingerprint.of(model.each_update())
        if not fingerprint.norm:
            raise FileUnsupported(f"{path}: expected a weight update, found zeros alone; the training run did nothing")
        vector, found_by = self.encode(model)
        facts = facts_as_json(str(model.format), model.ranks, len(model.layers), model.facts) | self.labels_of(model.family, vector)
        preview = keep_preview(model.path, model.id, self.zoo.folder)
        named = Model(model.id, name_of(model.path), model.family, found_by, str(model.path), class_of(model.header.metadata), preview, facts)
        return Entry(named, vector, fingerprint.to_bytes())

    def fetch(self, repository: HubRepository, file: HubFile) -> Entry:
        """A file of a repository, by the bytes that its expert needs.

        Raises:
            FileError: it cannot be used.
            FetchError: the hub does not send it.
        """
        found = repository.read(file, self.encoder)
        facts = facts_as_json(str(found.format), found.ranks, len(found.layers), found.facts) | {"bytes_read": found.received, "bytes": file.size}
        vector = None if found.vector is None else found.vector.numpy()
        facts |= self.labels_of(found.family, vector)
        found_by = FoundBy.METADATA if found.vector is None else FoundBy.WEIGHTS
        name = repository.name.rpartition("/")[2]
        stem = PurePosixPath(file.name).stem
        named = Model(found.id, name if stem in GENERIC_STEMS else stem, found.family, found_by, file.path, class_of(found.metadata), None, facts)
        return Entry(named, vector)

    def labels_of(self, family: str, vector: NDArray[np.float32] | None) -> dict[str, Any]:
        """The likeliest of the default labels, each with its probability, where one expert reads the family."""
        experts = [expert for expert in self.encoder.experts.values() if expert.family == family]
        if vector is None or len(experts) != 1 or not self.encoder.has_labels:
            return {}
        best = self.encoder.default_labels.best(experts[0].calibration, torch.from_numpy(vector), MOST_LABELS)
        return {"labels": [[label.label, round(label.probability, 3)] for label in best if label.probability >= LIKELY]}

    def encode(self, model: WeightsFile) -> tuple[NDArray[np.float32] | None, FoundBy]:
        """A file's vector, or None where no expert reads its family."""
        try:
            return self.encoder.encode_file(model).numpy(), FoundBy.WEIGHTS
        except NoExpert:
            return None, FoundBy.METADATA


def facts_as_json(format: str, ranks: Sequence[int], layers: int, said: Facts) -> dict[str, Any]:
    """What a zoo keeps besides name and family."""
    written = {name: getattr(said, name) for name in ("title", "base_model", "trainer", "trigger_words", "tags", "notes")}
    return {"format": format, "ranks": list(ranks), "layers": layers} | {name: value for name, value in written.items() if value}


def class_of(metadata: Mapping[str, str]) -> str | None:
    """What a LoRA of Model-J or the miniature was made for."""
    return metadata.get("class_name")


def name_of(path: Path) -> str:
    """What people call a file: its stem, or its folder where trainers give every file the same name."""
    return path.parent.name if path.stem in GENERIC_STEMS else path.stem
