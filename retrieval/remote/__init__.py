"""Remote LoRAs, in repositories of a hub and in file systems that fsspec knows.

They are read by byte ranges: the header, and of the data only the layers that an expert reads.
"""

from loradex.retrieval.remote.folder import RemoteFolder, is_remote, open_folder
from loradex.retrieval.remote.fsspec_folder import FsspecFile, FsspecFolder
from loradex.retrieval.remote.hub_repository import HubFile, HubRepository
from loradex.retrieval.remote.model import RemoteModel

__all__ = [
    "FsspecFile",
    "FsspecFolder",
    "HubFile",
    "HubRepository",
    "RemoteFolder",
    "RemoteModel",
    "is_remote",
    "open_folder",
]
