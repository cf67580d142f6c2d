"""The kinds of evidence that are read from weights, the weightiest first.

Previews are the other kind: they lie beside the file (``preview.py``).
"""

from collections.abc import Mapping
from typing import Final

from loradex.app.indexing.evidence import picture
from loradex.app.indexing.evidence.finding import WeightsEvidence
from loradex.index import Evidence

FROM_WEIGHTS: Final[Mapping[Evidence, WeightsEvidence]] = {Evidence.PICTURE: picture}
