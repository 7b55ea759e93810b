"""Contents in and out, at signed addresses, as Azure's blob storage does it: the part of its protocol the clients use."""

from __future__ import annotations

from email.utils import formatdate
from pathlib import Path
from typing import Final
from urllib.parse import quote
from xml.parsers import expat

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from firebrick.results.clock import SECOND
from firebrick.results.errors import InvalidError, MissingError
from firebrick.results.limits import MOST_BLOCKS
from firebrick.results.link import Right, check_link
from firebrick.results.record import ZIP
from firebrick.results.upload import Upload
from firebrick.results.wire import body_of, number_of, parts, read_body

_LARGEST_LIST: Final = 8 << 20
_KINDS: Final = ("Latest", "Uncommitted", "Committed")


async def _put(request: Request) -> Response:
    check_link(parts(request).key, request.url.path, Right.WRITE, request.query_params)
    number, uploads = number_of(request), parts(request).uploads
    match request.query_params.get("comp"):
        case None:
            if request.headers.get("x-ms-blob-type") != "BlockBlob":
                raise InvalidError("x-ms-blob-type must be BlockBlob")
            return _created(await uploads.put_whole(number, body_of(request)))
        case "block":
            await uploads.put_block(number, request.query_params.get("blockid", ""), body_of(request))
            return Response(status_code=201)
        case "blocklist":
            return _created(await uploads.commit(number, read_block_list(await read_body(request, _LARGEST_LIST))))
        case _:
            raise HTTPException(400, "`comp` is block or blocklist")


def _created(upload: Upload) -> Response:
    headers = {"ETag": f'"{upload.sha256}"', "Last-Modified": _date(upload.created_us)}
    return Response(status_code=201, headers=headers)


def read_block_list(body: bytes) -> list[str]:
    """The ids in a `<BlockList>`, in their order. Raises InvalidError for anything else, and for a document that declares a type or entities."""
    ids: list[str] = []
    text: list[str] = []
    path: list[str] = []

    def start(name: str, _attributes: object) -> None:
        if (len(path), name) != (0, "BlockList") and not (path == ["BlockList"] and name in _KINDS):
            raise InvalidError("a block list holds Latest, Uncommitted and Committed in BlockList")
        path.append(name)
        text.clear()

    def end(_name: str) -> None:
        path.pop()
        if path:
            ids.append("".join(text))
            if len(ids) > MOST_BLOCKS:
                raise InvalidError(f"an upload has at most {MOST_BLOCKS} blocks")

    def refuse(*_arguments: object) -> None:
        raise InvalidError("a block list declares no document type")

    parser = expat.ParserCreate(encoding="utf-8")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text.append, refuse
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise InvalidError(f"the block list is no XML: {error}") from error
    return ids


async def _get_artifact(request: Request) -> Response:
    check_link(parts(request).key, request.url.path, Right.READ, request.query_params)
    artifacts = parts(request).artifacts
    artifact = await artifacts.find(number_of(request))
    name = f"{artifact.name}.zip" if artifact.mime == ZIP and not artifact.name.endswith(".zip") else artifact.name
    return _content(
        artifacts.path(artifact),
        artifact.sha256,
        artifact.created_us,
        media_type=artifact.mime,
        disposition=f"attachment; filename*=UTF-8''{quote(name, safe='')}",
    )


async def _get_cache(request: Request) -> Response:
    check_link(parts(request).key, request.url.path, Right.READ, request.query_params)
    cache = parts(request).cache
    entry = await cache.find(number_of(request))
    return _content(cache.path(entry), entry.sha256, entry.created_us)


def _content(
    path: Path, sha256: str, created_us: int, *, media_type: str = "application/octet-stream", disposition: str = ""
) -> Response:
    """The file, or the part of it that is asked for. A browser shall never take what a job made for a page of ours."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise MissingError("the content is not there any more") from error
    headers = {
        "ETag": f'"{sha256}"',
        "Last-Modified": _date(created_us),
        "x-ms-blob-type": "BlockBlob",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
    }
    if disposition:
        headers["Content-Disposition"] = disposition
    return FileResponse(path, headers=headers, media_type=media_type, stat_result=status)


def _date(microseconds: int) -> str:
    return formatdate(microseconds // SECOND, usegmt=True)


# Three parts, of which Azure's client makes a container and a blob, on a host with a name as on one with an address alone.
ROUTES: Final = [
    Route("/blob/uploads/{number}", _put, methods=["PUT"]),
    Route("/blob/artifacts/{number}", _get_artifact),
    Route("/blob/caches/{number}", _get_cache),
]
