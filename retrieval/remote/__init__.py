"""A repository of a hub, or a folder of another store -> its LoRAs, read by ranges: the header, and of the data only what an expert needs."""

from loradex.retrieval.remote.folder import RemoteFolder, is_remote, open_folder
from loradex.retrieval.remote.fsspec_folder import StoreFile, StoreFolder
from loradex.retrieval.remote.hub_repository import HubFile, HubRepository
from loradex.retrieval.remote.model import HubModel

__all__ = [
    "HubFile",
    "HubModel",
    "HubRepository",
    "RemoteFolder",
    "StoreFile",
    "StoreFolder",
    "is_remote",
    "open_folder",
]
