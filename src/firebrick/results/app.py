"""The protocols as one HTTP application. Every answer has an `x-ms-request-id`: some clients read it without asking whether it is there."""

from __future__ import annotations

import secrets

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from firebrick.results import artifact_api, blob_api, cache_api
from firebrick.results.errors import ResultsError
from firebrick.results.parts import Parts
from firebrick.results.wire import on_accident, on_error, on_http_error


def create_app(parts: Parts) -> Starlette:
    app = Starlette(
        routes=[*artifact_api.ROUTES, *cache_api.ROUTES, *blob_api.ROUTES],
        middleware=[Middleware(_RequestId)],
        exception_handlers={ResultsError: on_error, HTTPException: on_http_error, Exception: on_accident},
    )
    app.state.parts = parts
    return app


class _RequestId:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-ms-request-id"] = secrets.token_hex(16)
            await send(message)

        await self._app(scope, receive, stamped if scope["type"] == "http" else send)
