"""Indexing: folders and repositories of LoRAs -> a zoo."""
