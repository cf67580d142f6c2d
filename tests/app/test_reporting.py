"""What commands report."""

from loradex.app.reporting import pluralize, readable


def test_counts_have_their_nouns() -> None:
    assert [pluralize(count, "model") for count in (0, 1, 2_000)] == ["0 models", "1 model", "2,000 models"]


def test_bytes_that_are_no_utf8_are_shown() -> None:
    assert readable("caf\udce9 é") == r"caf\xe9 é"
