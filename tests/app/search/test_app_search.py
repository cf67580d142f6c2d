"""Queries of several parts, filters, pages, words, copies and probabilities, over the shipped zoo and small ones."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from loradex.app.indexing.ingest import index_places
from loradex.app.paths import MINIATURE, SHIPPED_ZOO
from loradex.app.search.filters import filter_of, time_of
from loradex.app.search.query import Kind, Part, Query, plus_and_minus
from loradex.app.search.ranking import folded, fused
from loradex.app.search.service import Loradex
from loradex.index import Filter, FoundBy, Hit, Model, ModelMissing
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import QueryError

SHIPPED = sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))[:4]


@pytest.fixture(scope="module")
def loradex() -> Loradex:
    return Loradex(SHIPPED_ZOO)


def ids(loradex: Loradex, query: str | Query, k: int = 10, **rest: object) -> list[str]:
    return [hit.model.id for hit in loradex.search(query, k, **rest).hits]  # type: ignore[arg-type]


def test_parts_are_added_up(loradex: Loradex) -> None:
    """Against the sum made by hand, over all vectors."""
    models = list(loradex.zoo.models())
    table = loradex.zoo.vectors([model.id for model in models])
    one, picture = models[7], str(SHIPPED_ZOO / str(models[3].preview))
    query = Query.of(["a cat", "wheel^0.5"], ["a clock^2"], [f"{picture}^1.5"], [one.id])
    text = loradex.encoder.encode_texts(["a cat", "wheel", "a clock"]).numpy()
    with Image.open(picture) as image:
        drawn = loradex.encoder.encode_pictures([image])[0].numpy()
    total = text[0] + 0.5 * text[1] - 2 * text[2] + 1.5 * drawn + loradex.zoo.vector(one.id)
    scores = table @ (total / np.linalg.norm(total))
    order = [models[i].id for i in np.argsort(-scores) if models[i].id != one.id]  # what is asked with is no answer
    hits = loradex.search(query, 20).hits
    assert [hit.model.id for hit in hits] == order[:20]
    np.testing.assert_allclose(
        [hit.score for hit in hits], np.sort(scores[[m.id != one.id for m in models]])[::-1][:20], atol=1e-5
    )
    assert str(query) == f"a cat + wheel^0.5 + picture {picture}^1.5 + model {one.id} - a clock^2"


def test_a_file_is_asked_with_like_its_model(loradex: Loradex) -> None:
    model = next(
        model for model in loradex.zoo.models() if model.path and model.path.endswith("/".join(SHIPPED[0].parts[-3:]))
    )
    assert ids(loradex, Query.of(files=[str(SHIPPED[0])]), 12) == ids(loradex, Query.of(models=[model.id]), 12)
    with pytest.raises(ModelMissing):
        loradex.search(Query.of(models=[str(SHIPPED[0])]))  # an id, whatever lies at that path


@pytest.mark.parametrize(
    ("box", "plus", "minus"),
    [
        ("hound + hat - red", ["hound", "hat"], ["red"]),
        ("a t-shirt", ["a t-shirt"], []),
        ("- red", [], ["red"]),
        (" + dog^0.5 -  ", ["dog^0.5"], []),
        ("a\n- b", ["a"], ["b"]),
    ],
)
def test_the_search_box_adds_and_takes_away(box: str, plus: list[str], minus: list[str]) -> None:
    assert plus_and_minus(box) == (plus, minus)


def test_a_drawing_finds_what_draws_alike(loradex: Loradex) -> None:
    """What a model drew finds that model; chance is 10 in 300. Clean drawings find more (docs/experiments.md): the base model's strokes are common to all."""
    models = [model for model in loradex.zoo.models() if model.preview][:40]
    found = [model.id in ids(loradex, Query.of(pictures=[str(SHIPPED_ZOO / str(model.preview))])) for model in models]
    assert np.mean(found) > 0.3


def test_pages_follow_each_other(loradex: Loradex) -> None:
    whole = ids(loradex, "a fruit", 30)
    assert [
        *ids(loradex, "a fruit", 10),
        *ids(loradex, "a fruit", 10, offset=10),
        *ids(loradex, "a fruit", 10, offset=20),
    ] == whole
    assert ids(loradex, "a fruit", 10, offset=295) == ids(loradex, "a fruit", 300)[295:]
    assert ids(loradex, "a fruit", 10, offset=5000) == []


