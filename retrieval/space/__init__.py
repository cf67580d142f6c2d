"""The shared space: texts and pictures as vectors, labels near a vector, and calibrated probabilities."""
