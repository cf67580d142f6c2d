"""The families whose base model is at hand for any later command."""

from loradex.app.bases.bases import Bases
from loradex.app.bases.shipped import SHIPPED
from loradex.retrieval.errors import LoradexError


def families_at_hand() -> list[str]:
    """Return the families of the miniature's base models, of those added, and of those that ``$LORADEX_BASES`` names.

    A list that is damaged counts as empty; the commands that use base models say what is wrong with it.
    """
    try:
        return Bases.load().families
    except LoradexError:
        return list(SHIPPED)
