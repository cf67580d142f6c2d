"""Growing: an expert from a base model alone, by LoRAs of pictures that the base model draws itself."""
