"""A repository of a hub -> its LoRAs, read by ranges: the header, and of the data only what an expert needs."""

from retrieval.hub.lora import HubModel
from retrieval.hub.repository import HubFile, HubRepository

__all__ = ["HubFile", "HubModel", "HubRepository"]
