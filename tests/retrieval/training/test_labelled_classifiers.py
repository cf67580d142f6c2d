"""Categories in the headers of classifiers."""

import pytest

from loradex.retrieval.training.labelled_classifiers import CATEGORIES_KEY, parse_categories


@pytest.mark.parametrize(
    "text", ['["cat", "sea lion"]', "['cat', 'sea lion']", "[\"cat\", 'sea lion',]", '["cat"\n,"sea lion"]']
)
def test_categories_are_read_from_json_and_python_lists(text: str) -> None:
    assert parse_categories({CATEGORIES_KEY: text}) == ("cat", "sea lion")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "cat",
        "{'cat': 1}",
        "['cat', 1]",
        "[['cat']]",
        "[None]",
        "['']",
        "['cat', ' ']",
        "['a\\nb']",
        "['" + "x" * 201 + "']",
        "__import__('os').system('touch /tmp/hacked')",
        "['cat' + open('/etc/passwd').read()]",
        "[x for x in 'abc']",
        "[" * 100_000,
        "(" * 5000 + ")" * 5000,
        "['" + "x" * 2**20 + "']",
        "['\0']\0",
        "\ud800",
        "1" * 10_000,
        "[1e999]",
    ],
)
def test_nothing_in_a_header_is_evaluated(text: str) -> None:
    assert parse_categories({CATEGORIES_KEY: text}) is None
    assert parse_categories({}) is None
