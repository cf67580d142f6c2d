"""Experts: layer updates -> vectors of the weight-language space."""
