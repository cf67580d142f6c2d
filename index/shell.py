"""Paths in the commands that messages name."""

import os
import shlex
from subprocess import list2cmdline


def quote_path(path: object) -> str:
    """Return a path as it is typed into a shell of this system."""
    return list2cmdline([str(path)]) if os.name == "nt" else shlex.quote(str(path))
