"""What the services refuse. `code` is the word of an error in the Twirp protocol, `status` its number in HTTP."""

from __future__ import annotations

from http import HTTPStatus
from typing import ClassVar

from firebrick.errors import FirebrickError


class ResultsError(FirebrickError):
    """The message goes to the client."""

    code: ClassVar[str] = "internal"
    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR


class InvalidError(ResultsError):
    """The request is not one of the protocol, or breaks one of its rules."""

    code = "invalid_argument"
    status = HTTPStatus.BAD_REQUEST


class UnauthenticatedError(ResultsError):
    """No token, or one that is not ours or not valid any more."""

    code = "unauthenticated"
    status = HTTPStatus.UNAUTHORIZED


class DeniedError(ResultsError):
    """The token is good, and not for this."""

    code = "permission_denied"
    status = HTTPStatus.FORBIDDEN


class MissingError(ResultsError):
    """There is no such thing, or none the token may see."""

    code = "not_found"
    status = HTTPStatus.NOT_FOUND


class TakenError(ResultsError):
    """The name is another's."""

    code = "already_exists"
    status = HTTPStatus.CONFLICT


class QuotaError(ResultsError):
    """There is no room for it. Not a status clients try again after; the artifact client knows the words `insufficient usage`."""

    code = "resource_exhausted"
    status = HTTPStatus.FORBIDDEN

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"insufficient usage: {message}", hint=hint)