def test_pages_follow_each_other_where_words_match(loradex: Loradex) -> None:
    """Every name of the shipped zoo has the word ``mini``."""
    whole = [(hit.model.id, hit.matched) for hit in loradex.search("mini", 300).hits]
    pages = [
        [(hit.model.id, hit.matched) for hit in loradex.search("mini", 7, offset=start).hits]
        for start in range(0, 210, 7)
    ]
    assert sum(pages, []) == whole[:210]
    assert len(dict(whole)) == len(whole)


def test_filters(loradex: Loradex) -> None:
    everything = [(hit.model.id, hit.model) for hit in loradex.search("a fruit", 300).hits]
    some = filter_of(families=["mini-b"], rank="4-8")
    expected = [id for id, model in everything if model.family == "mini-b" and 4 <= max(model.facts["ranks"]) <= 8]
    assert 0 < len(expected) < 99
    assert ids(loradex, "a fruit", 300, where=some) == expected
    assert ids(loradex, "a fruit", 5, where=filter_of(tags=["nothing has this"])) == []
    assert ids(loradex, "a fruit", 300, where=filter_of(after="1h", before="2000-01-01")) == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("8", Filter(lowest_rank=8, highest_rank=8)),
        ("4-16", Filter(lowest_rank=4, highest_rank=16)),
        ("-8", Filter(highest_rank=8)),
        ("32-", Filter(lowest_rank=32)),
    ],
)
def test_ranks_as_people_write_them(said: str, expected: Filter) -> None:
    assert filter_of(rank=said) == expected


def test_times_as_people_write_them() -> None:
    assert time_of("1970-01-02") == 86400
    assert time_of("1970-01-02T01:00:00+01:00") == 86400
    assert time_of("1d") - time_of("2d") == pytest.approx(86400, abs=2)


@pytest.mark.parametrize(
    "wrong", [{"rank": "x"}, {"rank": "-"}, {"after": "yesterday"}, {"before": "9" * 40}, {"found_by": "luck"}]
)
def test_wishes_that_cannot_be_read(wrong: dict[str, str]) -> None:
    with pytest.raises(QueryError, match=r"^[^\n]*expected [^\n]*found[^\n]*$"):
        filter_of(**wrong)  # type: ignore[arg-type]


