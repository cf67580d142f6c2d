"""What every run over files reports: its progress, and the files that it refused."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]  # files done, files in all, the file


def reasons(refused: dict[str, str]) -> list[dict[str, str]]:
    """Refused files as JSON has them."""
    return [{"file": file, "reason": why} for file, why in refused.items()]
