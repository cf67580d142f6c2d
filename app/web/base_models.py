"""Of which families the page can read the words that LoRAs were trained with: those whose base model is at hand."""

from typing import Final

from loradex.app.backend import Backend
from loradex.app.bases import Bases
from loradex.app.web.elements import escape_text, warning
from loradex.retrieval.errors import LoradexError
from loradex.retrieval.words import READABLE_FAMILIES

HOW_TO_ADD: Final = (
    "<code>loradex base add PATH</code> adds a base model that is on the server's disk, "
    "<code>loradex base add --find</code> looks for them in the usual folders; nothing is downloaded."
)


def render_families(backend: Backend) -> str:
    """The families with a base model at hand, those that lack one, and the command that adds one."""
    try:
        at_hand = [family for family in Bases.load(backend.bases).families if family in READABLE_FAMILIES]
    except LoradexError as error:
        return warning(str(error))
    missing = [family for family in sorted(READABLE_FAMILIES) if family not in at_hand]
    lines = ["Words can be read from the weights of LoRAs of " + ", ".join(map(escape_text, at_hand)) + "."]
    if missing:
        lines.append(f"No base model is known for {', '.join(map(escape_text, missing))}: {HOW_TO_ADD}")
    return f'<p class="ld-why">{" ".join(lines)}</p>'
