"""``loradex serve`` and ``mcp``: the web page, the REST API and the agent tools."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from loradex.app.commands.options import ZOO_PANEL, BaseModelFolders, Json, ZooToRead, examples

LOGIN_VARIABLE = "LORADEX_LOGIN"

app = typer.Typer()


@app.command(
    epilog=examples(
        "loradex serve",
        "loradex serve --api --mcp --port 8000",
        "loradex serve --host 0.0.0.0 --login login.txt --folder /srv/loras",
    ),
    rich_help_panel=ZOO_PANEL,
)
def serve(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 7860,
    zoo: ZooToRead = None,
    api: Annotated[bool, typer.Option("--api", help="Also serve the REST API, at /api/v1.")] = False,
    mcp: Annotated[
        bool, typer.Option("--mcp", help="Also serve agent tools (Model Context Protocol), at /mcp.")
    ] = False,
    login: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with one line name:password that everyone must give. Also: the line itself in $LORADEX_LOGIN.",
        ),
    ] = None,
    open_to_all: Annotated[bool, typer.Option("--open", help="Listen beyond this machine without a login.")] = False,
    folder: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder below which people may index; may be repeated. Default: any; none if others can reach --host.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Host name under which a proxy on this machine serves the page; may be repeated."
        ),
    ] = None,
    base: BaseModelFolders = None,
    as_json: Json = False,
) -> None:
    """Serve the web page, and optionally the REST API and agent tools; --json prints the addresses when they are up."""
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # SystemExit, so that temporary files are removed
    # By default torch's idle threads spin on the cores that the next search needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from loradex.app.backend import Backend
    from loradex.app.paths import zoo_to_read
    from loradex.app.search.service import Loradex
    from loradex.app.web.middleware import LOOPBACK_HOSTS
    from loradex.app.web.server import ServerOptions, parse_login
    from loradex.app.web.server import serve as serve_backend

    login_line = login.read_text("utf-8") if login else os.environ.get(LOGIN_VARIABLE)
    reached_by_others = host not in LOOPBACK_HOSTS
    if reached_by_others and not (login_line or open_to_all):
        raise typer.BadParameter(
            f"expected --login FILE for an address that others reach ({host}), found none; add it, or --open",
            param_hint="--host",
        )
    options = ServerOptions(host, port, parse_login(login_line) if login_line else None, tuple(name or ()), api, mcp)
    backend = Backend(Loradex(zoo_to_read(zoo)), folder if folder or not reached_by_others else (), base or ())

    def print_addresses(address: str) -> None:
        addresses = {
            "page": address,
            "api": f"{address}/api/v1" if api else None,
            "mcp": f"{address}/mcp" if mcp else None,
            "zoo": str(backend.loradex.zoo_folder),
        }
        if as_json:
            sys.stdout.write(json.dumps(addresses) + "\n")
            sys.stdout.flush()
        sys.stderr.write(f"Loradex serves {backend.loradex.zoo_folder} on {address} (Ctrl+C ends it)\n")
        sys.stderr.flush()

    serve_backend(backend, options, print_addresses)


@app.command(
    epilog=examples("loradex mcp --zoo my-zoo", "claude mcp add loradex -- loradex mcp"), rich_help_panel=ZOO_PANEL
)
def mcp(zoo: ZooToRead = None) -> None:
    """Serve tools (Model Context Protocol) to an agent on this machine, over stdin and stdout."""
    from loradex.app.api.tools import agent_tools
    from loradex.app.backend import Backend
    from loradex.app.paths import zoo_to_read
    from loradex.app.search.service import Loradex

    agent_tools(Backend(Loradex(zoo_to_read(zoo))), local=True).run("stdio")
