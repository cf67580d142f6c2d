"""Reads one file into an entry of a zoo. Every reading engine calls ``FileReader.read``.

``FileReader.local_evidence`` and ``remote_evidence`` decide what the entry rests on: a vector if an expert reads the
weights, else the metadata alone. To add a kind of evidence:

1. Name it in ``FoundBy`` (``index/model.py``), and adapt what assumes the two present kinds in the index: which models
   need a vector (``index/checks.py``, ``index/sqlite/repair.py``), and an error message (``index/entry.py``).
2. Make it here: ``local_evidence`` and ``remote_evidence`` return it in an ``Evidence``; a ``ZooEntry`` carries it.
3. Send it from Ray workers: ``part_format.py`` encodes, decodes and checks it; ``is_final`` in ``parts_folder.py``.
4. Write it to the zoo: ``IndexRun.commit`` (``ingest.py``); ``IndexAnswer`` (``answer.py``) counts files by evidence.
5. Search by it: ``Loradex.rank`` (``app/search/service.py``) gets the hits, ``fuse`` (``ranking.py``) merges them.
6. Show it: on the page ``EVIDENCE`` in ``cards.py``, ``library_tab.py`` and ``model_panel.py``; in the terminal
   ``app/commands/tables/library.py`` and the help of ``--found-by`` (``options.py``); in the API ``Indexed``
   (``responses.py``) and the descriptions in ``tools.py`` and ``tool_results.py``.

What need only be shown can be a fact of the model instead: ``loradex zoo show`` and the REST API show every fact, the
page only those in ``SHOWN_FACTS`` (``app/web/model_panel.py``).
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from loradex.app.experts.category_prediction import likely_categories, ranked_by_probability
from loradex.app.previews import preview_beside
from loradex.index import FoundBy, KnownFile, Model
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FetchError, FileError, FileUnsupported, NoExpert, NoExpertReason
from loradex.retrieval.fingerprint import Fingerprint
from loradex.retrieval.lora import WeightsFile
from loradex.retrieval.lora.facts import Facts, clean_text
from loradex.retrieval.probex.category_expert import CategoryExpert
from loradex.retrieval.remote import RemoteFolder, RemoteModel

MAX_LABELS: Final = 3  # stored with a LoRA
MIN_LABEL_PROBABILITY: Final = 0.05  # of a label that is stored
NO_EXPERT: Final = "no_expert"  # the fact that says why a model is known by metadata only
GENERIC_STEMS: Final = {"pytorch_lora_weights", "adapter_model", "diffusion_pytorch_model", "model"}


@dataclass(frozen=True, slots=True)
class ReadTask:
    """A file to read: a local one, or the only file of a remote folder. Can be pickled."""

    file: KnownFile
    remote: RemoteFolder[Any] | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was learnt from the weights: a vector and labels, or the reason why there are none.

    Attributes:
        vector: unit vector (dim,) in the space; None if no expert reads the file.
        labels: labels or categories with their probabilities, the most probable first; None if none were predicted.
        no_expert: why no expert reads the file; None if there is a vector.
    """

    vector: NDArray[np.float32] | None
    labels: list[list[Any]] | None = None
    no_expert: NoExpertReason | None = None

    @property
    def found_by(self) -> FoundBy:
        """The kind of evidence, as the zoo stores it."""
        return FoundBy.METADATA if self.vector is None else FoundBy.WEIGHTS

    @property
    def facts(self) -> dict[str, Any]:
        """The facts that the zoo stores about the evidence."""
        reason = {} if self.no_expert is None else {NO_EXPERT: str(self.no_expert)}
        return reason if self.labels is None else reason | {"labels": self.labels}


