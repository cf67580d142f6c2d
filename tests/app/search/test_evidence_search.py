"""A zoo whose models are known by several kinds of evidence, placed by the texts that each kind says."""

import json
import math
from collections.abc import Iterator

import numpy as np
import pytest

from loradex.app.paths import MINIATURE, SHIPPED_ZOO
from loradex.app.search.filters import parse_filter
from loradex.app.search.query import Query
from loradex.app.search.service import Loradex
from loradex.index import Evidence, KnownFile, Model, Position, Zoo
from loradex.retrieval.fingerprint import Fingerprint
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.space.likelihood import probability

PICTURE, WORDS, PREVIEW, METADATA = Evidence
SHIPPED = sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))[0]
SAYS = {  # what each kind of evidence says of each model
    "drawn": {PICTURE: "dog"},
    "drawn and shown": {PICTURE: "dog", PREVIEW: "hat"},  # with the update of the first,
    "captioned": {WORDS: "dog", PREVIEW: "dog"},
    "uncalibrated": {PICTURE: "dog"},
    "named": {},
    "named wrongly": {PICTURE: "umbrella"},
    "umbrella": {PICTURE: "umbrella", WORDS: "hat"},
}
SCALE, BIAS = 12.0, -5.0


@pytest.fixture(scope="module")
def loradex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loradex]:
    folder = tmp_path_factory.mktemp("evidence") / "zoo"
    encoder = Loradex(SHIPPED_ZOO).encoder
    texts = sorted({text for said in SAYS.values() for text in said.values()})
    vectors = dict(zip(texts, encoder.encode_texts(texts).numpy(), strict=True))
    models, positions = [], []
    for name, said in SAYS.items():
        tags = {"named": ["dog"], "named wrongly": ["dog"]}.get(name, [])
        models.append(Model(name.replace(" ", "-"), name, "mini-a", f"/loras/{name}.safetensors", facts={"tags": tags}))
        calibration = (1.0, 0.0) if name == "uncalibrated" else (SCALE, BIAS)
        positions.append({kind: Position(vectors[text], *calibration) for kind, text in said.items()})
    update = Fingerprint.of(LoraFile.open(SHIPPED).iter_updates()).to_bytes()
    with Zoo.create(folder, encoder.space.name, encoder.space.dim) as zoo:
        zoo.add(models, positions, {"drawn": update, "drawn-and-shown": update})
        copies = [
            KnownFile("/loras/drawn.safetensors", 1, 1, "drawn"),
            KnownFile("/backup/hound.safetensors", 1, 1, "drawn", name="hound", facts={"tags": ["beagle"]}),
        ]
        zoo.note_files(copies)
    loradex = Loradex(folder)
    loradex.__dict__["encoder"] = encoder
    yield loradex
    loradex.zoo.close()


def test_hits_say_what_carried_them_and_what_agrees(loradex: Loradex) -> None:
    hits = {hit.model.name: hit for hit in loradex.search("dog", 10).hits}
    assert {name: hit.matched for name, hit in hits.items()} == {
        "drawn": (PICTURE,),
        "captioned": (WORDS, PREVIEW),
        "uncalibrated": (PICTURE,),
        "named": (METADATA,),
        "named wrongly": (METADATA,),
        "umbrella": hits["umbrella"].matched,  # it carries nothing, whatever is nearest
    }
    order = list(hits)
    assert order.index("captioned") < order.index("named") < order.index("named wrongly") < order.index("umbrella")
    assert order[:2] == ["captioned", "drawn"]  # equal scores, in order of id
    assert hits["named"].score is None and hits["named"].scores == {}
    assert (spread := loradex.encoder.query_spread) is not None
    scale = spread.scale(loradex.encoder.encode_texts(["dog"]).numpy()[0])
    assert hits["drawn"].score == pytest.approx(SCALE * scale + BIAS, abs=1e-3)
    assert hits["uncalibrated"].score == pytest.approx(scale, abs=1e-3)
    assert set(hits["captioned"].scores) == {WORDS, PREVIEW}


def test_probabilities_come_from_calibrated_positions_alone(loradex: Loradex) -> None:
    hits = {hit.model.name: hit for hit in loradex.search("dog", 10).hits}
    for name in ("named", "uncalibrated", "named wrongly"):  # the last has its name against its position
        assert hits[name].probability is None
    assert hits["named wrongly"].score is None and hits["named wrongly"].scores
    for name in ("drawn", "captioned", "umbrella"):
        score = hits[name].score
        assert score is not None and hits[name].probability == pytest.approx(float(probability(np.array([score]))[0]))
    like = loradex.search(Query.from_parts(["dog"], models=["umbrella"]), 10).hits
    assert {hit.probability for hit in like} == {None}  # scores are calibrated for texts


