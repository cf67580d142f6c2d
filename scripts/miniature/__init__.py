"""Builds the miniature zoo that ships with Loradex, step by step, from open emoji drawings."""
