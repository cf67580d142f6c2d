"""x."""


def build(*args: object) -> None:
    """X."""
