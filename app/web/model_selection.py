"""Models that someone picks out with buttons, and can take away again."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from loradex.app.web.cards import QUIET, html

LONGEST_ID = 200  # characters


def id_of(event: gr.EventData) -> str:
    """What a button in the HTML names."""
    return str(getattr(event, "id", ""))[:LONGEST_ID]


class Choice:
    """Ids of up to ``most`` models, in the order in which they were picked, and what is shown of them."""

    def __init__(self, most: int, view: Callable[[list[str]], str]) -> None:
        """Build the place where it stands."""
        self.most, self.view = most, view
        self.ids, self.place = gr.State([]), html()

    def taken(self, when: Callable[..., Any]) -> Any:
        """Have an event of a place pick a model."""
        return when(self.take, self.ids, [self.ids, self.place], **QUIET)

    def dropped(self) -> Any:
        """Have the buttons shown here take models away."""
        return self.place.drop(self.drop, self.ids, [self.ids, self.place], **QUIET)

    def take(self, held: list[str], event: gr.EventData) -> tuple[list[str], str]:
        """One more; the oldest goes when there are too many."""
        held = [*(id for id in held if id != id_of(event)), id_of(event)][-self.most :]
        return held, self.view(held)

    def drop(self, held: list[str], event: gr.EventData) -> tuple[list[str], str]:
        """One less."""
        held = [id for id in held if id != id_of(event)]
        return held, self.view(held)
