"""Answers as tables, a file for each file of commands."""
