"""Experts: training, evaluation, and the categories of full models."""
