"""`firebrick serve` as it is installed, with real machines: builds at once, and what is there after it was killed or told to stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from firebrick.home import Home
from tests.e2e.repository import Repository, make_repository
from tests.e2e.test_crash import Process
from tests.place import environment, make_home

pytestmark = [pytest.mark.machine, pytest.mark.network, pytest.mark.timeout(300)]

HEAD = "on: push\njobs:\n  build:\n    runs-on: firebrick-base\n    steps:\n      - uses: actions/checkout@v4\n"
SMALL = {"vcpus": 1, "memory_mib": 256}


@asynccontextmanager
async def firebrick_serve(home: Home, **more: str) -> AsyncIterator[Process]:
    log = home.root.with_suffix(".log")
    variables = environment(home, FIREBRICK_ALLOW_LOCAL_REPOS="true", FIREBRICK_PORT="0", PYTHONUNBUFFERED="1", **more)
    with log.open("ab") as sink:
        process = await asyncio.create_subprocess_exec(
            *(Path(sys.executable).parent / "firebrick", "serve", "--log-format", "json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=sink,
            env=variables,
        )
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        assert line.startswith("Firebrick serves builds on http://"), log.read_text()
        assert str(home.root) in line
        async with httpx.AsyncClient(base_url=line.split()[4], timeout=60) as client:
            yield Process(client, process, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def machines(home: Home) -> list[str]:
    """The virtual machines of this home that are alive."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "qemu-system" in line and str(home.root) in line:
                found.append(line.replace("\0", " "))
    return found


async def no_machine_is_left(home: Home) -> None:
    async with asyncio.timeout(20):
        while machines(home):
            await asyncio.sleep(0.02)


def repository(tmp_path: Path, *steps: str) -> Repository:
    text = HEAD + "".join(f"      - run: {step}\n" for step in steps)
    return make_repository(tmp_path / "repository", {".github/workflows/ci.yml": text, "input": "content"})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


async def test_builds_run_at_once_in_machines_of_their_own(tmp_path: Path, home: Home) -> None:
    source = repository(tmp_path, 'test "$(cat input)" = content', "mkdir out && hostname > out/name")
    async with firebrick_serve(home) as server:
        ids = await asyncio.gather(*(server.submit(source.path, artifacts=["out/*"], **SMALL) for _ in range(4)))
        builds = await asyncio.gather(*(server.ended(build_id) for build_id in ids))
        assert [(build["status"], build["artifacts_count"]) for build in builds] == [("completed", 1)] * 4, builds[0][
            "log"
        ]
        urls = [(await server.client.get(f"/build/{build_id}/artifacts")).json()[0]["url"] for build_id in ids]
        names = {(await server.client.get(url)).text for url in urls}
        assert len(names) == 4
        await no_machine_is_left(home)
        assert await server.terminate() == 0
    assert list(home.machines.iterdir()) == []


async def test_killed_with_a_machine_running(tmp_path: Path, home: Home) -> None:
    """The step hangs as long as the settings say so. What goes on is the commit it was: that the branch has moved changes nothing."""
    step = 'test "${{ vars.HANG }}" != yes || { echo hanging; sleep 600; }'
    source = repository(tmp_path, step, "mkdir out && cp input out/x")
    told = json.dumps({str(source.path): {"variables": {"HANG": "yes"}}})
    async with firebrick_serve(home, FIREBRICK_REPOSITORIES=told) as first:
        build_id = await first.submit(source.path, artifacts=["out/*"], **SMALL)
        async with asyncio.timeout(60), first.client.stream("GET", f"/build/{build_id}/log?follow=1") as answer:
            async for line in answer.aiter_lines():
                if '"text":"hanging"' in line:
                    break
        assert (await first.show(build_id))["status"] == "running_build"
        assert len(machines(home)) == 1
        await first.kill()
    await no_machine_is_left(home)
    source.commit({"input": "changed"})
    async with firebrick_serve(home) as second:
        build = await second.ended(build_id)
        assert (build["status"], build["attempt"], build["artifacts_count"]) == ("completed", 2, 1), build["log"]
        [artifact] = (await second.client.get(f"/build/{build_id}/artifacts")).json()
        assert (await second.client.get(artifact["url"])).text == "content"
        assert await second.terminate() == 0
    await no_machine_is_left(home)
    assert sorted(path.name for path in (home.builds / build_id).iterdir()) == [
        "artifacts",
        "jobs.json",
        "log.jsonl",
        "manifest.json",
    ]
    assert list(home.machines.iterdir()) == []
    assert "Traceback" not in home.root.with_suffix(".log").read_text()


