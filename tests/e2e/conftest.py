"""A server on a free port with a node that has no machines, and repositories for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from firebrick.home import Home
from firebrick.server.api import create_app
from firebrick.server.builds import Builds, open_builds
from firebrick.server.clock import Clock
from firebrick.server.serve import listen, url_of
from firebrick.server.settings import ServeSettings
from firebrick.web import Bounds, WebServer, web_config
from tests.e2e.repository import Repository, make_repository
from tests.node_double import DoubleNode

ENDED = ("completed", "failed")
STEPS = "on: push\njobs:\n  build:\n    runs-on: linux\n    steps:\n      - name: Work\n        run: |\n"


def workflow(*lines: str) -> dict[str, str]:
    """The files of a repository whose one step does these things; see `tests.node_double`."""
    return {".github/workflows/ci.yml": STEPS + "".join(f"          {line}\n" for line in lines)}


@dataclass
class BuildClient:
    """What asks a server for builds."""

    client: httpx.AsyncClient

    async def submit(self, repository: Repository | str | Path, **fields: Any) -> str:
        """Ask for a build of a repository, or of what is at an address; its name."""
        address = repository.path if isinstance(repository, Repository) else repository
        answer = await self.client.post("/build", json={"repo_url": str(address), **fields})
        assert answer.status_code == 200, answer.text
        build_id: str = answer.json()["build_id"]
        return build_id

    async def show(self, build_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.client.get(f"/build/{build_id}")).json()
        return found


@dataclass
class Service(BuildClient):
    """A running server and what a test wants of it."""

    builds: Builds
    node: DoubleNode
    home: Home
    repositories: Path

    def repository(self, *lines: str, files: Mapping[str, str] | None = None) -> Repository:
        name = f"r{len(list(self.repositories.iterdir()))}"
        return make_repository(self.repositories / name, {**workflow(*lines), **(files or {})})

    async def ended(self, build_id: str) -> dict[str, Any]:
        """The build, once it has ended."""
        async with asyncio.timeout(60):
            async for update in self.builds.follow(await self.builds.find(build_id)):
                del update
        return await self.show(build_id)

    def left(self, build_id: str) -> list[str]:
        """What there is in the build's directory."""
        return sorted(path.name for path in (self.home.builds / build_id).iterdir())


Start = Callable[..., Any]


@asynccontextmanager
async def running(
    home: Home, directory: Path, node: DoubleNode, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Service]:
    """A server, until the context is left."""
    directory.mkdir(exist_ok=True)
    chosen = ServeSettings(**{"home": home.root, "port": 0, "allow_local_repos": True, **settings})
    async with AsyncExitStack() as stack:
        door = stack.enter_context(listen("127.0.0.1", 0))
        builds = await stack.enter_async_context(open_builds(home, node, chosen, clock=clock))
        ready = asyncio.Event()
        server = WebServer(web_config(create_app(builds), Bounds()), ready.set)
        task = asyncio.create_task(server.serve(sockets=[door]))
        stack.push_async_callback(_stop, server, task, builds)
        await ready.wait()
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url_of(door), timeout=30))
        yield Service(client, builds, node, home, directory)


async def _stop(server: WebServer, task: asyncio.Task[None], builds: Builds) -> None:
    builds.close_followers()
    server.should_exit = True
    await task


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Makes servers on one home: `async with start(...) as service`."""

    def make(node: DoubleNode | None = None, **settings: Any) -> Any:
        return running(Home(tmp_path / "home"), tmp_path / "repositories", node or DoubleNode(), **settings)

    return make


@pytest.fixture
async def service(start: Start) -> AsyncIterator[Service]:
    async with start() as made:
        yield made
        assert made.node.live == set() or made.builds
