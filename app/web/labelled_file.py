"""An uploaded file that was labelled."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loradex.app.search.answers import LabelAnswer


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """An uploaded file, kept in the page's session so that the map can place it and the panel can draw with it.

    Attributes:
        name: file name, as uploaded.
        path: where the server keeps the file until it expires.
        answer: its labels.
        card: the HTML of its card, before and after the words that it was trained with.
    """

    name: str
    path: str
    answer: LabelAnswer = field(repr=False)
    card: tuple[str, str] = field(repr=False)

    @property
    def vector(self) -> NDArray[np.float32] | None:
        """Its position (dim,) in the space; None if no expert could read it."""
        return self.answer.vector