def test_queries_that_cannot_be_answered(loradex: Loradex, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("no picture")
    wrong = [
        lambda: Query.of(),
        lambda: Query.of(minus=["a dog"]),
        lambda: Query.of(["dog^0"]),
        lambda: Query.of(["dog^101"]),
        lambda: Query.of(["a"] * 33),
        lambda: loradex.search(Query.of(["a dog"], ["a dog"])),
        lambda: loradex.search(Query.of(pictures=[str(tmp_path / "no.png")])),
        lambda: loradex.search(Query.of(pictures=[str(tmp_path)])),
        lambda: loradex.search("dog", 0),
        lambda: loradex.search("dog", 1, offset=-1),
        lambda: loradex.search("\0\n"),
    ]
    for ask in wrong:
        with pytest.raises(QueryError, match=r"^[^\n]*expected [^\n]*found[^\n]*$"):
            ask()
    with pytest.raises(ModelMissing):
        loradex.search(Query.of(models=["nobody"]))


def test_weights_are_read_as_lucene_writes_them() -> None:
    assert Part.read(Kind.TEXT, "a dog ^ 0.5", -1) == Part(Kind.TEXT, "a dog", -0.5)
    assert Part.read(Kind.TEXT, "x^y") == Part(Kind.TEXT, "x^y", 1)


@pytest.fixture
def own(tmp_path: Path) -> Loradex:
    """Four LoRAs with tags, the first saved again as another file with another precision."""
    folder = tmp_path / "loras"
    folder.mkdir()
    for number, path in enumerate(SHIPPED):
        tensors = load_file(path)
        tags = json.dumps({"10_x": {("Watercolour" if number % 2 else "ink"): 7}})
        save_file(
            tensors,
            folder / f"GreatHands_v{number}.safetensors",
            {"ss_tag_frequency": tags, "ss_output_name": f"title {number}"},
        )
    save_file(
        {name: tensor.bfloat16() for name, tensor in load_file(SHIPPED[0]).items()}, folder / "resaved.safetensors"
    )
    index_places([folder], tmp_path / "zoo", Encoder.load(MINIATURE / "encoder"))
    return Loradex(tmp_path / "zoo", MINIATURE / "encoder")


def test_words_find_models_and_hits_say_which_way(own: Loradex) -> None:
    hits = own.search("great hands", 5).hits
    both = (FoundBy.WEIGHTS, FoundBy.METADATA)
    assert {hit.model.name: set(hit.matched) for hit in hits}["GreatHands_v1"] == set(both)
    (one,) = own.search("greathands_v2", 1).hits
    assert (one.model.name, set(one.matched)) == ("GreatHands_v2", set(both))
    assert {hit.model.name for hit in own.search("watercolour", 2).hits} == {"GreatHands_v1", "GreatHands_v3"}
    assert "GreatHands_v1" not in [
        hit.model.name for hit in own.search(Query.of(["great hands"], ["watercolour"]), 2).hits
    ]


def test_copies_are_folded_under_one_hit(own: Loradex) -> None:
    hits = own.search("anything", 10).hits
    assert len(hits) == 4
    assert sorted(len(hit.copies) for hit in hits) == [0, 0, 0, 1]
    names = {hit.model.name: [copy.name for copy in hit.copies] for hit in hits}
    assert names.get("GreatHands_v0") == ["resaved"] or names.get("resaved") == ["GreatHands_v0"]


def test_reciprocal_ranks_against_the_formula() -> None:
    def model(id: str) -> Model:
        return Model(id, id, "f", FoundBy.WEIGHTS)

    by_weights = [Hit(model(id), 1 - i / 10, np.zeros(2, np.float32)) for i, id in enumerate("abcd")]
    hits = fused(by_weights, [model("c"), model("x"), model("b")], {}, 100)
    values = {"a": 1 / 61, "b": 1 / 62 + 1 / 63, "c": 1 / 63 + 1 / 61, "d": 1 / 64, "x": 1 / 62}
    assert [hit.model.id for hit in hits] == sorted(values, key=lambda id: -values[id])
    assert folded(hits, {}) == hits
    short, long = (fused(by_weights[:n], [model("c"), model("x"), model("b")], {}, 2) for n in (2, 4))
    values |= {"c": 1 / 61}  # its third rank by weights is one too many
    assert [hit.model.id for hit in long] == ["b", *sorted("acx", key=lambda id: -values[id]), "d"]
    assert [hit.model.id for hit in short] == [hit.model.id for hit in long][:4]


def test_probabilities_are_worth_what_they_say(loradex: Loradex) -> None:
    """Over the top five of every concept of the shipped zoo: what is called likely mostly is, and on the whole no more is promised than is found."""
    likely, right = [], []
    for concept in sorted({str(model.concept) for model in loradex.zoo.models()}):
        for hit in loradex.search(concept, 5).hits:
            assert hit.probability is not None
            likely.append(hit.probability)
            right.append(hit.model.concept == concept)
    p, truth = np.array(likely), np.array(right)
    error = sum(
        np.mean(inside) * abs(p[inside].mean() - truth[inside].mean())
        for i in range(10)
        if (inside := (p * 10).astype(int) == i).any()
    )
    assert truth[p > 0.5].mean() > 0.85
    assert error < 0.15
    assert p.mean() < truth.mean() + 0.02


def test_an_unknown_family_has_no_probability(own: Loradex) -> None:
    hit = own.search("dog", 1).hits[0]
    other = replace(hit, model=replace(hit.model, family="sdxl"))
    (told,) = own.with_probabilities(
        [other], own.encoder.encode_texts(["dog"])[0].numpy(), own.zoo.vectors_of([hit.model.id])
    )
    assert told.probability is None


def test_a_zoo_of_another_space_is_refused(own: Loradex, tmp_path: Path) -> None:
    other = shutil.copytree(MINIATURE / "encoder", tmp_path / "encoder")
    space = Encoder.load(other).space
    replace(space, templates=("{}",)).save(other / "space.safetensors")
    for expert in (other / "experts").iterdir():
        expert.unlink()
    with pytest.raises(Exception, match=re.escape(own.encoder.space.name)):
        Loradex(own.zoo_folder, other).search("dog")
