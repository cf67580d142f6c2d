"""A short list of models that the user picks on the page: those in the query, and those being compared."""

from collections.abc import Callable
from typing import Any, Final

import gradio as gr

from loradex.app.web.elements import EVENT_OPTIONS, html_view

MAX_ID_LENGTH: Final = 200  # characters


def event_id(event: gr.EventData) -> str:
    """The id of the action button that was clicked."""
    return str(getattr(event, "id", ""))[:MAX_ID_LENGTH]


class ModelSelection:
    """The ids of up to ``limit`` models in the order in which they were picked, and a view of them.

    Attributes:
        ids: Gradio state with the list of ids.
        view: shows what ``render`` returns for the ids.
    """

    def __init__(self, limit: int, render: Callable[[list[str]], str]) -> None:
        """Create state and view; the view appears where this is called."""
        self.limit, self.render = limit, render
        self.ids, self.view = gr.State([]), html_view()

    def add_on(self, event: Callable[..., Any]) -> Any:
        """Add the clicked model on an event of a view, such as ``results.like``."""
        return event(self.add, self.ids, [self.ids, self.view], **EVENT_OPTIONS)

    def remove_on_drop(self) -> Any:
        """Remove a model when its "drop" button in the view is clicked."""
        return self.view.drop(self.remove, self.ids, [self.ids, self.view], **EVENT_OPTIONS)

    def add(self, ids: list[str], event: gr.EventData) -> tuple[list[str], str]:
        """Append the clicked model; the oldest is dropped beyond the limit."""
        clicked = event_id(event)
        ids = [*(id for id in ids if id != clicked), clicked][-self.limit :]
        return ids, self.render(ids)

    def remove(self, ids: list[str], event: gr.EventData) -> tuple[list[str], str]:
        """Remove the clicked model."""
        ids = [id for id in ids if id != event_id(event)]
        return ids, self.render(ids)
