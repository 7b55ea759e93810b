"""The same corpus on three guests: the double, the agent as root, and the agent as somebody without any privilege."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from firebrick.guest.client import Agent, ByteStream, Identity, open_stream
from firebrick.guest.double import GuestDouble

AGENT = Path(__file__).parents[2] / "src/firebrick/guest/bin/firebrick-agent"
NOBODY = 65534
REAL = ("root", "user") if os.geteuid() == 0 else ("user",)


@dataclass
class Guest:
    """Something to connect to, and a directory in it that is the test's own."""

    kind: str
    place: Path
    socket: Path | None = None
    double: GuestDouble | None = None
    process: asyncio.subprocess.Process | None = None

    @property
    def uid(self) -> int:
        return 0 if self.kind in ("root", "double") else NOBODY if os.geteuid() == 0 else os.geteuid()

    async def stream(self) -> ByteStream:
        if self.double is not None:
            return self.double.connect()
        assert self.socket is not None
        async with asyncio.timeout(10):
            while True:
                connection = socket.socket(socket.AF_UNIX)
                try:
                    connection.connect(str(self.socket))
                except (FileNotFoundError, ConnectionRefusedError):
                    connection.close()
                    await asyncio.sleep(0.005)  # it has just been started
                else:
                    return await open_stream(connection)

    def connect(self, hostname: str = "machine") -> contextlib.AbstractAsyncContextManager[Agent]:
        return _connect(self, hostname)


@contextlib.asynccontextmanager
async def _connect(guest: Guest, hostname: str) -> AsyncIterator[Agent]:
    async with Agent.connect(await guest.stream(), Identity.fresh(hostname), timeout=10) as agent:
        yield agent


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whoever the agent runs as may enter, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="firebrick-agent-test-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@contextlib.asynccontextmanager
async def started(kind: str, directory: Path) -> AsyncIterator[Guest]:
    assert AGENT.exists(), f"{AGENT} is missing: `make agent` builds it"
    program = shutil.copy(AGENT, directory / "agent")
    place = directory / "place"
    place.mkdir()
    argv = [str(program), "--serve-socket", str(directory / "socket")]
    if kind == "user" and os.geteuid() == 0:
        os.chown(place, NOBODY, NOBODY)
        argv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs", *argv]
    process = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.DEVNULL)
    try:
        yield Guest(kind, place, socket=directory / "socket", process=process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.fixture(params=["double", *REAL])
async def guest(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[Guest]:
    """Any guest."""
    if request.param != "double":
        async with started(request.param, directory) as guest:
            yield guest
        return
    double = GuestDouble(grace_s=0.1)
    double.disk.mkdir(b"/place", 0o755, parents=True)
    yield Guest("double", Path("/place"), double=double)
    await double.close()
    assert double.violations == []


@pytest.fixture(params=REAL)
async def real(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[Guest]:
    """A guest with a Linux below it."""
    async with started(request.param, directory) as guest:
        yield guest


@pytest.fixture
async def agent(guest: Guest) -> AsyncIterator[Agent]:
    async with guest.connect() as agent:
        yield agent


@pytest.fixture
async def real_agent(real: Guest) -> AsyncIterator[Agent]:
    async with real.connect() as agent:
        yield agent
