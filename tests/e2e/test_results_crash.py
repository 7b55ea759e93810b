"""The services are killed in the middle of an upload: what was received is there, what was not is asked for again, and no half is kept."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from firebrick.results.limits import ResultsLimits
from firebrick.results.serve import open_results
from firebrick.results.token import Grant, read_key, sign_grant

pytestmark = [pytest.mark.network, pytest.mark.timeout(180)]
ROOT = Path(__file__).resolve().parents[2]
GRANT = Grant(
    tenant="host/acme/rocket",
    repository="acme/rocket",
    run="1",
    job="build",
    read=("refs/heads/main",),
    write="refs/heads/main",
)
IDS = {"workflow_run_backend_id": "1", "workflow_job_run_backend_id": "build"}
TWIRP = "/twirp/github.actions.results.api.v1.ArtifactService"
PIECE = 1 << 20


@asynccontextmanager
async def talking(socket: Path, directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    token = sign_grant(read_key(directory / "key"), GRANT, lifetime_s=600)
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://forge.localhost", headers=headers, timeout=30
    ) as client:
        yield client


@asynccontextmanager
async def process(directory: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx.AsyncClient]]:
    """The services in a process of their own; killed, not stopped, when the context is left."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-m", "tests.e2e.results_process", str(directory)]
    running = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE)
    assert running.stdout is not None
    try:
        socket = Path((await asyncio.wait_for(running.stdout.readline(), 60)).decode().strip())
        async with talking(socket, directory) as client:
            yield running, client
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()
        running._transport.close()  # type: ignore[attr-defined]


async def call(client: httpx.AsyncClient, method: str, **fields: Any) -> Any:
    answer = await client.post(f"{TWIRP}/{method}", json=IDS | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def listed(blocks: range) -> str:
    return f"<BlockList>{''.join(f'<Latest>{number:08}</Latest>' for number in blocks)}</BlockList>"


async def test_an_upload_goes_on_after_the_services_were_killed_in_the_middle_of_a_block(tmp_path: Path):
    directory = tmp_path / "results"
    data = os.urandom(4 * PIECE)
    pieces = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
    async with process(directory) as (running, client):
        url = (await call(client, "CreateArtifact", name="n"))["signed_upload_url"]
        for number in (2, 0):
            assert (
                await client.put(f"{url}&comp=block&blockid={number:08}", content=pieces[number])
            ).status_code == 201
        at_half = asyncio.Event()

        async def halting() -> AsyncIterator[bytes]:
            yield pieces[1][: PIECE // 2]
            at_half.set()
            await asyncio.Event().wait()

        cut = asyncio.create_task(client.put(f"{url}&comp=block&blockid={1:08}", content=halting()))
        await at_half.wait()
        running.kill()
        await running.wait()
        cut.cancel()
        await asyncio.gather(cut, return_exceptions=True)
    async with (
        open_results(directory, ResultsLimits(free_mib=1)) as results,
        talking(results.socket, directory) as client,
    ):
        assert [path.name for path in results.socket.parent.iterdir()] == [results.socket.name], (
            "the dead one's is gone"
        )
        early = await client.put(f"{url}&comp=blocklist", content=listed(range(4)))
        assert (early.status_code, "never received" in early.json()["msg"]) == (400, True)
        for number in (1, 3):
            assert (
                await client.put(f"{url}&comp=block&blockid={number:08}", content=pieces[number])
            ).status_code == 201
        assert (await client.put(f"{url}&comp=blocklist", content=listed(range(4)))).status_code == 201
        digest = hashlib.sha256(data).hexdigest()
        await call(client, "FinalizeArtifact", name="n", size=str(len(data)), hash=f"sha256:{digest}")
        link = (await call(client, "GetSignedArtifactURL", name="n"))["signed_url"]
        assert (await client.get(link)).content == data
    assert list((directory / "staging").iterdir()) == []
    assert list((directory / "sockets").iterdir()) == []


async def test_two_processes_share_what_they_keep(tmp_path: Path):
    directory = tmp_path / "results"
    data = os.urandom(PIECE)
    async with process(directory) as (_, one), process(directory) as (_, two):
        for client, name in ((one, "a"), (two, "b")):
            url = (await call(client, "CreateArtifact", name=name))["signed_upload_url"]
            stored = await client.put(url, content=data, headers={"x-ms-blob-type": "BlockBlob"})
            assert stored.status_code == 201
            await call(client, "FinalizeArtifact", name=name, size=len(data))
        names = [artifact["name"] for artifact in (await call(one, "ListArtifacts"))["artifacts"]]
        assert names == ["b", "a"]
        link = (await call(one, "GetSignedArtifactURL", name="b"))["signed_url"]
        assert (await two.get(link)).content == data, "what one has signed the other serves"
    assert len([path for path in (directory / "blobs").rglob("*") if path.is_file()]) == 1
