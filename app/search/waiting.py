"""The models of a zoo that wait for an expert: those that none has read, by family, and what to do about them."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from loradex.app.bases.at_hand import families_at_hand
from loradex.app.models import NO_EXPERT
from loradex.index import AnyZoo, Evidence, Model
from loradex.retrieval.errors import NoExpertReason
from loradex.retrieval.ways_to_expert import next_commands

MAX_COUNTED: Final = 200_000  # models of a zoo that are looked at
SLOW: Final = 0.5  # seconds; if counting takes longer, ...
PAUSE: Final = 60.0  # ... seconds before it is done again, as a zoo that is being filled changes all the time


@dataclass(frozen=True, slots=True)
class Waiting:
    """Models of one family that no expert has read.

    Attributes:
        count: their number.
        reason: why none has, of most of them.
    """

    family: str
    count: int
    reason: NoExpertReason

    @property
    def commands(self) -> list[str]:
        """The commands that get an expert: one that is shared, or one that is grown; none if no way is known."""
        return next_commands(self.reason, self.family, families_at_hand())


@dataclass(slots=True)
class WaitingModels:
    """What of a zoo waits for an expert, counted again when the zoo has changed."""

    _key: tuple[str, object] | None = None
    _found: list[Waiting] = field(default_factory=list)
    _fresh_until: float = 0.0  # by the monotonic clock

    def of(self, zoo: AnyZoo) -> list[Waiting]:
        """The families with models that no expert has read, the most models first.

        Raises:
            ZooError: the zoo cannot be read.
        """
        key = str(zoo.folder), zoo.state()
        is_other = self._key is None or self._key[0] != key[0]
        if is_other or (key != self._key and monotonic() > self._fresh_until):
            start = monotonic()
            self._found, self._key = count_waiting(zoo), key
            end = monotonic()
            self._fresh_until = end + PAUSE if end > start + SLOW else 0.0
        return self._found


def count_waiting(zoo: AnyZoo) -> list[Waiting]:
    """Count the models of a zoo that no expert has read."""
    if zoo.counts("found_by").get(Evidence.PICTURE, 0) == len(zoo):
        return []
    reasons = defaultdict[str, Counter[NoExpertReason]](Counter)
    for number, model in enumerate(zoo.models()):
        if number >= MAX_COUNTED:
            break
        if Evidence.PICTURE not in model.evidence:
            reasons[model.family][no_expert_reason(model) or NoExpertReason.FAMILY] += 1
    found = [Waiting(family, counts.total(), counts.most_common(1)[0][0]) for family, counts in reasons.items()]
    return sorted(found, key=lambda each: (-each.count, each.family))


def no_expert_reason(model: Model) -> NoExpertReason | None:
    """Why no expert has read a model; None if the zoo does not say, or says something else."""
    stored = model.facts.get(NO_EXPERT)
    return next((reason for reason in NoExpertReason if reason == stored), None)
