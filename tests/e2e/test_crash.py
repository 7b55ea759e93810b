"""A server that is killed, or told to stop, at every point of a build: the next one ends every build, once, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import BuildClient, workflow
from tests.e2e.git_http import GitServer
from tests.e2e.repository import Repository, make_repository

pytestmark = pytest.mark.network
ROOT = Path(__file__).resolve().parents[2]
NUMBER = str(os.getpid())
KEPT = ["artifacts", "jobs.json", "log.jsonl", "manifest.json"]


@dataclass
class Process(BuildClient):
    """A server in a process of its own."""

    process: asyncio.subprocess.Process
    log: Path

    async def wait_for(self, build_id: str, *states: str) -> dict[str, Any]:
        """Until the build is in one of the states."""
        async with asyncio.timeout(60), self.client.stream("GET", f"/build/{build_id}/log?follow=1") as answer:
            async for line in answer.aiter_lines():
                if line.startswith('data: {"id"') and json.loads(line[6:])["status"] in states:
                    break
        return await self.show(build_id)

    async def ended(self, build_id: str) -> dict[str, Any]:
        return await self.wait_for(build_id, "completed", "failed")

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 30)


@asynccontextmanager
async def server(home: Path, *settings: str) -> AsyncIterator[Process]:
    log = home.with_suffix(".log")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
        "PYTHONWARNINGS": "error",
        "PYTHONDEVMODE": "1",
    }
    with log.open("ab") as sink:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.e2e.double_server", str(home), NUMBER, *settings),
            stdout=asyncio.subprocess.PIPE,
            stderr=sink,
            env=environment,
        )
    assert process.stdout is not None
    try:
        url = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()
        assert url.startswith("http://"), log.read_text()
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            yield Process(client, process, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def machines() -> list[int]:
    """The machines of this test's servers that are alive."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cmdline").read_bytes().endswith(f"sleep\0{31536}{NUMBER}\0".encode()):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


async def a_machine_is_there() -> None:
    async with asyncio.timeout(10):
        while not machines():
            await asyncio.sleep(0.01)


async def no_machine_is_left() -> None:
    """The kernel ends them with their owner; it does so in its own time."""
    async with asyncio.timeout(10):
        while machines():
            await asyncio.sleep(0.01)


def left(home: Path) -> dict[str, list[str]]:
    return {directory.name: sorted(p.name for p in directory.iterdir()) for directory in (home / "builds").iterdir()}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def repository(tmp_path: Path, *lines: str) -> Repository:
    return make_repository(tmp_path / "repository", workflow(*lines))


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ("starting_vm", "first: unprepared"),
        ("running_build", "first: hang"),
        ("collecting_artifacts", f"first: sparse out/large {64 << 30}"),
    ],
)
async def test_killed_in_a_state_and_run_again(tmp_path: Path, home: Path, state: str, line: str) -> None:
    source = repository(tmp_path, "keep out/a before", line)
    async with server(home) as first:
        build_id = await first.submit(source.path)
        await first.wait_for(build_id, state)
        if state != "collecting_artifacts":
            await a_machine_is_there()
        await first.kill()
    await no_machine_is_left()
    assert "source" in left(home)[build_id]
    async with server(home) as second:
        build = await second.ended(build_id)
        assert (build["status"], build["attempt"], build["artifacts_count"]) == ("completed", 2, 1)
        assert f"The server ended while this build was in {state}; it will be run again" in build["log"]
        assert build["log"].count("==> Completed") == 1
        assert left(home) == {build_id: KEPT}
        assert await second.terminate() == 0
    await no_machine_is_left()


async def test_killed_while_it_clones(tmp_path: Path, home: Path) -> None:
    make_repository(tmp_path / "served" / "o" / "n", workflow("say x"))
    asked = asyncio.Event()
    git = GitServer(tmp_path / "served", silent=True, credential="me:s3cret", on_request=asked.set)
    async with git.running():
        async with server(home) as first:
            build_id = await first.submit(f"{git.url.replace('//', '//me:s3cret@')}/o/n")
            await asyncio.wait_for(asked.wait(), 30)
            assert (await first.show(build_id))["status"] == "cloning_repo"
            await first.kill()
        assert "credential" in left(home)[build_id]
        git.silent = False
        async with server(home) as second:
            build = await second.ended(build_id)
    assert (build["status"], build["attempt"]) == ("completed", 2)
    assert left(home) == {build_id: KEPT}


