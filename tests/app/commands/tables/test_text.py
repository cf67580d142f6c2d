"""Texts in cells: wrapped without loss, shortened in the middle, without control characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from loradex.app.commands.tables.text import date, listed, plain, relative_folders, shorten_folder, split_path, wrap


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.sampled_from(" /-_."), max_size=200))
def test_wrapping_loses_nothing_and_fits(text: str) -> None:
    lines = wrap(text, 20)
    assert all(cell_len(line) <= 20 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("one two three", ["one two", "three"]),
        (["a dog 91%", "a cat 3%", "x"], ["a dog 91%,", "a cat 3%, x"]),
        ("in /models/loras/styles", ["in /models/", "loras/styles"]),
        ("a_name_that_is_long.bin", ["a_name_that_", "is_long.bin"]),
        ("withoutanybreak", ["withoutanybr", "eak"]),
        ("", [""]),
    ],
)
def test_lines_break_between_words_items_and_names(value: str | list[str], expected: list[str]) -> None:
    assert wrap(value, 12) == expected


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (40, "/home/user/models/loras/styles"),
        (22, "/…/models/loras/styles"),
        (10, "/…/styles"),
        (7, "…styles"),
    ],
)
def test_folders_are_shortened_in_the_middle_first(width: int, expected: str) -> None:
    assert shorten_folder("/home/user/models/loras/styles", width) == expected


@given(st.lists(st.text("ab/", max_size=9), min_size=1).map("/".join), st.integers(1, 30))
def test_a_shortened_folder_fits_and_ends_as_the_folder_does(folder: str, width: int) -> None:
    shorter = shorten_folder(folder, width)
    assert cell_len(shorter) <= width
    assert folder.endswith(shorter.rpartition("…")[2])


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["/a/b/c", "/a/b/d"], ("/a/b", ["c", "d"])),
        (["/a/b", "/a/b/d", None], ("/a/b", [".", "d", ""])),
        (["/a/bc", "/a/bd"], ("/a", ["bc", "bd"])),
        (["/a", "/b"], ("", ["/a", "/b"])),
        (["", "a"], ("", ["", "a"])),
        (["hf://owner/name", "hf://owner/name/v2"], ("hf://owner/name", [".", "v2"])),
        ([None], ("", [""])),
    ],
)
def test_folders_are_relative_to_what_they_have_in_common(
    folders: list[str | None], expected: tuple[str, list[str]]
) -> None:
    assert relative_folders(folders) == expected


def test_paths_lists_dates_and_control_characters() -> None:
    assert split_path("/a/b.safetensors") == ("/a", "b.safetensors")
    assert split_path("/b.safetensors") == ("/", "b.safetensors")
    assert split_path("b.safetensors") == ("", "b.safetensors")
    assert listed([1.25, "x"], 2) == ["1.25", "x"] and listed([1, 2, 3], 2) == ["1", "2", "..."] and listed(None) == []
    assert (date(86400), date(None), date(10**18)) == ("1970-01-02", "", "")
    assert plain("a\x1b[2J\nb") == "a?[2J b"
