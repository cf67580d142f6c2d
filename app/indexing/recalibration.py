"""Positions of an older Loradex, whose scores are cosines, get a scale and a bias, so that all scores compare.

They are computed from the vectors; no file is read. The zoo's folder notes the state in which all positions have them:
while it lasts, the next run need not look at them again.
"""

from contextlib import suppress
from itertools import islice
from typing import Final

from loradex.app.indexing.evidence.positions import calibrated
from loradex.app.reporting import ProgressCallback
from loradex.index import AnyZoo, Evidence, Position
from loradex.retrieval.encoder import Encoder

NOTE: Final = "calibrated"  # file in the zoo's folder
BATCH: Final = 500  # models a transaction


def calibrate_old_positions(zoo: AnyZoo, encoder: Encoder, progress: ProgressCallback) -> None:
    """Calibrate the positions without a scale and a bias; one transaction a batch, so that a stopped run goes on.

    Raises:
        ZooError: the zoo cannot be read or written.
    """
    if is_noted(zoo) or not encoder.likelihoods:
        return
    families = [expert.family for expert in encoder.experts.values()]
    trees = {expert.family: tree for tree, expert in encoder.experts.items() if families.count(expert.family) == 1}

    def renewed(family: str, kind: Evidence, position: Position) -> Position:
        if position.is_calibrated:
            return position
        return calibrated(encoder, trees.get(family) if kind is Evidence.PICTURE else None, position.vector)

    models, done = zoo.models(), 0
    while batch := list(islice(models, BATCH)):
        placed = zoo.positions_by_id([model.id for model in batch])
        old = [model for model in batch if not all(each.is_calibrated for each in placed.get(model.id, {}).values())]
        if old:
            new = [
                {kind: renewed(model.family, kind, each) for kind, each in placed[model.id].items()} for model in old
            ]
            zoo.add(old, new)
        done += len(batch)
        progress(done, len(zoo), batch[-1].name)


def note_calibrated(zoo: AnyZoo, encoder: Encoder) -> None:
    """Note that in its present state all positions of a zoo are calibrated; without the note, the next run looks."""
    if encoder.likelihoods:
        with suppress(OSError):
            (zoo.folder / NOTE).write_text(name_of_state(zoo))


def is_noted(zoo: AnyZoo) -> bool:
    """Whether the zoo is still in the state that was noted."""
    with suppress(OSError, ValueError):
        return (zoo.folder / NOTE).read_text() == name_of_state(zoo)
    return False


def name_of_state(zoo: AnyZoo) -> str:
    """The zoo's state as a text."""
    state = zoo.state()
    return f"{state.generation}-{state.token.hex()}"
