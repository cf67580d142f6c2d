"""``loradex serve``: the page and, when asked for, the API and the agent tools."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from loradex.app.commands.options import Bases, Json, Zoo, examples

EXAMPLE = examples(
    "loradex serve",
    "loradex serve --api --mcp --port 8000",
    "loradex serve --host 0.0.0.0 --login login.txt --folder /srv/loras",
)
LOGIN = "LORADEX_LOGIN"


def serve(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 7860,
    zoo: Zoo = None,
    api: Annotated[bool, typer.Option("--api", help="Serve the REST API as well, at /api/v1.")] = False,
    mcp: Annotated[
        bool, typer.Option("--mcp", help="Serve agent tools (Model Context Protocol) as well, at /mcp.")
    ] = False,
    login: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with one line name:password, asked of everyone. Also: $LORADEX_LOGIN holds the line.",
        ),
    ] = None,
    open_to_all: Annotated[bool, typer.Option("--open", help="Listen beyond this machine without a login.")] = False,
    folder: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder below which people may index; may be repeated. Default: any, or none if others reach --host.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Name under which a proxy at this machine serves the page; may be repeated."),
    ] = None,
    base: Bases = None,
    as_json: Json = False,
) -> None:
    """Serve the web page, and the REST API and agent tools if asked to; --json prints the addresses once they are served."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # else it would end without tidying up
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # else torch's idle threads spin on the cores that a search needs next
    from loradex.app.backend import Desk
    from loradex.app.paths import zoo_to_read
    from loradex.app.search.service import Loradex
    from loradex.app.web.middleware import LOOPBACK
    from loradex.app.web.server import Service, login_of
    from loradex.app.web.server import serve as serve_desk

    said = login.read_text("utf-8") if login else os.environ.get(LOGIN)
    beyond = host not in LOOPBACK
    if beyond and not (said or open_to_all):
        raise typer.BadParameter(
            f"expected --login FILE for an address that others reach ({host}), found none; add it, or --open",
            param_hint="--host",
        )
    service = Service(host, port, login_of(said) if said else None, tuple(name or ()), api, mcp)
    desk = Desk(Loradex(zoo_to_read(zoo)), folder if folder or not beyond else (), base or ())

    def told(address: str) -> None:
        places = {
            "page": address,
            "api": f"{address}/api/v1" if api else None,
            "mcp": f"{address}/mcp" if mcp else None,
            "zoo": str(desk.loradex.zoo_folder),
        }
        if as_json:
            sys.stdout.write(json.dumps(places) + "\n")
            sys.stdout.flush()
        sys.stderr.write(f"Loradex serves {desk.loradex.zoo_folder} on {address} (Ctrl+C ends it)\n")
        sys.stderr.flush()

    serve_desk(desk, service, told)
