"""Errors over HTTP: `application/problem+json`, RFC 9457. What a caller sent is not repeated in them: there may be a secret in it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from firebrick.forge.errors import ForgeError
from firebrick.server.errors import (
    ArtifactNotFoundError,
    BuildBusyError,
    BuildNotFoundError,
    BuildOverError,
    KeyUsedError,
    PlanError,
    QueueFullError,
    RequestError,
    ServerError,
)
from firebrick.server.shape import ProblemView

MEDIA_TYPE: Final = "application/problem+json"
_RETRY_AFTER_S: Final = 10
_SEE: Final = "GET /docs shows what there is."
_UNROUTED: Final[Mapping[HTTPStatus, str]] = {
    HTTPStatus.NOT_FOUND: "there is nothing at this path",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path does not take this method",
}
_log = structlog.get_logger("firebrick.server")

_STATUS: Final[Mapping[type[ServerError], HTTPStatus]] = {
    RequestError: HTTPStatus.UNPROCESSABLE_ENTITY,
    BuildNotFoundError: HTTPStatus.NOT_FOUND,
    ArtifactNotFoundError: HTTPStatus.NOT_FOUND,
    BuildOverError: HTTPStatus.CONFLICT,
    BuildBusyError: HTTPStatus.CONFLICT,
    KeyUsedError: HTTPStatus.CONFLICT,
    PlanError: HTTPStatus.CONFLICT,
    QueueFullError: HTTPStatus.SERVICE_UNAVAILABLE,
}


class ProblemResponse(JSONResponse):
    media_type = MEDIA_TYPE


def problem(
    status: HTTPStatus, detail: str, *, hint: str = "", headers: Mapping[str, str] | None = None, **more: Any
) -> ProblemResponse:
    """An error as a response."""
    view = ProblemView(title=status.phrase, status=status, detail=detail, hint=hint or None, **more)
    return ProblemResponse(view.model_dump(exclude_none=True), status_code=status, headers=dict(headers or {}))


def install_problems(app: FastAPI) -> None:
    """Have every error of the app answered as a problem."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ServerError, _server)
    app.add_exception_handler(ForgeError, _forge)
    app.add_exception_handler(Exception, _unexpected)


async def _invalid(_request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    errors = [{"field": ".".join(str(part) for part in e["loc"][1:]), "message": _message(e)} for e in error.errors()]
    if any(e["type"] == "json_invalid" for e in error.errors()):
        return problem(HTTPStatus.BAD_REQUEST, "the body is not JSON", errors=errors)
    detail = "; ".join(f"{e['field'] or 'body'}: {e['message']}" for e in errors)
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


def _message(error: Any) -> str:
    """In our words where the check was ours: pydantic sets them behind its own."""
    return str(error["msg"]).removeprefix("Value error, ")


async def _http(_request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    if error.detail != status.phrase:
        return problem(status, error.detail, headers=error.headers)
    return problem(status, _UNROUTED.get(status, error.detail), hint=_SEE, headers=error.headers)


async def _server(_request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, ServerError)
    status = _STATUS.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR)
    headers = {"Retry-After": str(_RETRY_AFTER_S)} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
    return problem(status, str(error), hint=error.hint, headers=headers)


async def _forge(_request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, ForgeError)
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), hint=error.hint)


async def _unexpected(request: Request, error: Exception) -> ProblemResponse:
    _log.error("request failed", method=request.method, path=request.url.path, exc_info=error)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; its log says more")
