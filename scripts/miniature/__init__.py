"""Builds the miniature, the zoo that ships with Loradex, from open emoji drawings."""
