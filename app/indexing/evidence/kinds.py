"""The kinds of evidence that are made where a file is read, the weightiest first.

The others are made where the zoo is written: words need a base model (``words.py``), previews a CLIP (``preview.py``).
"""

from collections.abc import Mapping
from typing import Final

from loradex.app.indexing.evidence import picture
from loradex.app.indexing.evidence.finding import WeightsEvidence
from loradex.index import Evidence

FROM_WEIGHTS: Final[Mapping[Evidence, WeightsEvidence]] = {Evidence.PICTURE: picture}