async def test_told_to_stop_with_a_machine_running(tmp_path: Path, home: Home) -> None:
    source = repository(tmp_path, "sleep 600")
    async with firebrick_serve(home) as server:
        build_id = await server.submit(source.path, **SMALL)
        await server.wait_for(build_id, "running_build")
        assert len(machines(home)) == 1
        assert await server.terminate() == 0
        assert machines(home) == []
    assert list(home.machines.iterdir()) == []
    said = [json.loads(line) for line in home.root.with_suffix(".log").read_text().splitlines()]
    assert [entry["build"] for entry in said if entry["event"] == "build started"] == [build_id]
    log = (home.builds / build_id / "log.jsonl").read_text()
    assert "Interrupted: the server shuts down" in log


async def test_a_cancelled_build_and_one_that_takes_too_long(tmp_path: Path, home: Home) -> None:
    source = repository(tmp_path, "sleep 600")
    async with firebrick_serve(home) as server:
        cancelled, slow = (
            await server.submit(source.path, **SMALL),
            await server.submit(source.path, timeout_s=8, **SMALL),
        )
        await server.wait_for(cancelled, "running_build")
        await server.client.post(f"/build/{cancelled}/cancel")
        build = await server.ended(cancelled)
        assert (build["status"], build["message"], build["conclusion"]) == ("failed", "cancelled", "cancelled")
        build = await server.ended(slow)
        assert (build["status"], build["conclusion"]) == ("failed", "failure")
        assert build["message"] == "the build took longer than 8 s"
        await no_machine_is_left(home)
        os.kill(server.process.pid, signal.SIGINT)
        assert await asyncio.wait_for(server.process.wait(), 30) == 0


DEPLOY = """
on: push
jobs:
  build:
    runs-on: firebrick-base
    outputs: {word: "${{ steps.it.outputs.word }}"}
    steps:
      - run: mkdir out && echo "$GITHUB_RUN_ATTEMPT" > out/attempt
      - {id: it, run: echo word=brick >> "$GITHUB_OUTPUT"}
      - {uses: actions/upload-artifact@v4, with: {name: out, path: out}}
  deploy:
    needs: build
    environment: production
    runs-on: firebrick-base
    steps:
      - {uses: actions/download-artifact@v4, with: {name: out, path: got}}
      - run: |
          test "$TOKEN" = t0ken
          echo "built in $(cat got/attempt), deployed in $GITHUB_RUN_ATTEMPT: ${{ needs.build.outputs.word }} $WHERE $TOKEN"
        env: {FIREBRICK_CHECKPOINT: true, WHERE: "${{ vars.WHERE }}", TOKEN: "${{ github.token }}"}
"""


async def test_a_build_waits_goes_on_and_is_gone_on_with(tmp_path: Path, home: Home) -> None:
    source = make_repository(tmp_path / "repository", {".github/workflows/ci.yml": DEPLOY})
    production = {"approval": True, "variables": {"WHERE": "there"}}
    said = {"secrets": {"GITHUB_TOKEN": "t0ken"}, "environments": {"production": production}}
    repositories = json.dumps({f"file://{source.path}": said})

    async def approved(server: Process, build_id: str) -> dict[str, Any]:
        await server.wait_for(build_id, "waiting", "failed")
        body = {"environment": "production", "state": "approved"}
        await server.client.post(f"/build/{build_id}/environments", json=body)
        return await server.wait_for(build_id, "completed", "failed")

    async with firebrick_serve(home, FIREBRICK_REPOSITORIES=repositories) as server:
        build_id = await server.submit(source.path, event="push", **SMALL)
        await server.wait_for(build_id, "waiting", "failed")
        await no_machine_is_left(home)
        build = await approved(server, build_id)
        assert build["conclusion"] == "success", build["log"]
        assert "built in 1, deployed in 1: brick there ***" in build["log"]
        assert "t0ken" not in build["log"]

        answer = await server.client.post(
            f"/build/{build_id}/rerun",
            json={"from_step": 2, "job": "deploy"},
        )
        assert answer.status_code == 200, answer.text
        again = await approved(server, answer.json()["build_id"])
        assert again["conclusion"] == "success", again["log"]
        assert f"Going on from {build_id}-2 before step 2" in again["log"]
        assert "built in 1, deployed in 2: brick there ***" in again["log"]
        assert await server.terminate() == 0
    await no_machine_is_left(home)
