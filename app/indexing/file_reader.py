"""Reads one file into an entry of a zoo. Every reading engine calls ``FileReader.read``.

To add a kind of evidence that is read from weights:

1. Name it in ``Evidence``, with its code in ``CODES`` (``index/evidence.py``): stores, filters, search, the Parquet
   parts of Ray workers and the answer of ``loradex index`` know it by that.
2. Make it in a file beside ``evidence/picture.py``, listed in ``evidence/kinds.py``; its scale in
   ``evidence/positions.py``. If it needs what workers lack, make it where the zoo is written, as ``evidence/words.py``.
3. Name it for people: on the page ``EVIDENCE`` in ``app/web/cards.py``, in the terminal
   ``app/commands/tables/library.py`` and the help of ``--found-by`` (``app/commands/options.py``).

What need only be shown can be a fact of the model instead: ``loradex zoo show`` and the REST API show every fact, the
page only those in ``SHOWN_FACTS`` (``app/web/model_panel.py``).
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

import torch

from loradex.app.indexing.evidence.finding import Finding
from loradex.app.indexing.evidence.kinds import FROM_WEIGHTS
from loradex.app.indexing.evidence.preview import small_copies
from loradex.app.models import NO_EXPERT
from loradex.index import Evidence, KnownFile, Model, Position
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FetchError, FileError, FileMissing, FileUnsupported, NoExpertReason
from loradex.retrieval.fingerprint import Fingerprint
from loradex.retrieval.lora.facts import Facts, clean_text
from loradex.retrieval.lora.family import UNKNOWN
from loradex.retrieval.probex.checkpoint_checks import FAMILIES
from loradex.retrieval.remote import RemoteFolder

READER_VERSION: Final = 4  # to be raised when the same experts make another entry of the same file
NO_FAMILY: Final = ""  # of a file that cannot be read
OWN_WORDS: Final = ("title", "base_model", "trainer", "trigger_words", "tags", "notes")  # facts that a file states
GENERIC_STEMS: Final = {"pytorch_lora_weights", "adapter_model", "diffusion_pytorch_model", "model"}


@dataclass(frozen=True, slots=True)
class ReadTask:
    """A file to read: a local one, or the only file of a remote folder. Can be pickled.

    Attributes:
        pictures: paths of the pictures beside a local file, the likeliest first.
    """

    file: KnownFile
    remote: RemoteFolder[Any] | None = None
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ZooEntry:
    """A model as it goes into a zoo.

    Attributes:
        positions: by each kind of evidence that its weights give.
        fingerprint: of the update, for look-alikes; None for a remote file, of which only some layers are fetched.
        pictures: small copies of the pictures beside the file, which place it where the zoo is written
            (``evidence/preview.py``).
        bad_pictures: why pictures beside the file cannot be used, by path.
    """

    model: Model
    positions: Mapping[Evidence, Position] = field(default_factory=dict)
    fingerprint: bytes | None = None
    pictures: tuple[bytes, ...] = ()
    bad_pictures: Mapping[str, str] = field(default_factory=dict)

    @property
    def no_expert(self) -> NoExpertReason | None:
        """Why no expert reads the file; None if one does."""
        reason = self.model.facts.get(NO_EXPERT)
        return None if reason is None else NoExpertReason(reason)


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The result of a task: an entry, or a refusal in one line. Can be pickled.

    Attributes:
        permanent: False for a refusal that may not last (a network error, access rights); the next run then reads the
            file again.
    """

    file: KnownFile
    entry: ZooEntry | None = None
    refusal: str | None = None
    permanent: bool = True


