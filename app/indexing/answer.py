"""The answer of ``loradex index``, its JSON, and the advice about files that no expert reads."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Final

from loradex.app.reporting import refusal_list
from loradex.index import FoundBy
from loradex.retrieval.errors import NoExpertReason

MAX_FAMILIES: Final = 10  # named for one reason
# What the files of some families are, and what to do about it.
ADVICE: Final = {
    NoExpertReason.FAMILY: "No expert reads {families}: train one on labelled LoRAs of that family (`loradex train FOLDER`), "
    "or name a folder that holds one in $LORADEX_ENCODER.",
    NoExpertReason.STRANGER: "Of another base model than the experts of their family: {families}. "
    "Train an expert on labelled models of that base model (`loradex train FOLDER --tree NAME`).",
    NoExpertReason.LAYERS: "Without layers that the experts of their family need: {families}. `loradex label FILE` names such a layer. "
    "Train an expert on labelled models with the layers of these files (`loradex train FOLDER --tree NAME`; --layers chooses among them).",
    NoExpertReason.KIND: "Of another kind (LoRA or classifier) than the experts of their family read: {families}. "
    "Train an expert on labelled models of that kind (`loradex train FOLDER --tree NAME`).",
}
UNTIL_THEN: Final = "Then index again. Until then these files are found by names, tags, notes and trigger words, and local ones as look-alikes."


@dataclass(slots=True)
class IndexAnswer:
    """The result of indexing a set of files.

    Attributes:
        zoo: the folder of the zoo.
        understood: the family of each file that was read, by kind of evidence and path.
        no_expert: why no expert reads a file, by path, for the files that are known by metadata only.
        unchanged: the number of files that had been read before in their present state.
        added, updated, moved, copies: numbers of files that were read, by what they are to the zoo.
        missing: known files that no longer exist.
        removed: the number of models that were removed because none of their files exists.
        refused: the reason for each file that could not be read, by path.
    """

    zoo: str
    understood: dict[FoundBy, dict[str, str]] = field(default_factory=lambda: {found_by: {} for found_by in FoundBy})
    no_expert: dict[str, NoExpertReason] = field(default_factory=dict)
    unchanged: int = 0
    added: int = 0
    updated: int = 0
    moved: int = 0
    copies: int = 0
    missing: list[str] = field(default_factory=list)
    removed: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def by_weights(self) -> int:
        """The number of files that an expert read."""
        return len(self.understood[FoundBy.WEIGHTS])

    @property
    def by_metadata(self) -> int:
        """The number of files that are known by their metadata only."""
        return len(self.understood[FoundBy.METADATA])

    @property
    def file_count(self) -> int:
        """The number of files that are done, unchanged and refused ones included."""
        return self.by_weights + self.by_metadata + self.unchanged + len(self.refused)

    @property
    def advice(self) -> str | None:
        """Why files of this run are known by metadata only, and how to have them read by weights; None if none are."""
        families = {reason: Counter[str]() for reason in ADVICE}
        for file, reason in self.no_expert.items():
            families[reason][self.understood[FoundBy.METADATA][file]] += 1
        sentences = [ADVICE[reason].format(families=listed(counts)) for reason, counts in families.items() if counts]
        return " ".join([*sentences, UNTIL_THEN]) if sentences else None

    def document(self) -> dict[str, object]:
        """The JSON of ``loradex index --json``."""
        document = asdict(self)
        del document["no_expert"]
        counts = {"by_weights": self.by_weights, "by_metadata": self.by_metadata, "advice": self.advice}
        files = [
            {"file": file, "family": family, "found_by": str(found_by), "reason": self.no_expert.get(file)}
            for found_by, families in self.understood.items()
            for file, family in families.items()
        ]
        return document | counts | {"understood": files, "refused": refusal_list(self.refused)}


def listed(counts: Counter[str]) -> str:
    """The most common families with the number of files of each."""
    named = [f"{family} ({count})" for family, count in counts.most_common(MAX_FAMILIES)]
    others = len(counts) - len(named)
    return ", ".join(named) + (f" and {others} more" if others else "")
