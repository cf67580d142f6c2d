"""Experts: training them, evaluating them, and predicting the categories of full models."""
