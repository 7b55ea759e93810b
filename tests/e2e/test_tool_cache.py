"""GitHub's own tool cache client, unmodified, in real machines: what one job has downloaded the next one finds."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from firebrick.home import Home
from firebrick.node.action.externals import VERSION
from firebrick.node.event import Event, JobStarted, LogLine
from firebrick.node.node import Node
from firebrick.node.order import Resources, RunOrder, Source
from firebrick.node.tool.limits import ToolLimits
from firebrick.node.tool.shelf import ToolShelf
from firebrick.workflow.reader import read_workflow
from tests.e2e.clients import install_clients
from tests.e2e.test_results_machine import client, make_source, results
from tests.place import make_home

pytestmark = [pytest.mark.machine, pytest.mark.timeout(900)]

CACHE = "/opt/hostedtoolcache"
PULL = {
    "event_name": "pull_request",
    "ref": "refs/pull/7/merge",
    "event": {"pull_request": {"base": {"ref": "main"}}, "repository": {"default_branch": "main"}},
}


@dataclass
class Server:
    """Where tools are downloaded from: the same archive, whatever is asked for. `asked` is each request."""

    archive: bytes
    port: int = 0
    asked: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.split()[1].decode())
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(self.archive))
        writer.write(self.archive)
        await writer.drain()
        writer.close()

    def wanted(self, name: str, version: str, library: str) -> dict[str, Any]:
        """The operation of a setup action, as a guest reaches this server."""
        url = f"http://10.0.2.2:{self.port}/{name}-{version}.tar.gz"
        return {"do": "tool", "client": library, "name": name, "version": version, "url": url}


def release() -> bytes:
    """An archive with a program, and a link to it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        script = b"#!/bin/sh\necho the good tool\n"
        program = tarfile.TarInfo("bin/mine")
        program.size, program.mode = len(script), 0o755
        archive.addfile(program, io.BytesIO(script))
        link = tarfile.TarInfo("bin/also")
        link.type, link.linkname = tarfile.SYMTYPE, "mine"
        archive.addfile(link)
    return packed.getvalue()


@dataclass
class Runs:
    """One node after another on the same home, as `firebrick run` does it."""

    home: Home
    source: Path
    server: Server

    async def run(self, steps: str, job: str = "build", **source: Any) -> list[Event]:
        text = f"on: push\njobs:\n  {job}:\n    runs-on: firebrick-base\n    steps:\n      - uses: actions/checkout@v4\n{steps}"
        given = {"repository": "acme/rocket", "ref": "refs/heads/main", "sha": "", **source}
        order = RunOrder(
            id=f"run-{os.urandom(4).hex()}",
            workflow=read_workflow(text, "ci.yml"),
            source=Source(path=self.source, **given),
            artifact_dir=self.source.parent / "artifacts",
            resources=Resources(vcpus=1, memory_mib=1024, timeout_s=400, network=True),
        )
        async with Node.open(self.home, capacity=1) as node, node.start_run(order) as started:
            events = [event async for event in started.events()]
            result = await started.result()
        assert result.conclusion == "success", f"{result.message}\n{lines(events)}"
        return events


def lines(events: list[Event], stream: str = "stdout") -> list[str]:
    return [event.text for event in events if isinstance(event, LogLine) and event.stream == stream]


@pytest.fixture
async def runs(tmp_path: Path) -> AsyncIterator[Runs]:
    clients = install_clients()
    home = make_home(tmp_path / "home")
    node = home.cache / f"externals/node-{VERSION}/bin/node"
    node.parent.mkdir(parents=True)
    shutil.copy(clients.node / "bin/node", node)
    async with Server(release()).serving() as server:
        yield Runs(home, make_source(tmp_path / "source", clients), server)


async def test_what_one_job_has_downloaded_the_next_one_finds(runs: Runs):
    old = runs.server.wanted("mine", "1.2.3", "tool-cache-2")
    new = runs.server.wanted("mine", "1.x", "tool-cache-4")
    place = f"{CACHE}/mine/1.2.3/x64"

    first = await runs.run(client(old, new))
    assert results(first, "build") == [{"made": place}, {"found": place}]
    assert "The tool mine 1.2.3 (x64) is kept for later jobs (0 MiB)." in lines(first, "node")
    assert runs.server.asked == ["/mine-1.2.3.tar.gz"]

    second = await runs.run(client(new, old) + f"      - run: {place}/bin/also\n")
    assert results(second, "build") == [{"found": place}, {"found": place}]
    assert "the good tool" in lines(second)
    assert any("mine 1.2.3 (x64)" in line for line in lines(second, "node")), "it is part of a template now"

    third = await runs.run(client(old))
    assert results(third, "build") == [{"found": place}]
    assert not any("template" in line for line in lines(third, "node")), "and that is there already"
    [start] = [event for event in third if isinstance(event, JobStarted)]
    assert start.start == "fork"
    assert runs.server.asked == ["/mine-1.2.3.tar.gz"], "one download for all of them"

    evil = runs.server.wanted("mine", "6.6.6", "tool-cache-4")
    spoil = f"      - run: 'echo echo evil > {place}/bin/mine; cat {place}/bin/mine'\n"
    proposed = await runs.run(client(old, evil) + spoil, **PULL)
    assert results(proposed, "build") == [{"found": place}, {"made": f"{CACHE}/mine/6.6.6/x64"}]
    assert "echo evil" in lines(proposed)

    after = await runs.run(client(old, evil | {"url": ""}) + f"      - run: {place}/bin/mine\n")
    assert results(after, "build") == [{"found": place}, {"found": ""}], (
        "what the pull request has brought is not there"
    )
    assert "the good tool" in lines(after)
    assert runs.server.asked == ["/mine-1.2.3.tar.gz", "/mine-6.6.6.tar.gz"]

    shelf = ToolShelf(runs.home.tools, ToolLimits())
    scopes = {each.name.version: each.record.scope for each in shelf.entries()}
    assert scopes == {"1.2.3": "refs/heads/main", "6.6.6": "refs/pull/7/merge"}
    assert [name for name in os.listdir(runs.home.tools / "trees") if name.startswith(".")] == []
