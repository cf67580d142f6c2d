"""The result of indexing, and its JSON."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Final

from loradex.app.reporting import reasons
from loradex.index import FoundBy

MOST_FAMILIES: Final = 10  # named in an advice


@dataclass(slots=True)
class IndexAnswer:
    """What became of some files.

    Attributes:
        understood: the family of each file that was read, by what it is known by.
        unchanged: files that were known as they are.
        added, updated, moved, copies: what those that were read are to the zoo.
        missing: known files that are gone; removed: models that were taken out with them.
        refused: files that could not be read, and why.
    """

    zoo: str
    understood: dict[FoundBy, dict[str, str]] = field(default_factory=lambda: {by: {} for by in FoundBy})
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
        """How many files were understood by their weights."""
        return len(self.understood[FoundBy.WEIGHTS])

    @property
    def by_metadata(self) -> int:
        """How many files are known by their metadata alone."""
        return len(self.understood[FoundBy.METADATA])

    @property
    def advice(self) -> str | None:
        """What would have the files that are known by their metadata alone read by their weights."""
        if not self.by_metadata:
            return None
        families = Counter(self.understood[FoundBy.METADATA].values())
        named = ", ".join(f"{family} ({count})" for family, count in families.most_common(MOST_FAMILIES))
        return (
            f"No expert reads {named}: these files are found by their names, tags and trigger words, and as look-alikes. To have them read by weights, "
            "train an expert on labelled LoRAs of that family (`loradex train FOLDER`), or name a folder that holds one in $LORADEX_ENCODER; then index again."
        )

    @property
    def files(self) -> int:
        """How many files were looked at."""
        return self.by_weights + self.by_metadata + self.unchanged + len(self.refused)

    def document(self) -> dict[str, object]:
        """The JSON of ``loradex index --json``."""
        counts = {"by_weights": self.by_weights, "by_metadata": self.by_metadata, "advice": self.advice}
        files = [
            {"file": file, "family": family, "found_by": str(by)}
            for by, known in self.understood.items()
            for file, family in known.items()
        ]
        return asdict(self) | counts | {"understood": files, "refused": reasons(self.refused)}