class FileReader:
    """Reads files with the experts of one encoder. Thread-safe; can be pickled."""

    def __init__(self, encoder: Encoder) -> None:
        """Load labels and everyday texts now: a worker on another machine has no access to their files."""
        self.encoder, self.signature = encoder, f"{encoder.signature}-{READER_VERSION}"
        if encoder.has_labels:
            encoder.default_labels  # noqa: B018
        encoder.everyday_texts  # noqa: B018

    def signature_of(self, family: str) -> str:
        """What a zoo notes of a file of a family: it changes with the experts of that family, and with this code."""
        return f"{self.encoder.signature_of(family)}-{READER_VERSION}"

    def current_signatures(self) -> frozenset[str]:
        """The signatures of files that need not be read again; those of any family, and that of earlier Loradexes."""
        experts = (*self.encoder.experts.values(), *self.encoder.categories.values())
        families = {*FAMILIES, *(expert.family for expert in experts), UNKNOWN, NO_FAMILY}
        return frozenset({self.signature, *map(self.signature_of, families)})

    def to(self, device: str) -> "FileReader":
        """Return a copy whose experts encode on a device."""
        moved = copy(self)
        moved.encoder = self.encoder.to(device)
        return moved

    @torch.inference_mode()
    def read(self, task: ReadTask) -> ReadResult:
        """Read a file into an entry; a bad file gives a refusal, never an exception."""
        try:
            entry = self.read_remote(task.remote) if task.remote else self.read_local(task.file.path, task.pictures)
            return ReadResult(task.file, entry)
        except FileMissing as error:  # of access rights, which may change while size and time do not
            return ReadResult(task.file, refusal=str(error), permanent=False)
        except FileError as error:
            return ReadResult(task.file, refusal=str(error))
        except FetchError as error:
            return ReadResult(task.file, refusal=str(error), permanent=False)
        except Exception as error:
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return ReadResult(
                task.file,
                refusal=f"{task.file.path}: expected to read it, found an error of Loradex itself, {found}; report it",
                permanent=False,
            )

    def read_local(self, path: str, pictures: Sequence[str] = ()) -> ZooEntry:
        """Read a file of this machine, and the pictures beside it.

        Raises:
            FileError: the file cannot be used.
        """
        weights = self.encoder.router.open(path)
        fingerprint = Fingerprint.of(weights.iter_updates())
        if not fingerprint.norm:
            raise FileUnsupported(f"{path}: expected a weight update, found zeros alone; the training run did nothing")
        findings = {kind: evidence.read_local(self.encoder, weights) for kind, evidence in FROM_WEIGHTS.items()}
        facts = facts_document(str(weights.format), weights.ranks, len(weights.layers), weights.facts)
        model = Model(
            id=weights.id,
            name=display_name(weights.path),
            family=weights.family,
            path=str(weights.path),
            concept=concept_of(weights.header.metadata),
            facts=facts | facts_of(findings),
        )
        copies, bad_pictures = small_copies(pictures)
        return ZooEntry(model, positions_of(findings), fingerprint.to_bytes(), copies, bad_pictures)

    def read_remote(self, folder: RemoteFolder[Any]) -> ZooEntry:
        """Read the only file of a remote folder: its header, and the bytes that its expert needs.

        Raises:
            FileError: the file cannot be used.
            FetchError: the server does not send it.
        """
        (file,) = folder.files
        remote = folder.read(file, self.encoder)
        findings = {kind: evidence.read_remote(self.encoder, remote) for kind, evidence in FROM_WEIGHTS.items()}
        facts = facts_document(str(remote.format), remote.ranks, len(remote.layers), remote.facts)
        facts |= {"bytes_read": remote.received, "bytes": file.size}
        stem = PurePosixPath(file.name).stem
        model = Model(
            id=remote.id,
            name=folder.name.rpartition("/")[2] if stem in GENERIC_STEMS else stem,
            family=remote.family,
            path=file.path,
            concept=concept_of(remote.metadata),
            facts=facts | facts_of(findings),
        )
        return ZooEntry(model, positions_of(findings))


def positions_of(findings: Mapping[Evidence, Finding]) -> dict[Evidence, Position]:
    """The positions among some findings."""
    return {kind: finding.position for kind, finding in findings.items() if finding.position is not None}


def facts_of(findings: Mapping[Evidence, Finding]) -> dict[str, Any]:
    """The facts of all findings."""
    return {name: value for finding in findings.values() for name, value in finding.facts.items()}


def facts_document(format: str, ranks: Sequence[int], layers: int, facts: Facts) -> dict[str, Any]:
    """The facts that a zoo stores about a file: format, ranks, number of layers, and those of the rest not empty."""
    stored = {name: getattr(facts, name) for name in OWN_WORDS}
    return {"format": format, "ranks": list(ranks), "layers": layers} | {
        name: value for name, value in stored.items() if value
    }


def concept_of(metadata: Mapping[str, str]) -> str | None:
    """The concept that the header of a LoRA from Model-J or the miniature names."""
    return clean_text(metadata.get("class_name"))


def display_name(path: Path) -> str:
    """The name to show for a file: its stem, or its folder's name if trainers give every file the same stem."""
    return path.parent.name if path.stem in GENERIC_STEMS else path.stem
