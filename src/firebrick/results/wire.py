"""Requests and answers, as all the protocols have them. Whoever sends is hostile: what is read is bounded, and nothing is sent back unencoded."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from firebrick.results.errors import InvalidError, ResultsError, UnauthenticatedError
from firebrick.results.limits import LINK_S
from firebrick.results.link import Right, signed
from firebrick.results.parts import Parts
from firebrick.results.staging import Body
from firebrick.results.token import Grant, read_grant

_LARGEST_JSON: Final = 64 << 10
_MOST_HEARD: Final = 256 << 20
_HEARD_S: Final = 60.0
_SCHEMES: Final = ("bearer", "token")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?\Z")

T = TypeVar("T")
Method = Callable[[Request, Grant], Awaitable[Response]]


def twirp(service: str, methods: Mapping[str, Method]) -> Route:
    """Where the methods of a service are called, each by its name."""

    async def call(request: Request) -> Response:
        method = methods.get(request.path_params["method"])
        if method is None:
            raise HTTPException(404, f"{service} has no such method")
        return await method(request, granted(request))

    return Route(f"/twirp/github.actions.results.api.v1.{service}/{{method}}", call, methods=["POST"])


def granted(request: Request) -> Grant:
    """What the request's token grants. Raises UnauthenticatedError."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() not in _SCHEMES or not token:
        raise UnauthenticatedError("the request has no token", hint="It is ACTIONS_RUNTIME_TOKEN, as a bearer.")
    return read_grant(parts(request).key, token.strip())


def parts(request: Request) -> Parts:
    found: Parts = request.app.state.parts
    return found


async def read_body(request: Request, most: int) -> bytes:
    """All of it. Raises InvalidError for more than `most` bytes."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise InvalidError(f"the body is larger than {most} bytes")
    return bytes(data)


async def read_json(request: Request, shape: type[T]) -> T:
    """The body, of this shape. Raises InvalidError."""
    try:
        return msgspec.json.decode(await read_body(request, _LARGEST_JSON), type=shape, strict=False)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidError(f"the body is not what is expected here: {error}") from error


def body_of(request: Request) -> Body:
    """What the request carries, to be streamed. Raises InvalidError for a checksum that cannot be checked."""
    if "x-ms-content-crc64" in request.headers:
        raise InvalidError("CRC-64 checksums are not computed here", hint="Send Content-MD5, or none.")
    length = request.headers.get("content-length", "")
    return Body(chunks=_chunks(request), length=int(length) if length.isdecimal() else None, md5=_md5(request))


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise InvalidError("the client went away in the middle of the body") from error


def _md5(request: Request) -> bytes | None:
    text = request.headers.get("content-md5")
    if text is None:
        return None
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidError("Content-MD5 is not base64") from error
    if len(digest) != 16:
        raise InvalidError("Content-MD5 is not 16 bytes")
    return digest


def number_of(request: Request, name: str = "number") -> int:
    """A number in the path. Raises InvalidError."""
    text: str = request.path_params[name]
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise InvalidError(f"{text[:40]!r} is not a number")
    return int(text)


def link(request: Request, path: str, right: Right) -> str:
    """A whole address, at the host the client has called us by, that needs no token."""
    host = request.headers.get("host", "")
    if not _HOST.match(host):
        raise InvalidError("the Host of the request is no host")
    return f"http://{host}{signed(parts(request).key, path, right, lifetime_s=LINK_S)}"


def answer(content: Any, status: int = 200) -> Response:
    return JSONResponse(content, status_code=status)


def refusal(code: str, message: str, status: int) -> Response:
    """An error as the Twirp clients (`msg`) and the others (`message`) read it, and Azure's (the header)."""
    body = {"code": code, "msg": message, "message": message}
    return JSONResponse(body, status_code=status, headers={"x-ms-error-code": code})


async def on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ResultsError)
    await _hear_out(request)
    text = f"{error}. {error.hint}" if error.hint else str(error)
    return refusal(error.code, text, error.status)


async def on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    await _hear_out(request)
    return refusal("bad_route", error.detail, error.status_code)


async def _hear_out(request: Request) -> None:
    """Let a client finish what it says before it is answered: who is cut off in the middle of a body does not read the answer, and tries again."""
    left = _MOST_HEARD
    with contextlib.suppress(ClientDisconnect, RuntimeError, TimeoutError):  # gone; heard already; too slow
        async with asyncio.timeout(_HEARD_S):
            async for chunk in request.stream():
                left -= len(chunk)
                if left < 0:
                    return


async def on_accident(_request: Request, _error: Exception) -> Response:
    return refusal("internal", "the host failed; its log says more", 500)