def test_files_with_one_update_are_one_hit_whatever_carries_them(loradex: Loradex) -> None:
    """By the pictures of both, and by the preview of one, which the other lacks."""
    (hit,) = (hit for hit in loradex.search("dog", 10).hits if hit.copies)
    assert (hit.model.name, hit.copies[0].name, hit.found_by) == ("drawn", "drawn and shown", PICTURE)
    (hit,) = (hit for hit in loradex.search("hat", 10).hits if hit.copies)
    assert (hit.model.name, hit.copies[0].name, hit.found_by) == ("drawn and shown", "drawn", PREVIEW)


@pytest.mark.parametrize(
    ("found_by", "expected"),
    [
        (["picture"], {"drawn", "drawn and shown", "uncalibrated", "named wrongly", "umbrella"}),
        (["preview"], {"drawn and shown", "captioned"}),
        (["words", "preview"], {"drawn and shown", "captioned", "umbrella"}),
        (["metadata"], {"named"}),
        (["metadata,words"], {"named", "captioned", "umbrella"}),
        (["weights"], {"drawn", "drawn and shown", "captioned", "uncalibrated", "named wrongly", "umbrella"}),
    ],
)
def test_filters_limit_models_and_what_counts(loradex: Loradex, found_by: list[str], expected: set[str]) -> None:
    where = parse_filter(found_by=found_by)
    hits = loradex.search("dog", 10, where=where).hits
    names = {name for hit in hits for name in (hit.model.name, *(copy.name for copy in hit.copies))}
    assert names == expected
    assert all(set(hit.scores) <= set(where.kinds) for hit in hits)
    assert all(set(hit.matched) <= {*where.kinds, METADATA} for hit in hits)


@pytest.mark.parametrize(
    ("query", "folder", "name", "path"),
    [
        ("hound", None, "hound", "/backup/hound.safetensors"),
        ("beagle", None, "hound", "/backup/hound.safetensors"),
        ("backup", None, "hound", "/backup/hound.safetensors"),
        ("dog", None, "drawn", "/loras/drawn.safetensors"),
        ("anything", "/backup", "hound", "/backup/hound.safetensors"),
    ],
)
def test_a_hit_shows_the_file_that_answers(
    loradex: Loradex, query: str, folder: str | None, name: str, path: str
) -> None:
    hits = loradex.search(query, 10, where=parse_filter(folder=folder)).hits
    (hit,) = (hit for hit in hits if hit.model.name == "drawn" or folder)
    assert hit.place is not None and (hit.name, hit.place.path) == (name, path)


def test_the_document_has_a_number_or_null_for_a_score(loradex: Loradex) -> None:
    answer = loradex.search("dog", 10)
    document = json.loads(json.dumps(answer.document()))
    hits = {hit["name"]: hit for hit in document["hits"]}
    named, captioned = hits["named"], hits["captioned"]
    assert (named["score"], named["scores"], named["found_by"], named["matched"]) == (
        None,
        {},
        "metadata",
        ["metadata"],
    )
    assert named["place"] == named["path"] == "/loras/named.safetensors"
    assert (captioned["found_by"], captioned["matched"]) == ("words", ["words", "preview"])
    assert math.isclose(captioned["score"], max(captioned["scores"].values()))
    assert all(round(score, 6) == score for hit in hits.values() for score in hit["scores"].values())


def test_pages_follow_each_other_with_several_kinds(loradex: Loradex) -> None:
    at_once = [hit.model.id for hit in loradex.search("dog", 10).hits]
    assert [loradex.search("dog", 1, offset=at).hits[0].model.id for at in range(len(at_once))] == at_once


def test_a_search_reads_no_positions_again(loradex: Loradex, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tells probabilities and copies comes with the hits; only models found by words alone are looked up."""
    read = []
    positions_by_id = loradex.zoo.positions_by_id
    monkeypatch.setattr(Zoo, "positions_by_id", lambda zoo, ids: read.extend(ids) or positions_by_id(ids))
    hits = loradex.search("dog", 10).hits
    assert read == ["named"] and any(hit.probability for hit in hits)
