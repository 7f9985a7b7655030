"""`evengrad serve`: a folder of runs -> a local page over it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from evengrad.cli.study import Folder


def serve(
    *,
    store: Folder = None,
    host: Annotated[str, typer.Option(help="Address to listen on; one beyond this machine needs --token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8377,
    token: Annotated[str | None, typer.Option(help="What requests from elsewhere must bring.", envvar="EVENGRAD_TOKEN")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Show the kept runs, studies, rules and a playground as a local page."""
    from evengrad.serve import serve as start
    from evengrad.store import default_folder

    def started(address: str) -> None:
        print(f"evengrad serves {address} (Ctrl-C stops it)", file=sys.stderr, flush=True)
        if open_:
            import webbrowser

            webbrowser.open(address)

    start(store or default_folder(), host=host, port=port, token=token, started=started)
