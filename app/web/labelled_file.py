"""A file that was sent to the page."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Upload:
    """Its name as it was sent, where it lies for a while, and its vector (dim,) if an expert reads it."""

    name: str
    path: str
    vector: NDArray[np.float32] | None = field(repr=False)
