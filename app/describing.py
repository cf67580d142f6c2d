"""``loradex describe``: what was found about LoRAs, written beside them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from app.answers import DescribeAnswer, Description, LabelAnswer, Progress
from app.inspection import files_of
from app.model_cards import plan_card
from app.service import Loradex
from app.sidecars import plan_side_car
from app.text_files import Plan, carry_out
from retrieval.errors import DescriptionError, FileError
from retrieval.lora import LoraFile

LABELS: Final = 5  # a file


PLANS: Final[dict[str, Callable[[LoraFile, LabelAnswer, str], Plan]]] = {"side-car": plan_side_car, "card": plan_card}


def describe_files(places: Sequence[Path], loradex: Loradex, form: str, labels: Sequence[str] | None, *, dry_run: bool, progress: Progress) -> DescribeAnswer:
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
