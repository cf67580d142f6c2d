"""What side-cars and model cards say about a LoRA: predicted labels, family, one-line summary."""

from typing import Any, Final

from loradex.app.search.answers import LabelAnswer
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.family import UNKNOWN, family_in_metadata
from loradex.retrieval.space.labels import ABSTAIN_BELOW

MIN_SUMMARY_PROBABILITY: Final = 0.05  # of a label that the summary names


def likely_labels(answer: LabelAnswer) -> list[str]:
    """The labels that are more likely than not; none if the answer is "unknown"."""
    return [] if answer.abstained else [label.label for label in answer.labels if label.probability >= ABSTAIN_BELOW]


def predictions_document(answer: LabelAnswer, space: str | None) -> dict[str, Any]:
    """The entries under the key ``loradex``: space, family, and the labels with their probabilities, or "unknown"."""
    labels = [{"label": label.label, "probability": round(label.probability, 3)} for label in answer.labels]
    return (
        ({"space": space} if space else {})
        | {"family": answer.family}
        | ({"label": UNKNOWN} if answer.abstained else {"labels": labels})
    )


def certain_family(lora: LoraFile) -> str:
    """The family if it is the only one that fits or the one that the trainer named; else ``unknown``."""
    is_named = family_in_metadata(lora.header.metadata) == lora.family
    return lora.family if lora.families == [lora.family] or is_named else UNKNOWN


def summary_line(lora: LoraFile, answer: LabelAnswer) -> str:
    """Labels, if an expert reads the file, and facts in one line of text."""
    labels = ", ".join(
        f"{label.label} {label.probability:.0%}"
        for label in answer.labels
        if label.probability >= MIN_SUMMARY_PROBABILITY
    )
    facts = f"Family {lora.family}, format {lora.format}, rank {', '.join(map(str, lora.ranks))}"
    trainer = f", trained with {lora.facts.trainer}" if lora.facts.trainer else ""
    read = "" if answer.refused else f"Loradex read from the weights: {UNKNOWN if answer.abstained else labels}. "
    return f"{read}{facts}{trainer}."
