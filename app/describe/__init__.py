"""Descriptions: what is known of a LoRA, and side-cars and model cards written beside it."""
