"""Cards and the panel say how a model is known, and nothing else."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loradex.app.backend import Backend
from loradex.app.models import stored_words
from loradex.app.search.places import Place
from loradex.app.search.ranking import SearchHit
from loradex.app.search.service import Loradex
from loradex.app.web.cards import hit_card, plain_card
from loradex.app.web.comparison import render_comparison
from loradex.app.web.model_panel import render_model
from loradex.index import Evidence, Model, Position, Zoo

PICTURE, WORDS, PREVIEW, METADATA = Evidence
MODEL = Model("id", "hands", "sd1", "/loras/hands.safetensors")


@pytest.mark.parametrize(
    ("scores", "matched", "probability", "shown", "hidden"),
    [
        ({PICTURE: 4.0}, (PICTURE,), 0.9, ["found by what it draws<", ">90% likely<"], ["only", "preview"]),
        (
            {PICTURE: 1.0, PREVIEW: 3.0},
            (PREVIEW, PICTURE, METADATA),
            None,
            ["found by its preview, what it draws, name or tags<", "score 3.00"],
            ["only", "likely"],
        ),
        ({}, (METADATA,), None, ["found by name or tags<", "known by name or tags only"], ["score", "likely"]),
        ({WORDS: -2.0}, (METADATA,), None, ["found by name or tags<", "its name or tags match"], ["only", "likely"]),
    ],
)
def test_a_hit_says_how_it_was_found(
    scores: dict[Evidence, float],
    matched: tuple[Evidence, ...],
    probability: float | None,
    shown: list[str],
    hidden: list[str],
) -> None:
    card = hit_card(
        SearchHit(MODEL, scores, matched, place=Place(MODEL.path, "hands"), probability=probability), Path("/zoo")
    )
    assert all(text in card for text in shown)
    assert not any(text in card for text in hidden)
    assert "file:" not in card


def test_a_hit_by_a_copy_has_its_name_and_place() -> None:
    place = Place("/backup/old/<b>fingers.safetensors", "<b>fingers")
    card = hit_card(SearchHit(MODEL, {}, (METADATA,), place=place), Path("/zoo"))
    assert "file: <bdi>old/&lt;b&gt;fingers.safetensors</bdi>" in card and "&lt;b&gt;fingers</bdi></h3>" in card
    assert 'data-copy="/backup/old/&lt;b&gt;fingers.safetensors"' in card and "<b>fingers" not in card


def test_words_read_from_weights_are_shown_as_they_are() -> None:
    """The first few, shortened and escaped; a zoo may hold any JSON in their place."""
    words = [["kozu", 0.934], ["<b>dog", 0.88], ["x" * 99, 0.7], ["a", 1], ["beyond", 0.6]]
    card = plain_card(replace(MODEL, facts={"words": words}), Path("/zoo"))
    assert f"trained with: <bdi>kozu</bdi> 93 %, <bdi>&lt;b&gt;dog</bdi> 88 %, <bdi>{'x' * 29}…</bdi> 70 %" in card
    assert "<bdi>a</bdi> 100 %<" in card and "beyond" not in card and "<b>" not in card
    broken = [["nan", math.nan], ["large", 10**400], ["less", -0.1], ["text", "0.9"], ["alone"], "kozu", 3, None]
    for stored in (broken, [], None, {}, "kozu", 1):
        model = replace(MODEL, facts={"words": stored})
        assert "trained with" not in plain_card(model, Path("/zoo")) and stored_words(model) == []


def test_a_panel_lists_all_kinds(tmp_path: Path) -> None:
    vector = np.array([1, 0], np.float32)
    with Zoo.create(tmp_path / "zoo", "space", 2) as zoo:
        positions = [{PICTURE: Position(vector, 9, -1), PREVIEW: Position(vector)}, None]
        words = {"words": [["kozu", 0.93], ["<i>dog", 0.88]]}
        zoo.add([replace(MODEL, facts=words), Model("bare", "bare", "sd1")], positions)
    loradex = Loradex(tmp_path / "zoo")
    with Zoo.open(tmp_path / "zoo", read_only=True) as zoo:
        loradex.__dict__["zoo"] = zoo
        backend = Backend(loradex, roots=[])
        known, bare = (render_model(backend, id) for id in ("id", "bare"))
        assert "known by what it draws, its preview" in plain_card(zoo.get("id"), tmp_path)
        both = render_comparison(backend, ["id", "bare"])
    assert "<span><bdi>kozu</bdi></span>" in known and "&lt;i&gt;dog" in known and "<i>dog" not in known + both
    assert "<bdi>kozu</bdi>, <bdi>&lt;i&gt;dog</bdi>" in both and both.count("trained with") == 1
    assert "Trained with" in known and "Trained with" not in bare
    assert "what it draws, read from its weights" in known and "the preview pictures" in known
    assert "training captions" not in known and "tags and notes only" not in known
    assert "tags and notes only" in bare and "what it draws" not in bare
