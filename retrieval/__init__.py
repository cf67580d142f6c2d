"""Weights and words -> vectors of one space."""
