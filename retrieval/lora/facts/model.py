"""The facts that people and trainers wrote about a LoRA."""

from dataclasses import dataclass, field, replace

from loradex.retrieval.lora.facts.text import unique_words


@dataclass(frozen=True, slots=True)
class Facts:
    """What people and trainers wrote about a LoRA.

    Attributes:
        base_model: in the words of its source.
        tags: those of training captions by falling frequency.
        sources: names of the side-cars that state something, and ``header`` for the LoRA itself.
        broken: names of the side-cars that could not be read.
    """

    title: str | None = None
    base_model: str | None = None
    trainer: str | None = None
    trigger_words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    notes: str | None = None
    sources: tuple[str, ...] = ()
    broken: tuple[str, ...] = field(default=(), compare=False)

    def merged(self, other: "Facts") -> "Facts":
        """These facts, completed by those of ``other``."""
        return Facts(
            self.title or other.title,
            self.base_model or other.base_model,
            self.trainer or other.trainer,
            unique_words((*self.trigger_words, *other.trigger_words)),
            unique_words((*self.tags, *other.tags)),
            self.notes or other.notes,
            (*self.sources, *other.sources),
            (*self.broken, *other.broken),
        )

    def from_source(self, source: str) -> "Facts":
        """These facts with their source; empty facts have none."""
        return replace(self, sources=(source,)) if self != Facts() else self
