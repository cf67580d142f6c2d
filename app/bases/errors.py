"""Errors of base models by family, besides those of reading their files.

NoBase           no base model of a family is at hand, or the one that was named has moved or changed
RegistryError    the list of named base models cannot be read or written; it is left as it was
"""

from loradex.retrieval.errors import LoradexError


class NoBase(LoradexError):
    """No base model of a family is at hand; the message says how to name one."""


class RegistryError(LoradexError):
    """The list of named base models cannot be read or written; it is left as it was."""
