"""What to do about models that no expert reads: the sentences and commands of every message about them."""

from collections.abc import Collection, Sequence
from typing import Final

from loradex.retrieval.errors import NoExpertReason
from loradex.retrieval.lora.family import UNKNOWN

ADD_EXPERT: Final = "loradex expert add PLACE"
ADD_BASE: Final = "loradex base add PATH"
GROW: Final = "loradex grow"
GROWABLE: Final = frozenset({"sd1", "sd2", "sdxl", "sd3", "flux1", "mini-a", "mini-b"})  # whose training loss is known
MAX_NAMED: Final = 3  # families that a sentence names commands for


def ways(reason: NoExpertReason, families: Sequence[str], with_base: Collection[str] | None = None) -> str:
    """Say in one sentence, without a full stop, how models of some families get an expert.

    Args:
        reason: why no expert reads them.
        families: of the models, at least one.
        with_base: the families whose base model is at hand; None if that is not known.
    """
    known = [family for family in families if family != UNKNOWN]
    growable = [family for family in known if family in GROWABLE]
    if reason is NoExpertReason.KIND:
        return "`loradex train FOLDER --tree NAME` trains one on labelled models of that kind"
    if not known:
        return "no base model that Loradex knows has such layers, so no expert can be grown for them"
    if reason is NoExpertReason.STRANGER:
        add = f"`{ADD_EXPERT}` adds an expert of that base model if somebody shares one"
        return f"{add}, and `{GROW} PATH --tree NAME` grows one from it" if growable else add
    if reason is NoExpertReason.LAYERS:
        add = f"`{ADD_EXPERT}` adds an expert of such layers if somebody shares one"
        grow = f"{grow_commands(growable, ' --tree NAME')} grows one, with --layers of such layers"
        return f"{add}, and {grow}" if growable else add
    add = f"`{ADD_EXPERT}` adds an expert that somebody shares"
    if not growable:
        return add
    return f"{add}, and {grow_from_base(growable, with_base)}"


def grow_commands(families: Sequence[str], options: str = "") -> str:
    """The commands that grow experts of some families, joined by "or"; one command for many families."""
    named = families if len(families) <= MAX_NAMED else ["FAMILY"]
    return " or ".join(f"`{GROW} {family}{options}`" for family in named)


def grow_from_base(families: Sequence[str], with_base: Collection[str] | None) -> str:
    """How experts are grown for families of which the base model may have to be named first."""
    commands, first = grow_commands(families), f"`{ADD_BASE}`"
    if with_base is None:
        return f"{commands} grows one from the base model (after {first}, if no base model of that family is named yet)"
    missing = [family for family in families if family not in with_base]
    if len(missing) == len(families):
        return f"{first}, then {commands}, grows one from the base model"
    named = ", ".join(missing[:MAX_NAMED]) + ", ..." * (len(missing) > MAX_NAMED)
    return f"{commands} grows one from the base model" + f" (for {named} after {first})" * bool(missing)


def next_commands(reason: NoExpertReason, family: str, with_base: Collection[str]) -> list[str]:
    """The commands that get an expert for models of a family: one that is shared, or one that is grown, step by step.

    Args:
        reason: why no expert reads them.
        family: of the models.
        with_base: the families whose base model is at hand.
    """
    if reason is NoExpertReason.KIND or family == UNKNOWN:
        return []
    if family not in GROWABLE:
        return [ADD_EXPERT]
    if reason is NoExpertReason.STRANGER:
        return [ADD_EXPERT, f"{GROW} PATH --tree NAME"]
    if reason is NoExpertReason.LAYERS:
        return [ADD_EXPERT, f"{GROW} {family} --tree NAME"]
    return [ADD_EXPERT, *([] if family in with_base else [ADD_BASE]), f"{GROW} {family}"]
