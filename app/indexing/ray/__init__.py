"""The reading engine that uses a Ray cluster."""
