"""A folder of runs, an address -> a page that is served until it is stopped."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from evengrad.errors import InputError
from evengrad.serve.guard import is_loopback

if TYPE_CHECKING:
    import uvicorn

PORT = 8377


def serve(
    store: Path,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    token: str | None = None,
    started: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves the page over a folder of runs until the process is stopped (Ctrl-C). Starts without torch.

    Args:
        store: Folder of runs; it need not exist yet.
        host: Address to listen on. One that is not this machine's own needs a token.
        port: Port to listen on; 0 takes a free one.
        token: What requests must bring beyond this machine, and every change anywhere; drawn anew by default.
        started: Called with the address to open; from then on requests are taken, and answered in a moment.

    Raises:
        InputError: if starlette and uvicorn are not installed, the address cannot be listened on, or it needs a token.

    Example:
        >>> serve(Path("runs"))
    """
    made, bound, address = prepare(store, host=host, port=port, token=token)
    started(address)
    made.run(sockets=[bound])


def prepare(store: Path, *, host: str, port: int, token: str | None) -> tuple[uvicorn.Server, socket.socket, str]:
    """Returns a server that has not begun, the socket that it will take requests from, and the address to open."""
    if token is None and not is_loopback(host):
        raise InputError(f"{host!r} can be reached from other machines: give a token of 16 signs or more (--token), which they must bring")
    if token is not None and len(token) < 16 and not is_loopback(host):
        raise InputError(
            f"expected a token of 16 signs or more, got {len(token)}; python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    try:
        import uvicorn

        from evengrad.serve.app import create_app
    except ModuleNotFoundError as error:
        if error.name not in {"starlette", "uvicorn", "anyio"}:
            raise
        raise InputError(f"the page needs {error.name}, which is not installed. Install it with: pip install 'evengrad[serve]'") from error
    bound = _bound(host, port)
    kept = token or secrets.token_urlsafe(24)
    served: list[uvicorn.Server] = []
    app = create_app(store, token=kept, host=host, leaving=lambda: any(one.should_exit for one in served))
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2, server_header=False)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{bound.getsockname()[1]}/" + ("" if is_loopback(host) else f"?token={kept}")
    served.append(uvicorn.Server(config))
    return served[0], bound, address


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(place)
            bound.listen()  # who opens the address at once waits, and is not refused
        except OSError:
            bound.close()
            raise
    except (OSError, OverflowError) as error:
        raise InputError(f"port {port} of {host!r} cannot be listened on ({error}). Give another one with --port, or --port 0") from error
    return bound
