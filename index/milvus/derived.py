"""The rows of models and positions that are derived from records and files: derived again, compared and repaired."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from loradex.index.checks import checked_position
from loradex.index.entry import Entry
from loradex.index.errors import BadModel, BadVector, ZooDamaged, ZooError
from loradex.index.milvus.rows import Row, model_of_row, model_row, position_rows, positions_of_row
from loradex.index.model import KnownFile


@dataclass(frozen=True, slots=True)
class ModelRows:
    """The row of a model, and those of its positions."""

    model: Row
    positions: list[Row]


@dataclass(frozen=True, slots=True)
class Findings:
    """What is not as it should be about some models.

    Attributes:
        outdated: rows as they are derived, of models for which others are stored.
        stale: rows of positions that no model has.
        errors: of models whose rows are damaged, by id.
    """

    outdated: list[ModelRows] = field(default_factory=list)
    stale: list[Row] = field(default_factory=list)
    errors: dict[str, ZooError] = field(default_factory=dict)


def derived_rows(row: Row, files: Sequence[KnownFile], dim: int, place: object) -> ModelRows:
    """Return the rows of a model as they are derived from its record, its positions (dim,) and its files.

    Raises:
        ZooDamaged, BadModel, BadVector: the record or a position is damaged.
    """
    model = model_of_row(row, place)
    positions = {
        kind: checked_position(model, kind, position, dim)
        for kind, position in positions_of_row(row, dim, place).items()
    }
    entry = Entry.from_model(model)
    derived = model_row(entry, entry.added or 0, positions, files, row["fingerprint"])
    derived |= {name: row[name] for name in ("record", "places")}
    return ModelRows(derived, position_rows(derived, positions))


def find_outdated(
    rows: dict[str, Row], positions: Sequence[Row], files: dict[str, list[KnownFile]], dim: int, place: object
) -> Findings:
    """Compare the rows of models, by id, and the stored rows of their positions with what is derived."""
    findings, stored, derived_ids = Findings(), {row["id"]: row for row in positions}, set[str]()
    for id, row in rows.items():
        try:
            derived = derived_rows(row, files.get(id, []), dim, place)
        except (ZooDamaged, BadModel, BadVector) as error:
            findings.errors[id] = error
            continue
        derived_ids |= {each["id"] for each in derived.positions}
        if derived.model != row or any(stored.get(each["id"]) != each for each in derived.positions):
            findings.outdated.append(derived)
    findings.stale.extend(
        row for id, row in stored.items() if id not in derived_ids and row["model"] not in findings.errors
    )
    return findings


def refreshed_rows(rows: dict[str, Row], files: dict[str, list[KnownFile]], dim: int, place: object) -> list[ModelRows]:
    """Return the rows of those models, by id, that differ with these files; damaged models are left out.

    Raises:
        BadModel: a model with these files does not fit a row of Milvus.
    """
    refreshed = []
    for id, row in rows.items():
        with suppress(ZooDamaged, BadVector):
            derived = derived_rows(row, files.get(id, []), dim, place)
            if derived.model != row:
                refreshed.append(derived)
    return refreshed
