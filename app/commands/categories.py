"""``loradex categories``."""

from __future__ import annotations

from typing import Annotated

import typer

from loradex.app.commands.options import Json, examples
from loradex.app.commands.output import leave_if_refused, show

EXAMPLE = examples("loradex categories model.safetensors")


def categories(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="Whole models that tell pictures apart (.safetensors).")
    ],
    as_json: Json = False,
) -> None:
    """Say which categories whole models were trained on, by their weights alone."""
    from rich.progress import track

    from loradex.app.commands.tables import stderr, table_of
    from loradex.app.experts.category_prediction import SURE, tell_categories
    from loradex.app.paths import encoder_folders
    from loradex.retrieval.encoder import Encoder

    told = tell_categories(Encoder.load(*encoder_folders()), files)
    answers = list(track(told, "Reading", total=len(files), console=stderr(), transient=True, disable=len(files) < 20))
    refused = [answer for answer in answers if answer.reason]
    if len(refused) < len(answers) or as_json:
        rows = [(a.file, a.tree, a.line) for a in answers if not a.reason]
        show(
            {"results": [answer.document() for answer in answers]},
            table_of(
                ("file", "tree", f"trained on (sure to {SURE:.0%} where no number stands)"),
                rows,
                f"{len(rows)} of {len(files)} files",
            ),
            as_json,
        )
    leave_if_refused([str(answer.reason) for answer in refused], len(answers))
