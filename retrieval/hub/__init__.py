"""A repository of a hub, or a folder of another store -> its LoRAs, read by ranges: the header, and of the data only what an expert needs."""

from loradex.retrieval.hub.folder import RemoteFolder, is_remote, open_folder
from loradex.retrieval.hub.lora import HubModel
from loradex.retrieval.hub.repository import HubFile, HubRepository
from loradex.retrieval.hub.store import StoreFile, StoreFolder

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
