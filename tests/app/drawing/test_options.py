"""Bounds of the options, and how base models are named."""

import os
from pathlib import Path

import pytest

from loradex.app.drawing.base_models import BaseModels
from loradex.app.drawing.options import DrawOptions
from loradex.retrieval.errors import QueryError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "x" * 301}, "prompt: expected at most 300 characters, found 301"),
        ({"steps": 0}, "steps: expected 1 to 50, found 0"),
        ({"steps": 51}, "steps: expected 1 to 50, found 51"),
        ({"steps": 2.5}, "steps: expected a whole number, found 2.5"),
        ({"seed": -1}, "seed: expected 0 to 4294967295, found -1"),
        ({"seed": 2**32}, "seed: expected 0 to 4294967295, found 4294967296"),
        ({"strength": 2.1}, "strength: expected -2 to 2, found 2.1"),
        ({"strength": float("nan")}, "strength: expected -2 to 2, found nan"),
        ({"guidance": float("inf")}, "guidance: expected 0 to 30, found inf"),
        ({"size": 63}, "size: expected 64 to 1024 pixels in steps of 8, found 63"),
        ({"size": 10**9}, "size: expected 64 to 1024 pixels in steps of 8"),
    ],
)
def test_bounds(options: dict[str, object], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        DrawOptions(**options)  # type: ignore[arg-type]


def test_prompt_and_strength_are_normalised() -> None:
    assert DrawOptions(" a\n\x00\x1b[31m  dog ").prompt == "a [31m dog"
    assert repr(DrawOptions(strength=-0.0)) == repr(DrawOptions(strength=0))
    assert DrawOptions("x" * 300, 2**32 - 1, 50, 30.0, -2, 1024)


def test_base_models_from_the_environment_and_from_pairs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORADEX_BASES", os.pathsep.join((f"sdxl={tmp_path}/xl", "", "sd1=~/one")))
    bases = BaseModels.from_pairs(["sd1=other=folder"]).by_family
    assert list(bases) == ["mini-a", "mini-b", "sdxl", "sd1"]
    assert (bases["sdxl"].paths, bases["sd1"].paths) == ((tmp_path / "xl",), (Path("other=folder"),))
    assert BaseModels.from_pairs().by_family["sd1"].paths == (Path.home() / "one",)
    for pair in ("sd1", "=folder", "sd1="):
        with pytest.raises(QueryError, match="expected FAMILY=PATH"):
            BaseModels.from_pairs([pair])
