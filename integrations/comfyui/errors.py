"""Errors of the node pack, and the commands that mend them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
DEFAULT_PORT = 7860


class LoradexError(Exception):
    """A request to Loradex, or a question to it, that failed.

    Attributes:
        kind: name of the error: ``NoServer``, ``LoginNeeded``, ``NoApi``, ``TooSlow``, or one of the server's.
        message: one line: what was expected, what was found, how to mend it.
        command: the command that mends it, if one does.
    """

    __module__ = "loradex"  # ComfyUI shows the name of the module, which is a path

    def __init__(self, kind: str, message: str, command: str | None = None) -> None:
        """Create the error."""
        line = " ".join(message.split())
        super().__init__(line)
        self.kind, self.message, self.command = kind, line, command

    def document(self) -> dict[str, Any]:
        """The error as the sidebar shows it."""
        return {"error": {"kind": self.kind, "message": self.message, "command": self.command}}


def serve_command(address: str) -> str:
    """The command that starts a server at an address of this machine."""
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    is_other_port = parts.hostname in LOOPBACK and port != DEFAULT_PORT
    return f"loradex serve --api --port {port}" if is_other_port else "loradex serve --api"
