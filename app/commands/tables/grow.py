"""Tables of ``loradex grow``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loradex.app.commands.tables.adaptive import AdaptiveTable
from loradex.app.commands.tables.columns import Column, Kind

if TYPE_CHECKING:
    from loradex.app.growing.options import GrowAnswer, GrowPlan

GIB = 2**30


def plan_table(plan: GrowPlan) -> AdaptiveTable:
    """How long growing takes, and how much memory and disk."""
    rows: list[tuple[str, object]] = [
        ("base model", f"{plan.base} ({plan.family}), on {plan.device}"),
        ("LoRAs", f"{plan.loras:,}; {plan.to_draw:,} pictures to draw, {plan.to_grow:,} to grow"),
        ("layers", plan.layers),
        ("a picture", f"{plan.draw_s:.2f} s"),
        ("a noisy picture with its gradient", f"{plan.sample_s:.3f} s"),
        ("in all", f"{plan.hours:.1f} hours"),
        ("on the disk", f"{plan.bytes / GIB:.1f} GiB in {plan.folder}; {plan.free_bytes / GIB:.1f} GiB are free"),
        ("memory", "not known" if plan.peak_bytes is None else f"{plan.peak_bytes / GIB:.1f} GiB"),
    ]
    return AdaptiveTable("what growing takes, measured on some words", (Column(""), Column("", Kind.PROSE)), rows)


def grow_table(answer: GrowAnswer) -> AdaptiveTable:
    """What was grown."""
    rows: list[tuple[str, object]] = [
        ("expert", answer.expert),
        ("model tree, family", f"{answer.tree}, {answer.family}"),
        ("space", answer.space),
        ("words, LoRAs", f"{answer.words:,}, {answer.loras:,}"),
        ("layers", answer.layers),
        ("LoRAs and pictures", answer.folder),
        *([("look at what was drawn", answer.contact_sheet)] if answer.contact_sheet else []),
        *((f"validation {name}, of grown LoRAs", f"{value:.1%}") for name, value in answer.validation.items()),
        ("took", ", ".join(f"{step} {seconds:.0f} s" for step, seconds in answer.took_s.items())),
    ]
    notes = ["`loradex index FOLDER` reads what waited for it; `loradex expert export` makes a file for others."]
    return AdaptiveTable("an expert was grown", (Column(""), Column("", Kind.PROSE)), rows, notes)
