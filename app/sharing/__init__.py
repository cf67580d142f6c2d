"""Experts that travel: one file with an expert and its space, written, checked, added, listed and removed."""
