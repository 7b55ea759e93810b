"""A web server for git repositories: `git http-backend` behind a few lines of HTTP, with the manners a test wants."""

from __future__ import annotations

import asyncio
import json
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class GitServer:
    """Serves the repositories below `root`. With `credential` ("user:password") it wants that; with `redirect` it sends everybody there;
    `refusal` is what a refused client is told; `on_request` is called with each. `objects` are those of Git LFS it has, by the name they go by; it sends
    for them to `elsewhere`, if that is set."""

    root: Path
    credential: str | None = None
    redirect: str | None = None
    refusal: str = "go away"
    silent: bool = False
    on_request: Callable[[], None] = lambda: None
    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    elsewhere: str = ""
    authorizations: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[GitServer]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, headers, body = await _read_request(reader)
        self.on_request()
        self.paths.append(target)
        if "authorization" in headers:
            self.authorizations.append(headers["authorization"])
        if self.silent:
            await asyncio.Future()
        if self.redirect is not None:
            writer.write(
                f"HTTP/1.1 302 Found\r\nLocation: {self.redirect}{target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
        elif (
            self.credential is not None
            and headers.get("authorization") != f"Basic {b64encode(self.credential.encode()).decode()}"
        ):
            text = self.refusal.replace("{authorization}", headers.get("authorization", "none")).encode()
            head = f"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + text)
        elif target.endswith("/info/lfs/objects/batch"):
            writer.write(_response(json.dumps(self._batch(json.loads(body))).encode()))
        elif target.startswith("/objects/"):
            writer.write(_response(self.objects[target.removeprefix("/objects/")]))
        else:
            writer.write(await self._backend(method, target, headers, body))

    def _batch(self, request: dict[str, Any]) -> dict[str, Any]:
        return {
            "objects": [
                {**each, "actions": {"download": {"href": f"{self.elsewhere or self.url}/objects/{each['oid']}"}}}
                if each["oid"] in self.objects
                else {**each, "error": {"code": 404, "message": "gone"}}
                for each in request["objects"]
            ]
        }

    async def _backend(self, method: str, target: str, headers: dict[str, str], body: bytes) -> bytes:
        path, _, query = target.partition("?")
        environment = {
            "GIT_PROJECT_ROOT": os.fspath(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": method,
            "CONTENT_TYPE": headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
            "GIT_PROTOCOL": headers.get("git-protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
            "PATH": os.environ["PATH"],
        }
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec("git", "http-backend", env=environment, stdin=pipe, stdout=pipe)
        said, _ = await process.communicate(body)
        head, _, content = said.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        status = next((line.removeprefix("Status: ") for line in lines if line.startswith("Status: ")), "200 OK")
        kept = "".join(f"{line}\r\n" for line in lines if not line.startswith("Status: "))
        return (
            f"HTTP/1.1 {status}\r\n{kept}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content
        )


def _response(content: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return method, target, headers, body
