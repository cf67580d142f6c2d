"""Counts attempts across the workers of a Ray cluster; runs as an actor of its own, so it imports nothing heavy."""

from collections import Counter


class AttemptLedger:
    """Counts the attempts at a piece of work since it was last finished: a worker that is killed finishes nothing."""

    def __init__(self) -> None:
        """Start without any attempts."""
        self.attempts: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """Count an attempt; returns how many there are now."""
        self.attempts[name] += 1
        return self.attempts[name]

    def finish(self, name: str) -> None:
        """Forget the attempts at a piece of work that is finished."""
        del self.attempts[name]
