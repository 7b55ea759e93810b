"""The services without a socket, at a time of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from firebrick.results.app import create_app
from firebrick.results.limits import ResultsLimits
from firebrick.results.parts import Parts
from firebrick.results.record import Watchers
from firebrick.results.serve import open_parts
from firebrick.results.staging import Body
from firebrick.results.token import Grant, sign_grant

MAIN, SIDE, PULL = "refs/heads/main", "refs/heads/side", "refs/pull/7/merge"
VERSION = "a" * 64


def grant(run: str = "1", job: str = "build", *, ref: str = MAIN, repository: str = "acme/rocket", **more) -> Grant:
    read = tuple(dict.fromkeys((ref, MAIN)))
    return Grant(
        **{"tenant": f"host/{repository}", "repository": repository, "run": run, "job": job, "read": read, "write": ref}
        | more
    )


def body(data: bytes, *, length: int | None = None, md5: bytes | None = None, pieces: int = 3) -> Body:
    async def chunks() -> AsyncIterator[bytes]:
        step = max(1, len(data) // pieces)
        for start in range(0, len(data), step):
            yield data[start : start + step]

    return Body(chunks=chunks(), length=length, md5=md5)


@dataclass
class Time:
    now: int = 1_800_000_000_000_000
    step: int = 1

    def __call__(self) -> int:
        self.now += self.step
        return self.now

    def days(self, count: float) -> None:
        self.now += int(count * 86_400_000_000)


@dataclass
class World:
    """`open` gives the parts over the one directory, as one process has them."""

    directory: Path
    time: Time = field(default_factory=Time)
    watchers: Watchers = field(default_factory=Watchers)

    def open(self, **limits: int) -> AbstractAsyncContextManager[Parts]:
        chosen = ResultsLimits(**{"free_mib": 1} | limits)
        return open_parts(self.directory, chosen, clock=self.time, watchers=self.watchers)

    def contents(self) -> set[str]:
        return {path.name for path in (self.directory / "blobs").rglob("*") if path.is_file()}

    def staged(self) -> set[str]:
        return {str(path.relative_to(self.directory / "staging")) for path in (self.directory / "staging").rglob("*")}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "results")


@pytest.fixture
async def parts(world: World) -> AsyncIterator[Parts]:
    async with world.open() as opened:
        yield opened


Client = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def client(parts: Parts) -> Client:
    """Requests to the app, with the token of a grant."""

    @asynccontextmanager
    async def make(by: Grant | None = None) -> AsyncIterator[httpx.AsyncClient]:
        token = sign_grant(parts.key, by or grant(), lifetime_s=60)
        transport = httpx.ASGITransport(create_app(parts))
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://forge.localhost:8080", headers=headers
        ) as made:
            yield made

    return make
