"""Members set in the text of a JSON object, compared with Python's parser."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loradex.app.describe.json_edit import indent_of, member_spans, set_members, set_nested_members

VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=5)


@given(OBJECTS, OBJECTS, st.sampled_from([None, 2, 4, "\t"]), st.sampled_from(["", " ", "\n", " \r\n"]), st.booleans())
def test_the_result_parses_to_the_new_members(
    existing: dict[str, Any], values: dict[str, Any], indent: Any, around: str, ascii_only: bool
) -> None:
    text = around + json.dumps(existing, indent=indent, ensure_ascii=ascii_only) + around
    after = set_members(text, values, indent_of(text))
    assert list(json.loads(after).items()) == list({**existing, **values}.items())
    for key, (start, end) in member_spans(text).items():
        if key not in values:
            assert text[start:end] in after


@given(OBJECTS, OBJECTS)
def test_nested_members(inside: dict[str, Any], values: dict[str, Any]) -> None:
    text = json.dumps({"a": 1, "civitai": inside, "b": 2}, indent=2)
    assert json.loads(set_nested_members(text, "civitai", values, "  ")) == {
        "a": 1,
        "civitai": {**inside, **values},
        "b": 2,
    }
    assert json.loads(set_nested_members('{"a": 1}', "civitai", values, "  ")) == {"a": 1, "civitai": values}


def test_new_members_are_laid_out_like_the_others() -> None:
    assert set_members("{}", {"a": [1], "b": {}}) == '{\n  "a": [\n    1\n  ],\n  "b": {}\n}'
    assert set_members('{"a":1e5}', {"b": [1, 2]}) == '{"a":1e5, "b": [1, 2]}'
    assert (
        set_members('{\r\n\t"a" : 1.50\r\n}', {"b": [1]}, "\t") == '{\r\n\t"a" : 1.50,\r\n\t"b": [\r\n\t\t1\r\n\t]\r\n}'
    )
    nested = '{\n  "civitai": {}\n}'
    assert set_nested_members(nested, "civitai", {"x": 1}, "  ") == '{\n  "civitai": {\n    "x": 1\n  }\n}'


@pytest.mark.parametrize("text", ["", "[1]", '"x"', "{", '{"a": 1} x', '{"a": 1, "a": 2}', '{"a": "\x00"}', "{" * 100])
def test_text_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        set_members(text, {"b": 1})
