"""Tables of ``loradex expert``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from loradex.app.commands.tables.adaptive import AdaptiveTable
from loradex.app.commands.tables.columns import Column, Kind
from loradex.app.experts.expert_metrics import CLAIMED
from loradex.app.reporting import pluralize
from loradex.retrieval.probex.provenance import Provenance

if TYPE_CHECKING:
    from loradex.app.sharing.adding import AddAnswer
    from loradex.app.sharing.exporting import ExportAnswer
    from loradex.app.sharing.listing import ListedExpert
    from loradex.app.sharing.removing import RemoveAnswer

FACTS: Final = (Column("fact"), Column("value", Kind.PROSE))
LIST_COLUMNS: Final = (
    Column("tree"),
    Column("path", Kind.FILE),
    Column("family", drop=5),
    Column("made", Kind.PROSE),
    Column("base at hand", drop=2),
    Column("figures", Kind.PROSE),
    Column("source", drop=1),
    Column("state"),
    Column("id", Kind.ID),
)
# The first of these that was measured stands for an expert in the list.
HEADLINES: Final = {
    "zero_shot_top1_heldout": "top 1 of held-out concepts",
    "accuracy_per_category": "accuracy per category",
    "top1": "top 1",
    "map": "mAP",
}
CLAIM_NOTE: Final = (
    "Figures that are claimed were measured by whoever made the expert; `loradex evaluate FOLDER` measures it here."
)


def list_table(experts: Sequence[ListedExpert]) -> AdaptiveTable:
    """The experts of this machine; the reasons for states stand below."""
    rows = [
        (
            expert.tree,
            expert.path,
            expert.family,
            made_in_words(expert.kind, expert.provenance),
            expert.base,
            headline(expert.figures),
            expert.source,
            expert.state,
            expert.id or "",
        )
        for expert in experts
    ]
    notes = [f"{expert.path}: {expert.reason}" for expert in experts if expert.reason]
    notes += [CLAIM_NOTE] if any((expert.figures or {}).get("measured_by") == CLAIMED for expert in experts) else []
    return AdaptiveTable(f"{len(experts)} expert{'' if len(experts) == 1 else 's'}", LIST_COLUMNS, rows, notes)


def made_in_words(kind: str, provenance: Mapping[str, Any] | None) -> str:
    """How an expert was made, in one phrase."""
    return Provenance.parse(provenance).in_words if provenance else kind


def headline(figures: Mapping[str, Any] | None) -> str:
    """One figure that stands for an expert, and who measured it."""
    if not figures:
        return "none"
    metrics = figures["metrics"]
    name = next((name for name in HEADLINES if name in metrics), next(iter(metrics), None))
    if name is None:
        return "none"
    return f"{HEADLINES.get(name, name.replace('_', ' '))} {percent(metrics[name])}, {figures['measured_by']}"


def percent(metric: Mapping[str, float]) -> str:
    """A metric in per cent, with the number of models."""
    return f"{metric['value']:.1%} (n = {metric['n']:,.0f})"


def show_table(document: Mapping[str, Any]) -> AdaptiveTable:
    """All that is known of one expert."""
    figures = document["figures"]
    rows = [
        ("id", document["id"]),
        ("family", document["family"]),
        ("made", made_in_words(document["kind"], document["provenance"])),
        ("Loradex", (document["provenance"] or {}).get("loradex")),
        ("base at hand", document["base"]),
        ("space", document["space"]),
        ("text encoder", document["text_encoder"]),
        ("prompts", document["templates"]),
        ("layers", f"{document['layers']:,}"),
        ("file", f"{document['path']} ({document['bytes'] / 1e6:,.1f} MB, {document['source']})"),
        ("figures", f"{figures['measured_by']}: {figures['on']}" if figures else "none"),
        *[(name.replace("_", " "), percent(each)) for name, each in (figures["metrics"] if figures else {}).items()],
    ]
    notes = [CLAIM_NOTE] if figures and figures["measured_by"] == CLAIMED else []
    return AdaptiveTable(document["tree"], FACTS, [(key, value) for key, value in rows if value], notes)


def add_table(answer: AddAnswer) -> AdaptiveTable:
    """The expert that was added, and what to run next."""
    rows = [
        ("id", answer.id),
        ("family", answer.family),
        ("file", answer.path),
        ("replaced", answer.replaced),
        ("space", f"{answer.space}, in use from now on" if answer.new_encoder else answer.space),
        (
            "text encoder",
            answer.text_encoder if answer.text_encoder_here else f"{answer.text_encoder}: not on this machine",
        ),
        ("waiting", waiting_in_words(answer)),
    ]
    notes = [f"Next: `{command}`" for command in answer.next]
    if not answer.text_encoder_here:
        notes.append("Until its text encoder is here, models are read and compared, but no texts can be searched for.")
    return AdaptiveTable(f"{answer.tree} added", FACTS, [(key, value) for key, value in rows if value], notes)


def waiting_in_words(answer: AddAnswer) -> str | None:
    """How many models wait for an expert that was added."""
    if answer.waiting is None:
        return "your zoo is of another space"
    return f"{pluralize(answer.waiting, 'model')} of family {answer.family} in your zoo" if answer.waiting else None


def remove_table(answer: RemoveAnswer) -> AdaptiveTable:
    """The expert that was deleted."""
    rows = [("file", answer.path), ("experts left", f"{answer.left} of your own")]
    return AdaptiveTable(
        f"{answer.tree} removed", FACTS, rows, ["What it read stays in your zoo until its files are indexed again."]
    )


def export_table(answer: ExportAnswer) -> AdaptiveTable:
    """The file that was written."""
    rows = [
        ("file", f"{answer.file} ({answer.bytes / 1e6:,.1f} MB)"),
        ("id", answer.id),
        ("family", answer.family),
        ("space", answer.space),
        ("text encoder", f"{answer.text_encoder}: not in the file"),
    ]
    notes = [
        f"Others add it with `loradex expert add {answer.file}`, or from a repository: `loradex expert add hf://owner/name`."
    ]
    return AdaptiveTable(f"{answer.tree} exported", FACTS, rows, notes)
