"""``loradex describe``: what was found about LoRAs, written beside them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from loradex.app.describe.inspection import files_of
from loradex.app.describe.model_cards import plan_card
from loradex.app.describe.side_cars import plan_side_car
from loradex.app.describe.text_edit import FieldChange, Plan, carry_out
from loradex.app.reporting import Progress, reasons
from loradex.app.search.answers import LabelAnswer
from loradex.app.search.service import Loradex
from loradex.retrieval.errors import DescriptionError, FileError
from loradex.retrieval.lora import LoraFile

LABELS: Final = 5  # a file


PLANS: Final[dict[str, Callable[[LoraFile, LabelAnswer, str], Plan]]] = {"side-car": plan_side_car, "card": plan_card}


@dataclass(frozen=True, slots=True)
class Description:
    """What was written about one file, and where."""

    file: str
    target: str
    changes: list[FieldChange]


@dataclass(frozen=True, slots=True)
class DescribeAnswer:
    """What was written about some files; nothing was in a dry run."""

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
            "refused": reasons(self.refused),
        }


def describe_files(
    places: Sequence[Path],
    loradex: Loradex,
    form: str,
    labels: Sequence[str] | None,
    *,
    dry_run: bool,
    progress: Progress,
) -> DescribeAnswer:
    """Write what was found about each file, and about each ``.safetensors`` file below each folder; a bad one never stops the others.

    Args:
        places: files and folders.
        loradex: what reads the weights.
        form: where it is written, ``side-car`` or ``card``.
        labels: the candidates, or None for the default ones.
        dry_run: whether only to say what would change.
        progress: told of every file.

    Raises:
        QueryError: there are too many labels.
    """
    files, refused = files_of(places)
    described = []
    answers = loradex.label([str(path) for path in files], labels, LABELS)
    for number, (path, answer) in enumerate(zip(files, answers, strict=True), 1):
        try:
            lora = LoraFile.open(path)
            plan = PLANS[form](lora, answer, loradex.encoder.space.name)
            if plan.changes and not dry_run:
                carry_out(plan, path)
            described.append(Description(str(path), str(plan.path), plan.changes))
        except (FileError, DescriptionError) as error:
            refused[str(path)] = str(error)
        progress(number, len(files), path.name)
    return DescribeAnswer(form, dry_run, described, refused)
