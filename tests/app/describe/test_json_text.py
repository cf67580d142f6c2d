"""Members set in the text of a JSON object, against Python's own reading of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loradex.app.describe.json_edit import members_of, step_of, with_members, with_members_within

VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=5)


@given(OBJECTS, OBJECTS, st.sampled_from([None, 2, 4, "\t"]), st.sampled_from(["", " ", "\n", " \r\n"]), st.booleans())
def test_what_is_read_afterwards(
    there: dict[str, Any], values: dict[str, Any], indent: Any, around: str, ascii_only: bool
) -> None:
    text = around + json.dumps(there, indent=indent, ensure_ascii=ascii_only) + around
    after = with_members(text, values, step_of(text))
    assert list(json.loads(after).items()) == list({**there, **values}.items())
    for key, (start, end) in members_of(text).items():
        if key not in values:
            assert text[start:end] in after


@given(OBJECTS, OBJECTS)
def test_within_a_member(inside: dict[str, Any], values: dict[str, Any]) -> None:
    text = json.dumps({"a": 1, "civitai": inside, "b": 2}, indent=2)
    assert json.loads(with_members_within(text, "civitai", values, "  ")) == {
        "a": 1,
        "civitai": {**inside, **values},
        "b": 2,
    }
    assert json.loads(with_members_within('{"a": 1}', "civitai", values, "  ")) == {"a": 1, "civitai": values}


def test_the_layout_is_that_of_the_others() -> None:
    assert with_members("{}", {"a": [1], "b": {}}) == '{\n  "a": [\n    1\n  ],\n  "b": {}\n}'
    assert with_members('{"a":1e5}', {"b": [1, 2]}) == '{"a":1e5, "b": [1, 2]}'
    assert (
        with_members('{\r\n\t"a" : 1.50\r\n}', {"b": [1]}, "\t")
        == '{\r\n\t"a" : 1.50,\r\n\t"b": [\r\n\t\t1\r\n\t]\r\n}'
    )
    nested = '{\n  "civitai": {}\n}'
    assert with_members_within(nested, "civitai", {"x": 1}, "  ") == '{\n  "civitai": {\n    "x": 1\n  }\n}'


@pytest.mark.parametrize("text", ["", "[1]", '"x"', "{", '{"a": 1} x', '{"a": 1, "a": 2}', '{"a": "\x00"}', "{" * 100])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        with_members(text, {"b": 1})
