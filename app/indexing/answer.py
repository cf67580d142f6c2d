"""The answer of ``loradex index``, its JSON, and the advice about files that no expert reads."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Final

from loradex.app.indexing.batch import Role
from loradex.app.indexing.file_reader import ZooEntry
from loradex.app.models import FROM_WEIGHTS
from loradex.app.reporting import refusal_list
from loradex.index import Evidence
from loradex.retrieval.errors import NoExpertReason
from loradex.retrieval.ways_to_expert import next_commands, ways

MAX_FAMILIES: Final = 10  # named for one reason
# What the files of some families are, followed by what to do about it.
ADVICE: Final = {
    NoExpertReason.FAMILY: "No expert reads {families}: {ways}.",
    NoExpertReason.STRANGER: "Of another base model than the experts of their family: {families}; {ways}.",
    NoExpertReason.LAYERS: "Without layers that the experts of their family need: {families}; "
    "`loradex label FILE` names such a layer, {ways}.",
    NoExpertReason.KIND: "Of another kind (LoRA or classifier) than the experts of their family read: {families}; {ways}.",
}
UNTIL_THEN: Final = "Then index again. Until then these files are found {how}, and local ones as look-alikes."
BY_NAMES: Final = "by names, tags, notes and trigger words"
FOUND_BY: Final = {Evidence.WORDS: "words in their weights", Evidence.PREVIEW: "their previews"}
WORDS_WAIT: Final = (
    "The words that {count} files were trained with can be read with the base models of their families, {families}; "
    "`loradex base add --find` looks for them. Then index again."
)
BASE_IS_BAD: Final = "The words of {count} files are not read: {reason}."


@dataclass(slots=True)
class IndexAnswer:
    """The result of indexing a set of files.

    Attributes:
        zoo: the folder of the zoo.
        understood: the family of each file that was read, by the weightiest evidence for its model and by path.
        evidence: all kinds of evidence that place its model, the weightiest first, by path.
        no_expert: why no expert reads a file, by path.
        unchanged: the number of files that had been read before in their present state.
        added, updated, moved, copies: numbers of files that were read, by what they are to the zoo.
        missing: known files that no longer exist.
        removed: the number of models that were removed because none of their files exists.
        refused: the reason for each file that could not be read, by path.
        bad_pictures: the reason for each picture beside a file that could not be used, by its path.
        no_previews: why no pictures were placed, if there are some and none could be.
        waiting_for_base: the number of files by family, unchanged ones included, whose words wait for a base model.
        bad_bases: by family, why a base model that is named cannot be used.
        with_base: the families whose base model is at hand to grow an expert from; None if that is not known.
    """

    zoo: str
    understood: dict[Evidence, dict[str, str]] = field(default_factory=lambda: {kind: {} for kind in Evidence})
    evidence: dict[str, tuple[Evidence, ...]] = field(default_factory=dict)
    no_expert: dict[str, NoExpertReason] = field(default_factory=dict)
    unchanged: int = 0
    added: int = 0
    updated: int = 0
    moved: int = 0
    copies: int = 0
    missing: list[str] = field(default_factory=list)
    removed: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    bad_pictures: dict[str, str] = field(default_factory=dict)
    no_previews: str | None = None
    waiting_for_base: dict[str, int] = field(default_factory=dict)
    bad_bases: dict[str, str] = field(default_factory=dict)
    with_base: list[str] | None = None

    def count(self, path: str, entry: ZooEntry, evidence: tuple[Evidence, ...], role: Role) -> None:
        """Count a file that was read, by the evidence for its model and by what it is to the zoo."""
        self.understood[evidence[0] if evidence else Evidence.METADATA][path] = entry.model.family
        self.evidence[path] = evidence
        self.bad_pictures |= entry.bad_pictures
        if entry.no_expert is not None:
            self.no_expert[path] = entry.no_expert
        match role:
            case Role.ADDED:
                self.added += 1
            case Role.UPDATED:
                self.updated += 1
            case Role.MOVED:
                self.moved += 1
            case Role.COPY:
                self.copies += 1

    @property
    def by_weights(self) -> int:
        """The number of files that an expert read, or that words in their weights place."""
        return sum(any(kind in FROM_WEIGHTS for kind in evidence) for evidence in self.evidence.values())

    @property
    def by_words(self) -> int:
        """The number of files that words in their weights place, those included that an expert read."""
        return sum(Evidence.WORDS in evidence for evidence in self.evidence.values())

    @property
    def by_preview(self) -> int:
        """The number of files that their previews place, those included that an expert read."""
        return sum(Evidence.PREVIEW in evidence for evidence in self.evidence.values())

    @property
    def by_metadata(self) -> int:
        """The number of files that are known by their metadata only."""
        return sum(not evidence for evidence in self.evidence.values())

    @property
    def read_count(self) -> int:
        """The number of files that were read."""
        return len(self.evidence)

    @property
    def file_count(self) -> int:
        """The number of files that are done, unchanged and refused ones included."""
        return self.read_count + self.unchanged + len(self.refused)

    @property
    def advice(self) -> str | None:
        """Why no expert reads some files of this run, and how to have them read by weights; None if all are."""
        counts = self._without_expert()
        sentences = [
            text.format(families=listed(counts[reason]), ways=ways(reason, common(counts[reason]), self.with_base))
            for reason, text in ADVICE.items()
            if counts[reason]
        ]
        return " ".join([*sentences, self._until_then()]) if sentences else None

    @property
    def waiting_for_expert(self) -> dict[str, int]:
        """The number of files of this run that no expert reads, by family, the most common first."""
        return dict(sum(self._without_expert().values(), Counter[str]()).most_common())

    @property
    def next(self) -> list[str]:
        """The commands after which an expert reads files of this run: for each family an expert is added, or grown."""
        return list(dict.fromkeys(command for _, _, commands in self.ways() for command in commands))

    def ways(self) -> list[tuple[str, int, list[str]]]:
        """Of each family and reason: how many files of this run no expert reads, and the commands that get one."""
        return [
            (family, counts[family], next_commands(reason, family, self.with_base or ()))
            for reason, counts in self._without_expert().items()
            for family in common(counts)
        ]

    def _without_expert(self) -> dict[NoExpertReason, Counter[str]]:
        """How many files no expert reads, by the reason and by family."""
        families = {file: family for files in self.understood.values() for file, family in files.items()}
        counts = {reason: Counter[str]() for reason in NoExpertReason}
        for file, reason in self.no_expert.items():
            counts[reason][families[file]] += 1
        return counts

    def _until_then(self) -> str:
        """How files that no expert reads are found meanwhile."""
        counts = {
            words: sum(kind in self.evidence[file] for file in self.no_expert) for kind, words in FOUND_BY.items()
        }
        of_all = [words for words, count in counts.items() if count == len(self.no_expert)]
        of_some = [
            f"{count} of them also by {words}" for words, count in counts.items() if 0 < count < len(self.no_expert)
        ]
        return UNTIL_THEN.format(how=", ".join([*(f"by {words}" for words in of_all), BY_NAMES, *of_some]))

    @property
    def words_advice(self) -> str | None:
        """Whose words are not read as their base model is missing, and what to do about it; None if there are none."""
        missing = Counter({family: n for family, n in self.waiting_for_base.items() if family not in self.bad_bases})
        sentences = [WORDS_WAIT.format(count=f"{missing.total():,}", families=listed(missing))] if missing else []
        sentences += [
            BASE_IS_BAD.format(count=f"{count:,}", reason=self.bad_bases[family])
            for family, count in self.waiting_for_base.items()
            if family in self.bad_bases
        ]
        return " ".join(sentences) or None

    def document(self) -> dict[str, object]:
        """The JSON of ``loradex index --json``."""
        document = asdict(self)
        for name in ("no_expert", "evidence", "with_base"):
            del document[name]
        counts = {
            "by_weights": self.by_weights,
            "by_words": self.by_words,
            "by_preview": self.by_preview,
            "by_metadata": self.by_metadata,
        }
        files = [
            {
                "file": file,
                "family": family,
                "found_by": str(kind),
                "evidence": [str(each) for each in self.evidence[file]],
                "reason": self.no_expert.get(file),
            }
            for kind, families in self.understood.items()
            for file, family in families.items()
        ]
        advice = {"advice": self.advice, "words_advice": self.words_advice}
        waiting = {"waiting_for_expert": self.waiting_for_expert, "next": self.next}
        lists = {"refused": refusal_list(self.refused), "bad_pictures": refusal_list(self.bad_pictures)}
        return document | counts | advice | waiting | {"understood": files} | lists


def common(counts: Counter[str]) -> list[str]:
    """The families that a sentence names, the most common first."""
    return [family for family, _ in counts.most_common(MAX_FAMILIES)]


def listed(counts: Counter[str]) -> str:
    """The most common families with the number of files of each."""
    named = [f"{family} ({count})" for family, count in counts.most_common(MAX_FAMILIES)]
    others = len(counts) - len(named)
    return ", ".join(named) + (f" and {others} more" if others else "")
