"""Kinds of evidence, as they are made while files are indexed: a file for each."""