async def test_killed_with_builds_that_run_and_builds_that_wait(tmp_path: Path, home: Path) -> None:
    source = repository(tmp_path, "first: hang")
    async with server(home) as first:
        ids = [await first.submit(source.path) for _ in range(6)]
        for build_id in ids[:2]:
            await first.wait_for(build_id, "running_build")
        await first.kill()
    await no_machine_is_left()
    async with server(home) as second:
        running = [await second.ended(build_id) for build_id in ids[:2]]
        assert {(build["status"], build["attempt"]) for build in running} == {("completed", 2)}
        for build_id in ids[2:]:
            # These start for the first time, and hang for the first time.
            build = await second.wait_for(build_id, "running_build")
            assert build["attempt"] == 1
            await second.client.post(f"/build/{build_id}/cancel")
            assert (await second.ended(build_id))["message"] == "cancelled"
        shown = (await second.client.get("/builds")).json()
        assert sorted(build["id"] for build in shown) == sorted(ids)
    await no_machine_is_left()


async def test_what_was_to_be_cancelled_is_not_run_again(tmp_path: Path, home: Path) -> None:
    source = repository(tmp_path, f"first: sparse out/large {64 << 30}")
    async with server(home) as first:
        build_id = await first.submit(source.path)
        await first.wait_for(build_id, "collecting_artifacts")
        await first.client.post(f"/build/{build_id}/cancel")
        await first.kill()
    async with server(home) as second:
        build = await second.show(build_id)
        assert (build["status"], build["message"], build["attempt"]) == ("failed", "cancelled", 1)
    assert left(home) == {build_id: ["log.jsonl"]}


async def test_a_build_that_takes_the_server_with_it_is_given_up(tmp_path: Path, home: Path) -> None:
    source = repository(tmp_path, "hang")
    build_id = ""
    for attempt in (1, 2):
        async with server(home, "max_attempts=2") as process:
            build_id = build_id or await process.submit(source.path)
            build = await process.wait_for(build_id, "running_build")
            assert build["attempt"] == attempt
            await process.kill()
    async with server(home, "max_attempts=2") as last:
        build = await last.show(build_id)
        assert (build["status"], build["attempt"]) == ("failed", 2)
        assert "the server ended 2 times" in build["message"]
    await no_machine_is_left()


async def test_killed_under_a_storm_of_requests_no_answered_one_is_lost(tmp_path: Path, home: Path) -> None:
    source = repository(tmp_path, "say x")
    answered: list[str] = []
    async with server(home) as first:
        killed = asyncio.Event()

        async def submit_until_killed() -> None:
            while not killed.is_set():
                try:
                    answered.append(await first.submit(source.path))
                except httpx.HTTPError:
                    return
                if len(answered) >= 12 and not killed.is_set():
                    killed.set()
                    await first.kill()

        await asyncio.gather(*(submit_until_killed() for _ in range(4)))
    async with server(home) as second:
        for build_id in answered:
            build = await second.ended(build_id)
            assert build["status"] == "completed"
            assert build["log"].count("==> Completed") == 1
        # Those whose answer did not get through any more were kept too, or left no trace.
        shown = {build["id"] for build in (await second.client.get("/builds", params={"limit": 200})).json()}
        assert set(answered) <= shown
        for build_id in shown:
            await second.ended(build_id)
        assert left(home) == dict.fromkeys(shown, KEPT)
    await no_machine_is_left()


async def test_told_to_stop_it_queues_what_runs_and_goes(tmp_path: Path, home: Path) -> None:
    source = repository(tmp_path, "first: gate never", "say through")
    async with server(home) as first:
        ids = [await first.submit(source.path) for _ in range(3)]
        for build_id in ids[:2]:
            await first.wait_for(build_id, "running_build")
        async with first.client.stream("GET", f"/build/{ids[0]}/log?follow=1") as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            assert await first.terminate() == 0
            assert not [line async for line in lines if line == "event: end"]
        assert machines() == []
        assert left(home) == {build_id: ["log.jsonl"] if build_id in ids[:2] else [] for build_id in ids}
        text = first.log.read_text()
    assert "Traceback" not in text
    for build_id in ids[:2]:
        log = (home / "builds" / build_id / "log.jsonl").read_text()
        assert "Interrupted: the server shuts down" in log
        assert not (home / "builds" / build_id / "source").exists()
    async with server(home) as second:
        build = await second.wait_for(ids[0], "running_build")
        # A planned stop is not held against the build.
        assert build["attempt"] == 1
        assert await second.terminate() == 0


async def test_one_server_a_home(home: Path) -> None:
    async with server(home):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.e2e.double_server", str(home), NUMBER),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        )
        out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert out == b""
    assert b"another firebrick serve runs on" in err
