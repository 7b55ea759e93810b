"""The artifact protocol, version 4: Twirp with JSON, and the two calls of the REST API that find artifacts of other runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from firebrick.results.artifact import Finished
from firebrick.results.clock import SECOND, rfc3339
from firebrick.results.errors import DeniedError, InvalidError
from firebrick.results.link import Right
from firebrick.results.record import Artifact
from firebrick.results.schema import artifacts
from firebrick.results.token import Grant
from firebrick.results.wire import Method, answer, granted, link, number_of, parts, read_json, twirp

_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})\Z")
_PER_PAGE: Final = 100


class _OfRun(msgspec.Struct):
    workflow_run_backend_id: str = ""
    workflow_job_run_backend_id: str = ""


class _Create(_OfRun):
    name: str = ""
    expires_at: datetime | None = None
    mime_type: str | None = None


class _Finalize(_OfRun):
    name: str = ""
    size: int = 0
    hash: str | None = None


class _List(_OfRun):
    name_filter: str | None = None
    id_filter: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | None = None


class _Named(_OfRun):
    name: str = ""


def _check(grant: Grant, asked: _OfRun) -> None:
    """A token is good for its own run and job. Raises DeniedError."""
    if (asked.workflow_run_backend_id, asked.workflow_job_run_backend_id) != (grant.run_id, grant.job_id):
        raise DeniedError("the run or job in the request is not the one of the token")


async def _create(request: Request, grant: Grant) -> Response:
    asked = await read_json(request, _Create)
    _check(grant, asked)
    number = await parts(request).artifacts.create(
        grant, asked.name, mime=asked.mime_type or "", expires_us=_microseconds(asked.expires_at)
    )
    return answer({"ok": True, "signed_upload_url": link(request, f"/blob/uploads/{number}", Right.WRITE)})


def _microseconds(time: datetime | None) -> int | None:
    if time is None:
        return None
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return int(aware.timestamp()) * SECOND


async def _finalize(request: Request, grant: Grant) -> Response:
    asked = await read_json(request, _Finalize)
    _check(grant, asked)
    finished = Finished(name=asked.name, size=asked.size, sha256=_digest(asked.hash))
    artifact = await parts(request).artifacts.finalize(grant, finished)
    return answer({"ok": True, "artifact_id": str(artifact.number)})


def _digest(text: str | None) -> str | None:
    if not text:
        return None
    if not (found := _DIGEST.match(text)):
        raise InvalidError("`hash` is not `sha256:` and 64 hexadecimal digits")
    return found[1]


async def _list(request: Request, grant: Grant) -> Response:
    asked = await read_json(request, _List)
    _check(grant, asked)
    found = await parts(request).artifacts.find_all(grant, name=asked.name_filter, number=asked.id_filter)
    return answer({"artifacts": [_twirp_view(artifact) for artifact in found]})


def _twirp_view(artifact: Artifact) -> dict[str, str]:
    return {
        "workflow_run_backend_id": quote(artifact.run, safe=""),
        "workflow_job_run_backend_id": quote(artifact.job, safe=""),
        "database_id": str(artifact.number),
        "name": artifact.name,
        "size": str(artifact.size),
        "created_at": rfc3339(artifact.created_us),
        "digest": f"sha256:{artifact.sha256}",
    }


async def _signed(request: Request, grant: Grant) -> Response:
    asked = await read_json(request, _Named)
    _check_run(grant, asked)
    artifact = await parts(request).artifacts.get(grant, asked.name)
    return answer({"signed_url": _download(request, artifact)})


def _check_run(grant: Grant, asked: _OfRun) -> None:
    """As `_check`, for what another job of the run may have made: clients name the job that did."""
    if asked.workflow_run_backend_id != grant.run_id:
        raise DeniedError("the run in the request is not the one of the token")


def _download(request: Request, artifact: Artifact) -> str:
    return link(request, f"/blob/artifacts/{artifact.number}", Right.READ)


async def _delete(request: Request, grant: Grant) -> Response:
    asked = await read_json(request, _Named)
    _check_run(grant, asked)
    artifact = await parts(request).artifacts.delete(grant, asked.name)
    return answer({"ok": True, "artifact_id": str(artifact.number)})


_METHODS: Final[Mapping[str, Method]] = {
    "CreateArtifact": _create,
    "FinalizeArtifact": _finalize,
    "ListArtifacts": _list,
    "GetSignedArtifactURL": _signed,
    "DeleteArtifact": _delete,
}


def _of_repository(request: Request) -> Grant:
    """The grant, if it is of the repository in the path. Raises DeniedError."""
    grant = granted(request)
    named = f"{request.path_params['owner']}/{request.path_params['name']}"
    if named.lower() != grant.repository.lower():
        raise DeniedError("the repository in the address is not the one of the token")
    return grant


async def _rest_list(request: Request) -> Response:
    grant = _of_repository(request)
    name = request.query_params.get("name")
    wanted = [artifacts.c.name == name] if name else []
    found = await parts(request).artifacts.of_run(grant.tenant, request.path_params["run"], *wanted)
    size = max(1, min(_number(request, "per_page", 30), _PER_PAGE))
    first = (max(1, _number(request, "page", 1)) - 1) * size
    page = [_rest_view(request, grant, artifact) for artifact in found[first : first + size]]
    return answer({"total_count": len(found), "artifacts": page})


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else default


def _rest_view(request: Request, grant: Grant, artifact: Artifact) -> dict[str, Any]:
    address = f"{request.base_url}repos/{grant.repository}/actions/artifacts/{artifact.number}"
    return {
        "id": artifact.number,
        "name": artifact.name,
        "size_in_bytes": artifact.size,
        "url": address,
        "archive_download_url": f"{address}/zip",
        "expired": False,
        "created_at": rfc3339(artifact.created_us),
        "updated_at": rfc3339(artifact.created_us),
        "expires_at": rfc3339(artifact.expires_us),
        "digest": f"sha256:{artifact.sha256}",
        "workflow_run": {"id": artifact.run},
    }


async def _rest_zip(request: Request) -> Response:
    grant = _of_repository(request)
    artifact = await parts(request).artifacts.find(number_of(request), tenant=grant.tenant)
    return RedirectResponse(_download(request, artifact), status_code=302)


_REPOSITORY: Final = "/repos/{owner}/{name}/actions"
ROUTES: Final = [
    twirp("ArtifactService", _METHODS),
    *(Route(f"{base}{_REPOSITORY}/runs/{{run}}/artifacts", _rest_list) for base in ("", "/api/v3")),
    *(Route(f"{base}{_REPOSITORY}/artifacts/{{number}}/zip", _rest_zip) for base in ("", "/api/v3")),
]
