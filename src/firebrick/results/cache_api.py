"""The cache protocols: version 2, Twirp with JSON and uploads as blobs; version 1, a REST API with uploads in ranges."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from firebrick.results.cache import Entry
from firebrick.results.clock import rfc3339
from firebrick.results.errors import DeniedError, InvalidError, MissingError
from firebrick.results.link import Right
from firebrick.results.token import Grant
from firebrick.results.upload import Kind, Upload
from firebrick.results.wire import Method, answer, body_of, granted, link, number_of, parts, read_json, twirp

_RANGE: Final = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/(\*|[0-9]{1,15})\Z")


class _Lookup(msgspec.Struct):
    key: str = ""
    version: str = ""
    restore_keys: list[str] = []


class _Create(msgspec.Struct):
    key: str = ""
    version: str = ""


class _Finalize(msgspec.Struct):
    key: str = ""
    version: str = ""
    size_bytes: int = 0


async def _lookup(request: Request, grant: Grant) -> Response:
    asked = await read_json(request, _Lookup)
    entry = await parts(request).cache.lookup(grant, [asked.key, *asked.restore_keys], asked.version)
    if entry is None:
        return answer({"ok": False, "signed_download_url": "", "matched_key": ""})
    return answer({"ok": True, "signed_download_url": _download(request, entry), "matched_key": entry.key})


def _download(request: Request, entry: Entry) -> str:
    return link(request, f"/blob/caches/{entry.number}", Right.READ)


async def _create(request: Request, grant: Grant) -> Response:
    asked = await read_json(request, _Create)
    try:
        number = await parts(request).cache.reserve(grant, asked.key, asked.version)
    except DeniedError as error:
        return answer({"ok": False, "signed_upload_url": "", "message": str(error)})
    return answer({"ok": True, "signed_upload_url": link(request, f"/blob/uploads/{number}", Right.WRITE)})


async def _finalize(request: Request, grant: Grant) -> Response:
    asked = await read_json(request, _Finalize)
    entry = await parts(request).cache.finalize(grant, asked.key, asked.version, asked.size_bytes)
    return answer({"ok": True, "entry_id": str(entry.number)})


_METHODS: Final[Mapping[str, Method]] = {
    "GetCacheEntryDownloadURL": _lookup,
    "CreateCacheEntry": _create,
    "FinalizeCacheEntryUpload": _finalize,
}


class _Reserve(msgspec.Struct, rename="camel"):
    key: str = ""
    version: str = ""
    cache_size: int | None = None


class _Commit(msgspec.Struct):
    size: int


async def _v1_lookup(request: Request) -> Response:
    grant = granted(request)
    keys = request.query_params.get("keys", "").split(",")
    entry = await parts(request).cache.lookup(grant, keys, request.query_params.get("version", ""))
    if entry is None:
        return Response(status_code=204)
    return answer(_v1_view(entry) | {"result": "hit", "archiveLocation": _download(request, entry)})


async def _v1_list(request: Request) -> Response:
    """What a client shows in its debug log after a miss."""
    found = await parts(request).cache.find_all(granted(request), request.query_params.get("key", ""))
    return answer({"totalCount": len(found), "artifactCaches": [_v1_view(entry) for entry in found]})


def _v1_view(entry: Entry) -> dict[str, Any]:
    return {
        "cacheKey": entry.key,
        "cacheVersion": entry.version,
        "scope": entry.scope,
        "creationTime": rfc3339(entry.created_us),
    }


async def _v1_reserve(request: Request) -> Response:
    grant = granted(request)
    asked = await read_json(request, _Reserve)
    number = await parts(request).cache.reserve(grant, asked.key, asked.version, size=asked.cache_size)
    return answer({"cacheId": number}, status=201)


async def _v1_upload(request: Request) -> Response:
    upload = await _own(request)
    found = _RANGE.match(request.headers.get("content-range", ""))
    if found is None or int(found[2]) < int(found[1]):
        raise InvalidError("Content-Range is not `bytes <first>-<last>/*`")
    body = replace(body_of(request), length=int(found[2]) - int(found[1]) + 1)
    await parts(request).uploads.put_range(upload.number, int(found[1]), body)
    return Response(status_code=204)


async def _v1_commit(request: Request) -> Response:
    upload = await _own(request)
    asked = await read_json(request, _Commit)
    await parts(request).uploads.commit_ranges(upload.number, asked.size)
    await parts(request).cache.finalize(granted(request), upload.name, upload.version, asked.size)
    return Response(status_code=204)


async def _own(request: Request) -> Upload:
    """The upload in the path, if the job of the token has begun it: one number tells nobody about the uploads of others. Raises MissingError."""
    grant = granted(request)
    upload = await parts(request).uploads.find(number_of(request))
    mine = (upload.tenant, upload.run, upload.job, upload.kind)
    if mine != (grant.tenant, grant.run, grant.job, Kind.CACHE):
        raise MissingError("there is no such upload")
    return upload


_V1: Final = "/_apis/artifactcache"
ROUTES: Final = [
    twirp("CacheService", _METHODS),
    Route(f"{_V1}/cache", _v1_lookup),
    Route(f"{_V1}/caches", _v1_list, methods=["GET"]),
    Route(f"{_V1}/caches", _v1_reserve, methods=["POST"]),
    Route(f"{_V1}/caches/{{number}}", _v1_upload, methods=["PATCH"]),
    Route(f"{_V1}/caches/{{number}}", _v1_commit, methods=["POST"]),
]
