"""An uploaded file that was labelled."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """An uploaded file, kept in the page's session so that the map can place it and the panel can draw with it.

    Attributes:
        name: file name, as uploaded.
        path: where the server keeps the file until it expires.
        vector: (dim,), its position in the space; None if no expert could read it.
    """

    name: str
    path: str
    vector: NDArray[np.float32] | None = field(repr=False)