@dataclass(frozen=True, slots=True)
class ZooEntry:
    """A model as it goes into a zoo.

    Attributes:
        vector: unit vector (dim,) in the space, if an expert reads the file.
        fingerprint: of the update, for look-alikes; None for a remote file, of which only some layers are fetched.
        preview: a small PNG of the picture beside the file, if there is one.
    """

    model: Model
    vector: NDArray[np.float32] | None
    fingerprint: bytes | None = None
    preview: bytes | None = None

    @property
    def no_expert(self) -> NoExpertReason | None:
        """Why no expert reads the file; None if one does.

        None too for an entry without this fact (a Parquet part left by an older run on Ray).
        """
        reason = self.model.facts.get(NO_EXPERT)
        return None if reason is None else NoExpertReason(reason)


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The result of a task: an entry, or a refusal in one line. Can be pickled.

    Attributes:
        permanent: False for a refusal that may not last (a network error); the next run then reads the file again.
    """

    file: KnownFile
    entry: ZooEntry | None = None
    refusal: str | None = None
    permanent: bool = True


class FileReader:
    """Reads files with the experts of one encoder. Thread-safe; can be pickled."""

    def __init__(self, encoder: Encoder) -> None:
        """Load the default labels now: a worker on another machine has no access to their file."""
        self.encoder, self.signature = encoder, encoder.signature
        self.labels = encoder.default_labels if encoder.has_labels else None

    def to(self, device: str) -> "FileReader":
        """Return a copy whose experts encode on a device."""
        moved = copy(self)
        moved.encoder = self.encoder.to(device)
        return moved

    @torch.inference_mode()
    def read(self, task: ReadTask) -> ReadResult:
        """Read a file into an entry; a bad file gives a refusal, never an exception."""
        try:
            entry = self.read_remote(task.remote) if task.remote else self.read_local(task.file.path)
            return ReadResult(task.file, entry)
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

    def read_local(self, path: str) -> ZooEntry:
        """Read a file of this machine.

        Raises:
            FileError: the file cannot be used.
        """
        weights = self.encoder.router.open(path)
        fingerprint = Fingerprint.of(weights.iter_updates())
        if not fingerprint.norm:
            raise FileUnsupported(f"{path}: expected a weight update, found zeros alone; the training run did nothing")
        evidence = self.local_evidence(weights)
        facts = facts_document(str(weights.format), weights.ranks, len(weights.layers), weights.facts)
        model = Model(
            id=weights.id,
            name=display_name(weights.path),
            family=weights.family,
            found_by=evidence.found_by,
            path=str(weights.path),
            concept=concept_of(weights.header.metadata),
            facts=facts | evidence.facts,
        )
        return ZooEntry(model, evidence.vector, fingerprint.to_bytes(), preview_beside(weights.path))

    def read_remote(self, folder: RemoteFolder[Any]) -> ZooEntry:
        """Read the only file of a remote folder: its header, and the bytes that its expert needs.

        Raises:
            FileError: the file cannot be used.
            FetchError: the server does not send it.
        """
        (file,) = folder.files
        remote = folder.read(file, self.encoder)
        evidence = self.remote_evidence(remote)
        facts = facts_document(str(remote.format), remote.ranks, len(remote.layers), remote.facts)
        facts |= {"bytes_read": remote.received, "bytes": file.size}
        stem = PurePosixPath(file.name).stem
        model = Model(
            id=remote.id,
            name=folder.name.rpartition("/")[2] if stem in GENERIC_STEMS else stem,
            family=remote.family,
            found_by=evidence.found_by,
            path=file.path,
            concept=concept_of(remote.metadata),
            facts=facts | evidence.facts,
        )
        return ZooEntry(model, evidence.vector)

    def local_evidence(self, weights: WeightsFile) -> Evidence:
        """Encode a file by its weights, if an expert reads it.

        Raises:
            FileCorrupt: the weights cannot be used.
        """
        try:
            expert, layers = self.encoder.router.route(weights)
        except NoExpert as error:
            return Evidence(None, no_expert=error.reason)
        if not isinstance(expert, CategoryExpert):
            vector = expert.encode_factors(layers)[0].numpy()
            return Evidence(vector, self.predict_labels(weights.family, vector))
        probabilities = expert.probabilities(layers)
        likely = likely_categories(ranked_by_probability(expert.categories, probabilities[0].tolist()))
        labels: list[list[Any]] = [[name, round(probability, 3)] for name, probability in likely]
        return Evidence(expert.embed_probabilities(probabilities)[0].numpy(), labels)

    def remote_evidence(self, remote: RemoteModel) -> Evidence:
        """Take the vector that was encoded while a remote file was read, if an expert reads it."""
        if remote.vector is None:
            return Evidence(None, no_expert=remote.no_expert)
        vector = remote.vector.numpy()
        return Evidence(vector, self.predict_labels(remote.family, vector))

    def predict_labels(self, family: str, vector: NDArray[np.float32]) -> list[list[Any]] | None:
        """The best of the default labels with their probabilities.

        None without default labels, and unless exactly one expert reads LoRAs of the family: probabilities need the
        calibration of the expert that encoded the vector, and a vector does not say which of several did.
        """
        experts = [expert for expert in self.encoder.experts.values() if expert.family == family]
        if len(experts) != 1 or not self.labels:
            return None
        best = self.labels.best(experts[0].calibration, torch.from_numpy(vector), MAX_LABELS)
        return [
            [label.label, round(label.probability, 3)] for label in best if label.probability >= MIN_LABEL_PROBABILITY
        ]


def facts_document(format: str, ranks: Sequence[int], layers: int, facts: Facts) -> dict[str, Any]:
    """The facts that a zoo stores about a file: format, ranks, number of layers, and those of the rest not empty."""
    stored = {
        name: getattr(facts, name) for name in ("title", "base_model", "trainer", "trigger_words", "tags", "notes")
    }
    return {"format": format, "ranks": list(ranks), "layers": layers} | {
        name: value for name, value in stored.items() if value
    }


def concept_of(metadata: Mapping[str, str]) -> str | None:
    """The concept that the header of a LoRA from Model-J or the miniature names."""
    return clean_text(metadata.get("class_name"))


def display_name(path: Path) -> str:
    """The name to show for a file: its stem, or its folder's name if trainers give every file the same stem."""
    return path.parent.name if path.stem in GENERIC_STEMS else path.stem
