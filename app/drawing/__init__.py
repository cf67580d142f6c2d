"""Drawing with models and with their base models."""
