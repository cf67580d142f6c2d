"""Words as queries of FTS5."""

from loradex.index.sqlite.conditions import match_query


def test_match_query() -> None:
    """Each word is a quoted string; texts are joined by operators."""
    assert match_query(["Red dog", "cat"]) == '("Red" AND "dog") OR ("cat")'
    assert match_query(["dog"], ["cat", "red fox"]) == '(("dog")) NOT (("cat") OR ("red" AND "fox"))'
    assert match_query(["the of", "_", ""]) is None
    assert match_query(["dog"], ["the", "_"]) == '("dog")'
    assert (match_query(["w " * 5000]) or "").count("w") == 32
