"""Indexing: folders and repositories of LoRAs are read into a zoo."""
