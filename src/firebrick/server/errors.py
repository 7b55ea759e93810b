"""What can go wrong between a request and its build."""

from __future__ import annotations

from firebrick.errors import FirebrickError


class ServerError(FirebrickError):
    """Anything the server could not do."""


class RequestError(ServerError):
    """The request asks for something that cannot be: well-formed, but wrong."""


class BuildNotFoundError(ServerError):
    """There is no such build."""


class ArtifactNotFoundError(ServerError):
    """The build has no such artifact."""


class BuildOverError(ServerError):
    """The build has ended, and what was asked for can only be done before."""


class BuildBusyError(ServerError):
    """The build has not ended, or waits for nothing, and what was asked for can only be done then."""


class KeyUsedError(ServerError):
    """The idempotency key came with another request before."""


class QueueFullError(ServerError):
    """More builds are waiting than the server is willing to keep."""


class HomeInUseError(ServerError):
    """Another server runs on this home."""


class PlanError(ServerError):
    """The source tree says not, or not well, what to run."""
