"""The batch API of Git LFS, as far as objects are had from it.

The credential of the address goes to its own server alone; another place is asked only where the server sends us there over https.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import httpx
import msgspec

from firebrick.forge.address import Address
from firebrick.forge.errors import CloneError
from firebrick.forge.lfs import Arrival, Pointer

_TYPE: Final = "application/vnd.git-lfs+json"
_HEADERS: Final = {"Accept": _TYPE, "Content-Type": _TYPE}
_PLAIN: Final = {"Accept-Encoding": "identity"}
"""Nothing is unpacked on the way: what is bounded is what has come, and a little of that may become any amount."""

_AT_ONCE: Final = 4
_ANSWER_LIMIT: Final = 4 << 20
_PATIENCE_S: Final = 60.0
# An address or a header of theirs need be nothing that can be sent.
_BROKEN: Final = (httpx.HTTPError, httpx.InvalidURL, UnicodeError)


class _Download(msgspec.Struct):
    href: str
    header: dict[str, str] = {}


class _Actions(msgspec.Struct):
    download: _Download | None = None


class _Object(msgspec.Struct):
    oid: str
    actions: _Actions | None = None


class _Answer(msgspec.Struct):
    objects: list[_Object]


class LfsServer:
    """The server of the repository at an address. Made by `open`."""

    def __init__(self, client: httpx.AsyncClient, address: Address) -> None:
        self._client = client
        self._address = address
        whole = address.url.rstrip("/").removesuffix(".git")
        self._url = f"{whole}.git/info/lfs/objects/batch"
        credential = address.credential
        self._auth = None if credential is None else httpx.BasicAuth(credential.user, credential.password)

    @classmethod
    @asynccontextmanager
    async def open(cls, address: Address) -> AsyncIterator[Self]:
        async with httpx.AsyncClient(timeout=_PATIENCE_S, follow_redirects=False, headers=_PLAIN) as client:
            yield cls(client, address)

    async def fetch(self, pointers: Sequence[Pointer], target: Path) -> None:
        """Put these objects into `target`, by their digests; at most a hundred. Raises CloneError where the server does not give one of them."""
        turns = asyncio.Semaphore(_AT_ONCE)
        try:
            downloads = await self._ask(pointers)
            async with asyncio.TaskGroup() as group:
                for pointer in pointers:
                    work = self._download(pointer, downloads[pointer.oid], target / pointer.oid, turns)
                    group.create_task(work, name=f"lfs-{pointer.oid[:12]}")
        except ExceptionGroup as errors:
            raise self._explained(errors.exceptions[0]) from None
        except _BROKEN as error:
            raise self._explained(error) from None  # an address of theirs may hold a secret

    async def _ask(self, pointers: Sequence[Pointer]) -> Mapping[str, _Download]:
        objects = [{"oid": pointer.oid, "size": pointer.size} for pointer in pointers]
        body = {"operation": "download", "transfers": ["basic"], "objects": objects}
        content = bytearray()  # pieces may have a byte each
        async with self._client.stream("POST", self._url, json=body, headers=_HEADERS, auth=self._auth) as answer:
            self._check(answer, "for the LFS objects")
            async for block in answer.aiter_raw(1 << 16):
                content += block
                if len(content) > _ANSWER_LIMIT:
                    raise self._error("the answer of the server is too large")
        return self._downloads(bytes(content), pointers)

    def _downloads(self, content: bytes, pointers: Sequence[Pointer]) -> Mapping[str, _Download]:
        try:
            answer = msgspec.json.decode(content, type=_Answer)
        except msgspec.DecodeError as error:
            raise self._error("the answer of the server makes no sense") from error
        found = {each.oid: each.actions.download for each in answer.objects if each.actions and each.actions.download}
        for pointer in pointers:
            if pointer.oid not in found:
                raise self._error(f"the server does not have {pointer.oid}")
        return found

    async def _download(self, pointer: Pointer, download: _Download, target: Path, turns: asyncio.Semaphore) -> None:
        is_own = download.href.startswith(f"{self._address.origin}/")
        if not is_own and not download.href.startswith("https://"):
            raise self._error("the server sends us to a place that is neither its own nor reached over https")
        auth = self._auth if is_own and not any(name.lower() == "authorization" for name in download.header) else None
        async with (
            turns,
            self._client.stream("GET", download.href, headers=download.header, auth=auth) as answer,
        ):
            self._check(answer, f"for {pointer.oid}")
            with target.open("wb") as file:
                arrival = Arrival(pointer, file)
                async for block in answer.aiter_raw(1 << 18):
                    arrival.take(block)
                arrival.finish()

    def _check(self, answer: httpx.Response, what: str) -> None:
        if answer.status_code != httpx.codes.OK:
            raise self._error(f"the server answered {answer.status_code} {what}")
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise self._error(f"the server packed its answer {what}, which it was not asked for")

    def _explained(self, error: Exception) -> Exception:
        known = isinstance(error, _BROKEN)
        return self._error(f"the connection failed ({type(error).__name__})") if known else error

    def _error(self, what: str) -> CloneError:
        return CloneError(f"cannot get the LFS objects of {self._address.url}: {what}")
