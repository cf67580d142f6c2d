"""What side-cars and model cards say about a LoRA: predicted labels, family, one-line summary."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from loradex.app.search.answers import LabelAnswer
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.facts import LORADEX_KEY
from loradex.retrieval.lora.family import UNKNOWN
from loradex.retrieval.lora.family_names import family_in_metadata
from loradex.retrieval.space.labels import ABSTAIN_BELOW
from loradex.retrieval.words import Word

MIN_SUMMARY_PROBABILITY: Final = 0.05  # of a label that the summary names
WORDS_KEY: Final = "words_in_weights"  # below Loradex's own key

Words = Sequence[Word] | None  # that a file was likely trained with, best first; None if they could not be read


def likely_labels(answer: LabelAnswer) -> list[str]:
    """The labels that are more likely than not; none if the answer is "unknown"."""
    return [] if answer.abstained else [label.label for label in answer.labels if label.probability >= ABSTAIN_BELOW]


def predictions_document(answer: LabelAnswer, space: str | None, words: Sequence[Word]) -> dict[str, Any]:
    """The entries under the key ``loradex``: space, family, labels with probabilities or "unknown", likely words."""
    labels = [{"label": label.label, "probability": round(label.probability, 3)} for label in answer.labels]
    return (
        ({"space": space} if space else {})
        | {"family": answer.family}
        | ({"label": UNKNOWN} if answer.abstained else {"labels": labels})
        | ({WORDS_KEY: [word_document(word) for word in words]} if words else {})
    )


def word_document(word: Word) -> dict[str, Any]:
    """A word in weights, under the key ``loradex``."""
    return {"word": word.word, "probability": round(word.probability, 3)}


def read_or_written(words: Words, fields: Mapping[str, Any]) -> Sequence[Word]:
    """The words in a file's weights; where they could not be read, those that ``predictions_document`` wrote before."""
    if words is not None:
        return words
    written = fields.get(LORADEX_KEY)
    entries = written.get(WORDS_KEY) if isinstance(written, dict) else None
    pairs = [(entry.get("word"), entry.get("probability")) for entry in as_dicts(entries)]
    return [Word(word, 0.0, p) for word, p in pairs if isinstance(word, str) and isinstance(p, float | int)]


def as_dicts(entries: Any) -> list[dict[str, Any]]:
    """The JSON objects of a list."""
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def trigger_words(lora: LoraFile, words: Sequence[Word]) -> list[str]:
    """The trigger words that people or the trainer state, else the words in the weights."""
    return list(lora.facts.trigger_words) or [word.word for word in words]


def certain_family(lora: LoraFile) -> str:
    """The family if the trainer named it, or if it alone fits and the trainer named none; else ``unknown``."""
    named = family_in_metadata(lora.header.metadata)
    is_alone = lora.families == [lora.family] and not lora.parsed.family_fit.doubts
    return lora.family if named == lora.family or (named is None and is_alone) else UNKNOWN


def summary_line(lora: LoraFile, answer: LabelAnswer, words: Sequence[Word] = ()) -> str:
    """Labels, if an expert reads the file, words in its weights, and facts in one line of text."""
    labels = ", ".join(
        f"{label.label} {label.probability:.0%}"
        for label in answer.labels
        if label.probability >= MIN_SUMMARY_PROBABILITY
    )
    facts = f"Family {lora.family}, format {lora.format}, rank {', '.join(map(str, lora.ranks))}"
    trainer = f", trained with {lora.facts.trainer}" if lora.facts.trainer else ""
    read = "" if answer.refused else f"Loradex read from the weights: {UNKNOWN if answer.abstained else labels}. "
    named = ", ".join(f"{word.word} {word.probability:.0%}" for word in words)
    return f"{read}{f'Words in the weights: {named}. ' if words else ''}{facts}{trainer}."
