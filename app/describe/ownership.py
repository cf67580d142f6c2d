"""Which fields are Loradex's to write: those that are empty, and those that hold what it wrote itself; all others are a person's.

What Loradex wrote is remembered among the fields, under its own key. So it can be brought up to date or taken back later, and is told from
what people wrote. A field that a person emptied or changed stays as it is from then on.
"""

from collections.abc import Mapping
from typing import Any, Final

from loradex.app.describe.text_edit import FieldChange
from loradex.retrieval.errors import DescriptionError
from loradex.retrieval.lora.facts import OWN, WROTE

NO_VALUES: Final[tuple[Any, ...]] = (None, "", [], {})
PLACEHOLDERS: Final = {"base_model": "Unknown"}  # ComfyUI-Lora-Manager's word for none


def wrote_in(there: Mapping[str, Any]) -> dict[str, Any]:
    """What Loradex wrote among some fields, by field.

    Raises:
        DescriptionError: its key holds something else.
    """
    own = there.get(OWN, {WROTE: {}})
    if not isinstance(own, dict) or not isinstance(own.get(WROTE), dict):
        raise DescriptionError(
            f"expected under the key {OWN!r} what Loradex wrote, found something else; take that key out"
        )
    return own[WROTE]


def changes_of(there: Mapping[str, Any], wanted: Mapping[str, Any], said: Mapping[str, Any]) -> list[FieldChange]:
    """The fields that change, Loradex's own key last; one whose new value is None is taken back.

    Args:
        there: the fields as they are.
        wanted: every field that Loradex fills; None where it has nothing to say.
        said: what goes under its own key besides.

    Raises:
        DescriptionError: its key holds something else.
    """
    wrote = wrote_in(there)
    kept, changes = dict(wrote), []
    for field, value in wanted.items():
        old = there.get(field)
        if not (old == wrote[field] if field in wrote else is_empty(field, old)):
            continue
        if value is None:
            if kept.pop(field, None) is not None:
                changes.append(FieldChange(field, old, None))
            continue
        kept[field] = value
        if field not in there or old != value:
            changes.append(FieldChange(field, old, value))
    own = {**said, WROTE: kept}
    return changes if there.get(OWN) == own else [*changes, FieldChange(OWN, there.get(OWN), own)]


def is_empty(field: str, value: Any) -> bool:
    """Whether a field says nothing."""
    return value in NO_VALUES or (value is not None and value == PLACEHOLDERS.get(field))
