"""Where the Loradex server is, and its login.

The address is a setting of ComfyUI. The login never is: what lies in a person's folder below ``user`` is served to
browsers. It is a file in ComfyUI's folder ``user/__loradex`` (names that begin with ``__`` are for programs alone), or
the environment; and it is sent to this machine, or to the address beside it, so that nobody who may change settings
can have it sent elsewhere.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import folder_paths

from .errors import LOOPBACK, LoradexError

DEFAULT_ADDRESS = "http://127.0.0.1:7860"
ADDRESS_SETTING = "Loradex.Server.Address"
ADDRESS_VARIABLE = "LORADEX_SERVER"
LOGIN_VARIABLE = "LORADEX_LOGIN"
LOGIN_FILE = "__loradex/login.txt"  # below ComfyUI's folder ``user``
MAX_SETTINGS_BYTES = 2**20
USER = re.compile(r"[A-Za-z0-9_-]{1,200}")


def server_address(user: str = "default") -> str:
    """The address of the server: of ``$LORADEX_SERVER``, else of a person's settings in ComfyUI, else the default.

    Raises:
        LoradexError: it is no address.
    """
    written = os.environ.get(ADDRESS_VARIABLE) or person_settings(user).get(ADDRESS_SETTING) or DEFAULT_ADDRESS
    return checked_address(written)


def checked_address(written: object) -> str:
    """An address without what is around it.

    Raises:
        LoradexError: it is no address of a server, or holds a login.
    """
    address = str(written).strip().rstrip("/")
    try:
        parts = urlsplit(address)
        port_is_known = parts.port != 0
    except ValueError:
        parts, port_is_known = urlsplit(""), False
    if parts.username is not None or parts.password is not None:
        raise LoradexError(
            "BadAddress",
            f"Loradex: expected an address without a login, found one with it; write the login into user/{LOGIN_FILE}",
        )
    is_plain = address.isascii() and address.isprintable() and " " not in address
    bare = not (parts.query or parts.fragment)
    if parts.scheme not in ("http", "https") or not parts.hostname or not (port_is_known and is_plain and bare):
        raise LoradexError(
            "BadAddress",
            f"Loradex: expected an address such as {DEFAULT_ADDRESS}, found {address[:100]!r}; "
            "correct it in ComfyUI's settings, Loradex",
        )
    return address


def person_settings(user: str) -> dict[str, object]:
    """The settings that a person has made in ComfyUI; none if they cannot be read."""
    if not USER.fullmatch(user):
        return {}
    try:
        with (Path(folder_paths.get_user_directory()) / user / "comfy.settings.json").open("rb") as file:
            settings = json.loads(file.read(MAX_SETTINGS_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def login_for(address: str) -> str | None:
    """The login ``name:password`` that an address may be sent; None if there is none.

    Raises:
        LoradexError: the file of the login cannot be read.
    """
    lines = login_lines()
    if not lines:
        return None
    own = os.environ.get(ADDRESS_VARIABLE) if os.environ.get(LOGIN_VARIABLE) else "".join(lines[1:2])
    may_have_it = urlsplit(address).hostname in LOOPBACK or (own or "").strip().rstrip("/") == address
    return lines[0] if may_have_it else None


def login_lines() -> list[str]:
    """The lines of the login: ``name:password``, and if it is for a server elsewhere, its address.

    Raises:
        LoradexError: as ``login_for``.
    """
    if line := os.environ.get(LOGIN_VARIABLE):
        return [line.strip()]
    path = Path(folder_paths.get_user_directory()) / LOGIN_FILE
    try:
        with path.open("rb") as file:
            text = file.read(MAX_SETTINGS_BYTES).decode("utf-8-sig")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError):
        raise LoradexError(
            "BadLogin", f"Loradex: expected a line name:password in user/{LOGIN_FILE}, found no text; write it again"
        ) from None
    return [line.strip() for line in text.splitlines() if line.strip()]
