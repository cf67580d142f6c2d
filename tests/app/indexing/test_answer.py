"""What an answer advises about files that no expert reads, and its JSON."""

from loradex.app.commands.tables.library import notes
from loradex.app.indexing.answer import IndexAnswer
from loradex.app.indexing.batch import Role
from loradex.app.indexing.file_reader import ZooEntry
from loradex.index import Evidence, Model
from loradex.retrieval.errors import NoExpertReason


def count(
    answer: IndexAnswer, path: str, family: str, *evidence: Evidence, reason: NoExpertReason | None = None
) -> None:
    """Count a file as a new model."""
    facts = {} if reason is None else {"no_expert": str(reason)}
    answer.count(path, ZooEntry(Model(path, path, family, facts=facts)), evidence, Role.ADDED)


def answer_of(files: dict[str, tuple[str, NoExpertReason]], *evidence: Evidence) -> IndexAnswer:
    """An answer about files that no expert reads: path -> family, reason; all with some evidence."""
    answer = IndexAnswer("zoo")
    for path, (family, reason) in files.items():
        count(answer, path, family, *evidence, reason=reason)
    return answer


def test_without_such_files_there_is_no_advice() -> None:
    answer = IndexAnswer("zoo")
    count(answer, "a", "mini-a", Evidence.PICTURE)
    assert answer.advice is None
    document = answer.document()
    assert (document["advice"], document["waiting_for_expert"], document["next"]) == (None, {}, [])


def test_families_are_counted_for_each_reason_the_most_common_first() -> None:
    answer = answer_of(
        {
            "1": ("sdxl", NoExpertReason.FAMILY),
            "2": ("sd1", NoExpertReason.STRANGER),
            "3": ("flux1", NoExpertReason.FAMILY),
            "4": ("flux1", NoExpertReason.FAMILY),
        }
    )
    answer.with_base = ["flux1", "sd1"]
    assert answer.advice == (
        "No expert reads flux1 (2), sdxl (1): `loradex expert add PLACE` adds an expert that somebody shares, "
        "and `loradex grow flux1` or `loradex grow sdxl` grows one from the base model "
        "(for sdxl after `loradex base add PATH`). "
        "Of another base model than the experts of their family: sd1 (1); `loradex expert add PLACE` adds an expert of "
        "that base model if somebody shares one, and `loradex grow PATH --tree NAME` grows one from it. "
        "Then index again. Until then these files are found by names, tags, notes and trigger words, "
        "and local ones as look-alikes."
    )
    document = answer.document()
    assert document["waiting_for_expert"] == {"flux1": 2, "sdxl": 1, "sd1": 1}
    assert document["next"] == [
        "loradex expert add PLACE",
        "loradex grow flux1",
        "loradex base add PATH",
        "loradex grow sdxl",
        "loradex grow PATH --tree NAME",
    ]
    assert "with_base" not in document


def test_every_reason_has_its_own_advice() -> None:
    advice = {reason: answer_of({"a": ("sd1", reason)}).advice for reason in NoExpertReason}
    assert len(set(advice.values())) == len(NoExpertReason)
    for text in advice.values():
        assert text is not None
        assert "sd1 (1)" in text
    kind = NoExpertReason.KIND
    assert all("loradex expert add PLACE" in str(text) for reason, text in advice.items() if reason is not kind)
    assert "loradex train FOLDER" in str(advice[kind])


def test_of_many_families_the_most_common_are_named() -> None:
    files = {f"{number}": (f"family-{number:02}", NoExpertReason.FAMILY) for number in range(13)}
    advice = answer_of(files).advice
    assert advice is not None
    assert advice.startswith("No expert reads family-00 (1), ")
    assert "family-09 (1) and 3 more: `loradex expert add PLACE`" in advice
    assert "family-10" not in advice


def test_the_document_names_the_reason_of_each_file() -> None:
    answer = answer_of({"b": ("sd1", NoExpertReason.LAYERS)})
    count(answer, "a", "mini-a", Evidence.PICTURE)
    document = answer.document()
    assert document["understood"] == [
        {"file": "a", "family": "mini-a", "found_by": "picture", "evidence": ["picture"], "reason": None},
        {"file": "b", "family": "sd1", "found_by": "metadata", "evidence": [], "reason": "layers"},
    ]
    assert (document["by_weights"], document["by_preview"], document["by_metadata"]) == (1, 0, 1)
    assert (document["bad_pictures"], document["no_previews"]) == ([], None)
    assert "no_expert" not in document


def test_a_file_may_have_several_kinds_of_evidence() -> None:
    answer = IndexAnswer("zoo")
    count(answer, "both", "mini-a", Evidence.PICTURE, Evidence.PREVIEW)
    count(answer, "pictures", "flux1", Evidence.PREVIEW, reason=NoExpertReason.FAMILY)
    count(answer, "nothing", "sd1", reason=NoExpertReason.FAMILY)
    assert (answer.by_weights, answer.by_preview, answer.by_metadata, answer.file_count) == (1, 2, 1, 3)
    files = {each["file"]: (each["found_by"], each["evidence"]) for each in answer.document()["understood"]}  # type: ignore[index, attr-defined]
    assert files == {
        "both": ("picture", ["picture", "preview"]),
        "pictures": ("preview", ["preview"]),
        "nothing": ("metadata", []),
    }


def test_files_with_previews_are_not_said_to_be_found_by_names_only() -> None:
    reason = NoExpertReason.FAMILY
    answer = answer_of({"a": ("flux1", reason)}, Evidence.PREVIEW)
    names = "by names, tags, notes and trigger words"
    assert f"these files are found by their previews, {names}, and local ones as look-alikes." in str(answer.advice)
    count(answer, "b", "sd1", Evidence.WORDS, Evidence.PREVIEW, reason=reason)
    assert f"found by their previews, {names}, 1 of them also by words in their weights, and" in str(answer.advice)
    count(answer, "c", "flux1", reason=reason)
    assert f"found {names}, 1 of them also by words in their weights, 2 of them also by their previews, and" in str(
        answer.advice
    )


def test_files_whose_words_wait_for_a_base_model() -> None:
    answer = IndexAnswer("zoo", waiting_for_base={"sd1": 1200, "sdxl": 40, "sd2": 2}, bad_bases={"sd2": "it has moved"})
    assert answer.words_advice == (
        "The words that 1,240 files were trained with can be read with the base models of their families, "
        "sd1 (1200), sdxl (40); `loradex base add --find` looks for them. Then index again. "
        "The words of 2 files are not read: it has moved."
    )
    assert list(notes(answer)) == [answer.words_advice]
    assert answer.document()["words_advice"] == answer.words_advice
    assert IndexAnswer("zoo").words_advice is None
    assert IndexAnswer("zoo", bad_bases={"sd2": "it has moved"}).words_advice is None


def test_the_table_names_files_by_their_evidence_and_bad_pictures() -> None:
    reason = NoExpertReason.FAMILY
    answer = answer_of({"/loras/a.safetensors": ("flux1", reason)}, Evidence.PREVIEW)
    count(answer, "/loras/b.safetensors", "flux1", reason=reason)
    answer.bad_pictures = {"/loras/b.png": "/loras/b.png: expected a picture, found none"}
    answer.no_previews = "space x: found no CLIP"
    lines = list(notes(answer))
    assert lines[:2] == ["By their previews, and by names: a.safetensors.", "By metadata only: b.safetensors."]
    assert lines[2] == answer.advice
    assert lines[3:] == [
        "The pictures beside LoRAs were not placed: space x: found no CLIP.",
        "Left out: /loras/b.png: expected a picture, found none.",
    ]
