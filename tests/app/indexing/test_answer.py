"""What an answer advises about files that no expert reads, and its JSON."""

from loradex.app.indexing.answer import UNTIL_THEN, IndexAnswer
from loradex.index import FoundBy
from loradex.retrieval.errors import NoExpertReason


def answer_of(files: dict[str, tuple[str, NoExpertReason]]) -> IndexAnswer:
    """An answer about files that no expert reads: path -> family, reason."""
    answer = IndexAnswer("zoo")
    for path, (family, reason) in files.items():
        answer.understood[FoundBy.METADATA][path] = family
        answer.no_expert[path] = reason
    return answer


def test_without_such_files_there_is_no_advice() -> None:
    answer = IndexAnswer("zoo")
    answer.understood[FoundBy.WEIGHTS]["a"] = "mini-a"
    assert answer.advice is None
    assert answer.document()["advice"] is None


def test_families_are_counted_for_each_reason_the_most_common_first() -> None:
    answer = answer_of(
        {
            "1": ("sdxl", NoExpertReason.FAMILY),
            "2": ("sd1", NoExpertReason.STRANGER),
            "3": ("flux1", NoExpertReason.FAMILY),
            "4": ("flux1", NoExpertReason.FAMILY),
        }
    )
    assert answer.advice == (
        "No expert reads flux1 (2), sdxl (1): train one on labelled LoRAs of that family (`loradex train FOLDER`), "
        "or name a folder that holds one in $LORADEX_ENCODER. "
        "Of another base model than the experts of their family: sd1 (1). "
        f"Train an expert on labelled models of that base model (`loradex train FOLDER --tree NAME`). {UNTIL_THEN}"
    )


def test_every_reason_has_its_own_advice() -> None:
    advice = {reason: answer_of({"a": ("sd1", reason)}).advice for reason in NoExpertReason}
    assert len(set(advice.values())) == len(NoExpertReason)
    for text in advice.values():
        assert text is not None
        assert "sd1 (1)" in text
        assert "loradex train FOLDER" in text


def test_of_many_families_the_most_common_are_named() -> None:
    files = {f"{number}": (f"family-{number:02}", NoExpertReason.FAMILY) for number in range(13)}
    advice = answer_of(files).advice
    assert advice is not None
    assert advice.startswith("No expert reads family-00 (1), ")
    assert "family-09 (1) and 3 more: train one" in advice
    assert "family-10" not in advice


def test_the_document_names_the_reason_of_each_file() -> None:
    answer = answer_of({"b": ("sd1", NoExpertReason.LAYERS)})
    answer.understood[FoundBy.WEIGHTS]["a"] = "mini-a"
    document = answer.document()
    assert document["understood"] == [
        {"file": "a", "family": "mini-a", "found_by": "weights", "reason": None},
        {"file": "b", "family": "sd1", "found_by": "metadata", "reason": "layers"},
    ]
    assert (document["by_weights"], document["by_metadata"]) == (1, 1)
    assert "no_expert" not in document
