"""What the workers of a Ray cluster began; in a process of its own, which imports nothing heavy."""

from collections import Counter


class Ledger:
    """Counts how often something was begun and not ended: a worker that is killed ends nothing."""

    def __init__(self) -> None:
        """Nothing was begun."""
        self.begun: Counter[str] = Counter()

    def begin(self, what: str) -> int:
        """Note a beginning; how many there were without an end."""
        self.begun[what] += 1
        return self.begun[what]

    def end(self, what: str) -> None:
        """Note an end."""
        del self.begun[what]
