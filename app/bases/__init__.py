"""The base models that a person has named, which commands find by family.

``registry`` keeps them in a file, ``bases`` answers for a family, and ``search`` finds them in the usual folders.
"""

from loradex.app.bases.bases import Bases
from loradex.app.bases.errors import NoBase, RegistryError

__all__ = ["Bases", "NoBase", "RegistryError"]
