"""Benchmarks, generators of documents, and the builds of the miniature and of the Model-J measurements."""
