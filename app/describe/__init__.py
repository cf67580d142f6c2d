"""Descriptions: what Loradex knows about LoRAs, shown, or written as side-cars and model cards beside them."""
