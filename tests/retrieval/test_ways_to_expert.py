"""What messages say about models that no expert reads."""

import pytest

from loradex.retrieval.errors import NoExpertReason
from loradex.retrieval.lora.family import UNETS
from loradex.retrieval.ways_to_expert import GROWABLE, next_commands, ways

ADD = "`loradex expert add PLACE` adds an expert that somebody shares"


def test_a_family_gets_an_expert_that_is_shared_or_grown() -> None:
    family = NoExpertReason.FAMILY
    assert ways(family, ["sdxl"], ["sdxl"]) == f"{ADD}, and `loradex grow sdxl` grows one from the base model"
    assert ways(family, ["sdxl"], []) == (
        f"{ADD}, and `loradex base add PATH`, then `loradex grow sdxl`, grows one from the base model"
    )
    assert ways(family, ["sdxl"]) == (
        f"{ADD}, and `loradex grow sdxl` grows one from the base model "
        "(after `loradex base add PATH`, if no base model of that family is named yet)"
    )


def test_of_several_families_each_has_its_command_and_of_many_none() -> None:
    text = ways(NoExpertReason.FAMILY, ["sdxl", "wan", "flux1", "unknown"], ["sdxl"])
    assert "`loradex grow sdxl` or `loradex grow flux1` grows" in text
    assert text.endswith("(for flux1 after `loradex base add PATH`)")
    assert "wan" not in text
    many = ways(NoExpertReason.FAMILY, sorted(GROWABLE), ["mini-a", "mini-b"])
    assert "`loradex grow FAMILY` grows" in many
    assert many.endswith("(for flux1, sd1, sd2, ... after `loradex base add PATH`)")


def test_what_cannot_be_grown_is_not_said_to_be() -> None:
    assert ways(NoExpertReason.FAMILY, ["wan"], ["wan"]) == ADD
    for reason in (NoExpertReason.FAMILY, NoExpertReason.STRANGER, NoExpertReason.LAYERS):
        assert "loradex" not in ways(reason, ["unknown"])
        assert next_commands(reason, "unknown", []) == []
        assert "grow" not in ways(reason, ["wan"])
        assert next_commands(reason, "wan", []) == ["loradex expert add PLACE"]


@pytest.mark.parametrize(
    ("reason", "with_base", "commands"),
    [
        (NoExpertReason.FAMILY, ["sdxl"], ["loradex grow sdxl"]),
        (NoExpertReason.FAMILY, [], ["loradex base add PATH", "loradex grow sdxl"]),
        (NoExpertReason.STRANGER, ["sdxl"], ["loradex grow PATH --tree NAME"]),
        (NoExpertReason.LAYERS, ["sdxl"], ["loradex grow sdxl --tree NAME"]),
    ],
)
def test_commands_are_those_of_the_sentence(reason: NoExpertReason, with_base: list[str], commands: list[str]) -> None:
    assert next_commands(reason, "sdxl", with_base) == ["loradex expert add PLACE", *commands]
    text = ways(reason, ["sdxl"], with_base)
    assert all(f"`{command}`" in text for command in ["loradex expert add PLACE", *commands])
    assert "\n" not in text


def test_classifiers_get_an_expert_by_training() -> None:
    assert "loradex train FOLDER --tree NAME" in ways(NoExpertReason.KIND, ["mini-vit"])
    assert next_commands(NoExpertReason.KIND, "mini-vit", []) == []


def test_families_that_can_be_grown_are_known() -> None:
    assert set(UNETS) - GROWABLE == {"sdxl-refiner"}
