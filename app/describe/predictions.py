"""What Loradex found about a LoRA, in the words of side-cars and cards."""

from typing import Any, Final

from loradex.app.search.answers import LabelAnswer
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.family import UNKNOWN, named_family
from loradex.retrieval.space.labels import SURE

WORTH_SAYING: Final = 0.05  # least probability of a label


def likely_labels(answer: LabelAnswer) -> list[str]:
    """The labels that are likelier than not; none of an answer that abstains."""
    return [] if answer.abstained else [label.label for label in answer.labels if label.probability >= SURE]


def said_of(answer: LabelAnswer, space: str | None) -> dict[str, Any]:
    """What stands under Loradex's own key: the labels with their probabilities, or that they are unknown."""
    labels = [{"label": label.label, "probability": round(label.probability, 3)} for label in answer.labels]
    return (
        ({"space": space} if space else {})
        | {"family": answer.family}
        | ({"label": UNKNOWN} if answer.abstained else {"labels": labels})
    )


def certain_family(lora: LoraFile) -> str:
    """The family where only one fits, or the trainer names it; else ``unknown``."""
    return (
        lora.family if lora.families == [lora.family] or named_family(lora.header.metadata) == lora.family else UNKNOWN
    )


def summary(lora: LoraFile, answer: LabelAnswer) -> str:
    """One line for people."""
    labels = ", ".join(
        f"{label.label} {label.probability:.0%}" for label in answer.labels if label.probability >= WORTH_SAYING
    )
    facts = f"Family {lora.family}, format {lora.format}, rank {', '.join(map(str, lora.ranks))}"
    trainer = f", trained with {lora.facts.trainer}" if lora.facts.trainer else ""
    return f"Loradex read from the weights: {UNKNOWN if answer.abstained else labels}. {facts}{trainer}."
