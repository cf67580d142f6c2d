"""What all commands that read files report: their progress, and the files that they refused."""

from collections.abc import Callable

ProgressCallback = Callable[[int, int, str], None]  # called with: files done, files in all, name of the file


def refusal_list(refused: dict[str, str]) -> list[dict[str, str]]:
    """Return refused files and the reasons (by file) as a JSON document."""
    return [{"file": file, "reason": reason} for file, reason in refused.items()]
