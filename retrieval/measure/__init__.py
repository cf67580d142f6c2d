"""Metrics with confidence intervals, and the baselines that experts are compared with."""
