"""Which fields of a side-car or card Loradex may write: empty ones, and those that hold what it wrote itself.

All others belong to a person. Loradex stores what it wrote under its own key, so that it can update or take back its
values later. A field that a person has emptied or changed is left alone from then on.
"""

from collections.abc import Mapping
from typing import Any, Final

from loradex.app.describe.text_edit import FieldChange
from loradex.retrieval.errors import DescriptionError
from loradex.retrieval.lora.facts import LORADEX_KEY, WRITTEN_KEY

EMPTY_VALUES: Final[tuple[Any, ...]] = (None, "", [], {})
PLACEHOLDERS: Final = {"base_model": "Unknown"}  # ComfyUI-Lora-Manager's word for an empty field


def written_by_loradex(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The values that Loradex wrote, by field.

    Raises:
        DescriptionError: its key holds something else.
    """
    entries = fields.get(LORADEX_KEY, {WRITTEN_KEY: {}})
    if not isinstance(entries, dict) or not isinstance(entries.get(WRITTEN_KEY), dict):
        raise DescriptionError(
            f"expected under the key {LORADEX_KEY!r} what Loradex wrote, found something else; take that key out"
        )
    return entries[WRITTEN_KEY]


def plan_changes(
    fields: Mapping[str, Any], desired: Mapping[str, Any], predictions: Mapping[str, Any]
) -> list[FieldChange]:
    """The fields to change, Loradex's own key last.

    Args:
        fields: the fields as they are.
        desired: the value that Loradex has for each field that it fills; None to take back what it wrote.
        predictions: the entries to store under its own key.

    Raises:
        DescriptionError: its key holds something else.
    """
    written = written_by_loradex(fields)
    still_written, changes = dict(written), []
    for field, value in desired.items():
        old = fields.get(field)
        may_write = old == written[field] if field in written else is_empty(field, old)
        if not may_write:
            continue
        if value is None:
            if still_written.pop(field, None) is not None:
                changes.append(FieldChange(field, old, None))
            continue
        still_written[field] = value
        if field not in fields or old != value:
            changes.append(FieldChange(field, old, value))
    entries = {**predictions, WRITTEN_KEY: still_written}
    old_entries = fields.get(LORADEX_KEY)
    return changes if old_entries == entries else [*changes, FieldChange(LORADEX_KEY, old_entries, entries)]


def is_empty(field: str, value: Any) -> bool:
    """Whether the value of a field is empty or a placeholder."""
    return value in EMPTY_VALUES or (value is not None and value == PLACEHOLDERS.get(field))
