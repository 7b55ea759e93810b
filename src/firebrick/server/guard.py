"""What every request passes before anything looks at it: the host it names, the size of its body; and the line it leaves in the log.

The server has no accounts: whoever reaches it may use it. Bound to a loopback address it is reached by the programs of this host, a browser
among them; so that no page in it can speak to the server under a name of its own, requests must name a host that is this one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from firebrick.server.problem import problem

_LARGEST_BODY: Final = 1 << 20
_DRAINED_BODY: Final = 4 << 20
_BODY_S: Final = 30.0
_log = structlog.get_logger("firebrick.access")


class Guard:
    """ASGI middleware. `hosts` are the names a request may use for this server; None: any."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None = None) -> None:
        self._app = app
        self._hosts = None if hosts is None else frozenset(name.lower() for name in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 0, time.monotonic()

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            await self._admit(scope, receive, note)
        finally:
            milliseconds = round(1000 * (time.monotonic() - started), 1)
            _log.info("request", method=scope["method"], path=scope["path"], status=status or None, ms=milliseconds)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "0")
        if self._hosts is not None and host_of(headers.get("host", "")) not in self._hosts:
            refusal = problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "the request names a host that is not this server",
                hint="The server's setting `allowed_hosts` names others.",
            )
            await refusal(scope, receive, send)
        elif (
            not announced.isdecimal()
            or int(announced) > _LARGEST_BODY
            or (body := await _read(receive, _LARGEST_BODY)) is None
        ):
            await self._refuse(scope, receive, send)
        else:
            await self._app(scope, _replay(body, receive), send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A client that is still sending would see a broken connection instead of the answer; a little more is worth reading for that.
        await _read(receive, _DRAINED_BODY)
        detail = f"the body is larger than {_LARGEST_BODY >> 10} KiB, or does not come"
        refusal = problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, headers={"Connection": "close"})
        await refusal(scope, receive, send)


async def _read(receive: Receive, limit: int) -> bytes | None:
    """The body up to its end; None where it is larger than `limit` (in chunks it announces no length) or too slow."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            while len(body) <= limit:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        pass
    return None


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body once more, then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def host_of(header: str) -> str:
    """The name in a Host header, without the port."""
    if header.startswith("["):
        return header.partition("]")[0].removeprefix("[").lower()
    return header.partition(":")[0].lower()


def hosts_for(address: str, more: Collection[str]) -> frozenset[str] | None:
    """The names a server bound to this address goes by: this host's where only this host can reach it, else any."""
    try:
        loopback = address == "localhost" or ip_address(address).is_loopback
    except ValueError:
        loopback = False
    return frozenset({"localhost", "127.0.0.1", "::1", address, *more}) if loopback else None
