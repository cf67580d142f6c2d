"""One file -> what a zoo keeps of it: by its weights where an expert reads it, else by its metadata. Every engine calls this."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from loradex.app.experts.category_prediction import likely_first, likely_of
from loradex.app.previews import preview_beside
from loradex.index import FoundBy, KnownFile, Model
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FetchError, FileError, FileUnsupported, NoExpert
from loradex.retrieval.fingerprint import Fingerprint
from loradex.retrieval.lora import WeightsFile
from loradex.retrieval.lora.facts import Facts, text
from loradex.retrieval.probex.category_expert import CategoryExpert
from loradex.retrieval.remote import RemoteFolder

MOST_LABELS: Final = 3  # kept of a model
LIKELY: Final = 0.05  # least probability of a label that is kept
GENERIC_STEMS: Final = {"pytorch_lora_weights", "adapter_model", "diffusion_pytorch_model", "model"}


@dataclass(frozen=True, slots=True)
class Task:
    """A file to be read: one of this machine, or the only one of a folder elsewhere. It may be pickled."""

    file: KnownFile
    remote: RemoteFolder[Any] | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A LoRA as a zoo takes it; ``preview`` is a small PNG of the picture that lies beside it."""

    model: Model
    vector: NDArray[np.float32] | None
    fingerprint: bytes | None = None
    preview: bytes | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task: an entry, or a refusal in one line, which is noted unless the next run may fare better. It may be pickled."""

    file: KnownFile
    entry: Entry | None = None
    refusal: str | None = None
    noted: bool = True


class Engine(Protocol):
    """What has tasks read, somewhere."""

    def outcomes(self, tasks: Iterable[Task], reader: "Reader") -> Generator[Outcome, None, None]:
        """What became of each task, in the order of the tasks."""
        ...

    def finish(self) -> None:
        """Throw away what was kept for another run: all outcomes are in the zoo."""
        ...


class Reader:
    """Reads tasks with the experts of one encoder; several threads may, and it may be pickled."""

    def __init__(self, encoder: Encoder) -> None:
        """Take the default labels along, which a worker elsewhere could not load."""
        self.encoder, self.signature = encoder, encoder.signature
        self.labels = encoder.default_labels if encoder.has_labels else None

    def on(self, device: str) -> "Reader":
        """The same, with experts that encode on a device."""
        moved = copy(self)
        moved.encoder = self.encoder.on(device)
        return moved

    @torch.inference_mode()
    def read(self, task: Task) -> Outcome:
        """What becomes of a task; a bad file is refused and never stops the run."""
        try:
            return Outcome(task.file, self.fetch(task.remote) if task.remote else self.open(task.file.path))
        except (FileError, FetchError) as error:
            return Outcome(
                task.file, refusal=str(error), noted=isinstance(error, FileError)
            )  # what a hub refuses today it may send tomorrow
        except Exception as error:
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return Outcome(
                task.file,
                refusal=f"{task.file.path}: expected to read it, found an error of Loradex itself, {found}; report it",
                noted=False,
            )

    def open(self, path: str) -> Entry:
        """A file on this machine.

        Raises:
            FileError: it cannot be used.
        """
        model = self.encoder.router.open(path)
        fingerprint = Fingerprint.of(model.each_update())
        if not fingerprint.norm:
            raise FileUnsupported(f"{path}: expected a weight update, found zeros alone; the training run did nothing")
        vector, found_by, labels = self.encode(model)
        facts = facts_as_json(str(model.format), model.ranks, len(model.layers), model.facts) | labels
        named = Model(
            model.id,
            name_of(model.path),
            model.family,
            found_by,
            str(model.path),
            class_of(model.header.metadata),
            None,
            facts,
        )
        return Entry(named, vector, fingerprint.to_bytes(), preview_beside(model.path))

    def fetch(self, folder: RemoteFolder[Any]) -> Entry:
        """The only file of a folder elsewhere, by the bytes that its expert needs.

        Raises:
            FileError: it cannot be used.
            FetchError: it is not sent.
        """
        (file,) = folder.files
        found = folder.read(file, self.encoder)
        facts = facts_as_json(str(found.format), found.ranks, len(found.layers), found.facts) | {
            "bytes_read": found.received,
            "bytes": file.size,
        }
        vector = None if found.vector is None else found.vector.numpy()
        facts |= self.labels_of(found.family, vector)
        found_by = FoundBy.METADATA if found.vector is None else FoundBy.WEIGHTS
        stem = PurePosixPath(file.name).stem
        name = folder.name.rpartition("/")[2] if stem in GENERIC_STEMS else stem
        return Entry(
            Model(found.id, name, found.family, found_by, file.path, class_of(found.metadata), None, facts), vector
        )

    def labels_of(self, family: str, vector: NDArray[np.float32] | None) -> dict[str, Any]:
        """The likeliest of the default labels, each with its probability, where one expert reads the family."""
        experts = [expert for expert in self.encoder.experts.values() if expert.family == family]
        if vector is None or len(experts) != 1 or not self.labels:
            return {}
        best = self.labels.best(experts[0].calibration, torch.from_numpy(vector), MOST_LABELS)
        return {"labels": [[label.label, round(label.probability, 3)] for label in best if label.probability >= LIKELY]}

    def encode(self, model: WeightsFile) -> tuple[NDArray[np.float32] | None, FoundBy, dict[str, Any]]:
        """A file's vector, or None where no expert reads its family, and its labels: of a model that tells categories apart, all that are likely."""
        try:
            expert, layers = self.encoder.router.route(model)
        except NoExpert:
            return None, FoundBy.METADATA, {}
        if not isinstance(expert, CategoryExpert):
            vector = expert.encode_factors(layers)[0].numpy()
            return vector, FoundBy.WEIGHTS, self.labels_of(model.family, vector)
        probabilities = expert.probabilities(layers)
        likely = likely_of(likely_first(expert.categories, probabilities[0].tolist()))
        return (
            expert.place(probabilities)[0].numpy(),
            FoundBy.WEIGHTS,
            {"labels": [[name, round(probability, 3)] for name, probability in likely]},
        )


def facts_as_json(format: str, ranks: Sequence[int], layers: int, said: Facts) -> dict[str, Any]:
    """What a zoo keeps besides name and family."""
    written = {
        name: getattr(said, name) for name in ("title", "base_model", "trainer", "trigger_words", "tags", "notes")
    }
    return {"format": format, "ranks": list(ranks), "layers": layers} | {
        name: value for name, value in written.items() if value
    }


def class_of(metadata: Mapping[str, str]) -> str | None:
    """What a LoRA of Model-J or the miniature was made for."""
    return text(metadata.get("class_name"))


def name_of(path: Path) -> str:
    """What people call a file: its stem, or its folder where trainers give every file the same name."""
    return path.parent.name if path.stem in GENERIC_STEMS else path.stem
