"""``loradex describe``: writes predictions and facts about LoRAs beside them, as side-cars or model cards."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from loradex.app.describe.inspection import expand_folders
from loradex.app.describe.model_cards import plan_card
from loradex.app.describe.predictions import Words
from loradex.app.describe.side_cars import plan_side_car
from loradex.app.describe.text_edit import FieldChange, PlannedEdit, apply_edit
from loradex.app.reporting import ProgressCallback, refusal_list
from loradex.app.search.answers import LabelAnswer
from loradex.app.search.service import Loradex
from loradex.app.words import WordsService
from loradex.retrieval.errors import DescriptionError, FileError
from loradex.retrieval.lora import LoraFile

MAX_LABELS: Final = 5  # a file

# By the value of --as.
PLANNERS: Final[dict[str, Callable[[LoraFile, LabelAnswer, str, Words], PlannedEdit]]] = {
    "side-car": plan_side_car,
    "card": plan_card,
}


@dataclass(frozen=True, slots=True)
class Description:
    """The changes to the side-car or card (``target``) of one LoRA."""

    file: str
    target: str
    changes: list[FieldChange]


@dataclass(frozen=True, slots=True)
class DescribeAnswer:
    """The changes for a set of files; with ``dry_run`` they were not written."""

    form: str
    dry_run: bool
    files: list[Description]
    refused: dict[str, str]

    def document(self) -> dict[str, object]:
        """The JSON of ``loradex describe --json``."""
        return {
            "as": self.form,
            "dry_run": self.dry_run,
            "files": [asdict(file) for file in self.files],
            "refused": refusal_list(self.refused),
        }


def describe_files(
    places: Sequence[Path],
    loradex: Loradex,
    form: str,
    labels: Sequence[str] | None,
    *,
    dry_run: bool,
    progress: ProgressCallback,
    words: WordsService | None = None,
) -> DescribeAnswer:
    """Describe files, and the ``.safetensors`` files below folders; a bad file is refused and does not stop the others.

    Args:
        places: files and folders.
        loradex: predicts the labels.
        form: ``side-car`` or ``card``.
        labels: the candidates; None for the default labels.
        dry_run: only return the changes, without writing them.
        progress: called after each file.
        words: reads the words that files were trained with; without it those stay that were written before.

    Raises:
        QueryError: there are too many labels.
    """
    files, refused = expand_folders(places)
    descriptions = []
    answers = loradex.label([str(path) for path in files], labels, MAX_LABELS)
    for number, (path, answer) in enumerate(zip(files, answers, strict=True), 1):
        try:
            lora = LoraFile.open(path)
            edit = PLANNERS[form](lora, answer, loradex.encoder.space.name, words_in_weights(words, lora))
            if edit.changes and not dry_run:
                apply_edit(edit, permissions_like=path)
            descriptions.append(Description(str(path), str(edit.path), edit.changes))
        except (FileError, DescriptionError) as error:
            refused[str(path)] = str(error)
        progress(number, len(files), path.name)
    return DescribeAnswer(form, dry_run, descriptions, refused)


def words_in_weights(service: WordsService | None, lora: LoraFile) -> Words:
    """The words that a file was likely trained with; None if they cannot be read."""
    found = service.read(lora) if service else None
    return found.likely if found and found.readable else None
