"""A request -> the application, if host, origin and token are right; each answer gets a policy that loads nothing from elsewhere."""

from __future__ import annotations

import hmac
import ipaddress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
TOKEN_HEADER, COOKIE = "x-evengrad-token", "evengrad_token"
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware.

    Args:
        app: What is guarded.
        host: Address that is listened on; loopback ones need no token to look.
        token: What every change, and beyond loopback every request, must bring.
    """

    def __init__(self, app: ASGIApp, *, host: str, token: str) -> None:
        self._app, self._token, self._host = app, token, host
        self._open = is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers for the application where a request is not in order."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        named = headers.get("host", "")
        if not self._knows(named):
            return PlainTextResponse(f"this page is served at {self._host}; the request was for another host", 421)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != named:
            return PlainTextResponse("requests of other pages are not answered", 403)
        if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"} and not _is_link(scope, headers):
            return PlainTextResponse("requests of other pages are not answered", 403)
        if scope["method"] not in {"GET", "HEAD"} and not self._right(headers.get(TOKEN_HEADER, "")):
            return PlainTextResponse(f"a change needs the header {TOKEN_HEADER}; reload the page", 403)
        return None if self._open else self._entry(scope, headers)

    def _entry(self, scope: Scope, headers: Headers) -> Response | None:
        """Beyond loopback: the token comes once in the address, then as a cookie that scripts cannot read."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if given is not None and self._right(given) and scope["method"] == "GET":
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            answer = RedirectResponse("/" + scope["path"].lstrip("/") + (f"?{rest}" if rest else ""), 303)
            answer.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            return answer
        if self._right(_cookie(headers.get("cookie", ""))) or self._right(headers.get(TOKEN_HEADER, "")):
            return None
        return PlainTextResponse("this page needs its token: open the address that `evengrad serve` printed", 401)

    def _knows(self, named: str) -> bool:
        """A page elsewhere whose name is made to point here (DNS rebinding) asks for its own name."""
        try:
            host = urlsplit(f"//{named}").hostname or ""
        except ValueError:
            return False
        if self._open:
            return host in _LOCAL or host == self._host
        return host in _LOCAL or host == self._host or _is_address(host)

    def _right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


def _is_link(scope: Scope, headers: Headers) -> bool:
    """Whether someone followed a link: another page may lead here, but not load from here."""
    return scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
