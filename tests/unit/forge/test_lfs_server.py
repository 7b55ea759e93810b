"""Answers of an LFS server nobody trusts."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from firebrick.forge.address import parse_address
from firebrick.forge.errors import CloneError
from firebrick.forge.lfs import Pointer
from firebrick.forge.lfs_server import LfsServer

POINTER = Pointer("4d" * 32, 16 << 20)
ADDRESS = parse_address("https://forge.example/octo/tools")


async def fetched(target: Path, download: dict[str, Any], content: httpx.Response | None = None) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            told = {"objects": [{"oid": POINTER.oid, "actions": {"download": download}}]}
            return httpx.Response(200, stream=httpx.ByteStream(json.dumps(told).encode()))
        return content or httpx.Response(404)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        await LfsServer(client, ADDRESS).fetch([POINTER], target)


@pytest.mark.parametrize(
    "download",
    [
        {"href": "https://forge.example/x", "header": {"X-Name": "caf\u00e9"}},
        {"href": "https://forge.example/x", "header": {"\u00e9": "x"}},
        {"href": "https://xn--/"},
        {"href": "https://[::1"},
        {"href": f"https://{'a' * 70_000}"},
    ],
)
async def test_what_cannot_be_sent_is_a_failure_of_the_server(tmp_path: Path, download: dict[str, Any]) -> None:
    with pytest.raises(CloneError, match=r"cannot get the LFS objects of https://forge\.example/octo/tools"):
        await fetched(tmp_path, download)


async def test_nothing_is_unpacked_that_was_not_asked_for(tmp_path: Path) -> None:
    packed = httpx.Response(
        200, headers={"Content-Encoding": "deflate"}, stream=httpx.ByteStream(zlib.compress(bytes(POINTER.size)))
    )
    with pytest.raises(CloneError, match="packed its answer"):
        await fetched(tmp_path, {"href": "https://forge.example/x"}, packed)
    assert list(tmp_path.iterdir()) == []


async def test_an_answer_in_pieces_of_a_byte_takes_time_in_proportion(tmp_path: Path) -> None:
    class Drops(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for _ in range((4 << 20) + 1):
                yield b" "

    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=Drops())))
    async with asyncio.timeout(120), client:
        with pytest.raises(CloneError, match="too large"):
            await LfsServer(client, ADDRESS).fetch([POINTER], tmp_path)
