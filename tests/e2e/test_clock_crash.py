"""A server that is killed around what it does by the clock and for events: nothing is lost, and nothing comes twice."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.repository import Repository, make_repository
from tests.e2e.test_crash import Process, no_machine_is_left, server

pytestmark = pytest.mark.network
JOB = "jobs: {build: {runs-on: linux, steps: [{run: '%s'}]}}\n"
WORKFLOWS = 6


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def settings(repository: Repository, **said: Any) -> str:
    return "repositories=" + json.dumps({f"file://{repository.path}": said})


async def listed(process: Process) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await process.client.get("/builds", params={"limit": 200})).json()
    return found


async def all_ended(process: Process, count: int) -> list[dict[str, Any]]:
    """All builds, once there are so many and each has ended."""
    async with asyncio.timeout(60):
        while len(found := await listed(process)) < count:
            await asyncio.sleep(0.02)
    return [await process.ended(build["id"]) for build in found]


async def killed_within(process: Process, seconds: float) -> None:
    """At whatever point of its work that is."""
    await asyncio.sleep(seconds)
    await process.kill()


@pytest.mark.parametrize("seconds", [0.4])
async def test_schedules_that_are_due_are_started_once(tmp_path: Path, home: Path, seconds: float) -> None:
    files = {
        f".github/workflows/{n}.yml": f"on: {{schedule: [{{cron: '{n} 3 * * *'}}]}}\n{JOB % 'say x'}"
        for n in range(WORKFLOWS)
    }
    repository = make_repository(tmp_path / "repository", files)
    known = settings(repository, schedules=True)
    async with server(home, known, "day=1") as first:
        async with asyncio.timeout(60):
            while len((await first.client.get("/schedules")).json()) < WORKFLOWS:
                await asyncio.sleep(0.02)
        await first.kill()
    # Three days later: each is due, once. Killed in the middle of starting them.
    async with server(home, known, "day=4") as second:
        await killed_within(second, seconds)
    async with server(home, known, "day=4") as third:
        builds = await all_ended(third, WORKFLOWS)
        assert sorted(build["workflow"] for build in builds) == sorted(files)
        assert {build["conclusion"] for build in builds} == {"success"}
        assert {each["next"][:10] for each in (await third.client.get("/schedules")).json()} == {"2026-03-04"}
        assert await third.terminate() == 0
    async with server(home, known, "day=4") as fourth:
        await fourth.client.get("/schedules")
        assert len(await listed(fourth)) == WORKFLOWS
    await no_machine_is_left()


@pytest.mark.parametrize("seconds", [0.5])
async def test_what_an_event_starts_is_built_once(tmp_path: Path, home: Path, seconds: float) -> None:
    files = {f".github/workflows/{n}.yml": f"on: push\n{JOB % 'say x'}" for n in range(WORKFLOWS)}
    repository = make_repository(tmp_path / "repository", files)
    async with server(home) as first:
        await first.submit(repository.path, event="push")
        await killed_within(first, seconds)
    async with server(home) as second:
        builds = await all_ended(second, WORKFLOWS)
        assert len(builds) == WORKFLOWS
        assert {build["conclusion"] for build in builds} == {"success"}
        (asked,) = [build for build in builds if len(build["workflows"]) == WORKFLOWS]
        assert sorted(each["build"] for each in asked["workflows"]) == sorted(build["id"] for build in builds)
    await no_machine_is_left()


DEPLOY = """on: push
jobs:
  build: {runs-on: linux, steps: [{run: keep out/a built}]}
  deploy: {needs: build, environment: production, runs-on: linux, steps: [{run: 'SCRIPT'}]}
"""


async def test_a_build_that_waits_outlives_its_server(tmp_path: Path, home: Path) -> None:
    files = {".github/workflows/ci.yml": DEPLOY.replace("SCRIPT", "say deploying")}
    repository = make_repository(tmp_path / "repository", files)
    known = settings(repository, environments={"production": {"approval": True}})
    async with server(home, known) as first:
        build_id = await first.submit(repository.path)
        await first.wait_for(build_id, "waiting")
        await first.kill()
    async with server(home, known) as second:
        assert (await second.show(build_id))["status"] == "waiting"
        answer = await second.client.post(
            f"/build/{build_id}/environments", json={"environment": "production", "state": "approved"}
        )
        assert answer.status_code == 200
        await second.kill()
    async with server(home, known) as third:
        build = await third.ended(build_id)
        assert build["conclusion"] == "success"
        assert build["log"].count("\ndeploying\n") == 1
        assert build["artifacts_count"] == 1
    await no_machine_is_left()


async def test_killed_while_it_goes_on_it_goes_on_from_there(tmp_path: Path, home: Path) -> None:
    # The third start is the first attempt to deploy that is not killed.
    files = {".github/workflows/ci.yml": DEPLOY.replace("SCRIPT", "say deploying")}
    files[".github/workflows/ci.yml"] += "  slow: {needs: deploy, runs-on: linux, steps: [{run: 'gate never'}]}\n"
    repository = make_repository(tmp_path / "repository", files)
    known = settings(repository, environments={"production": {"approval": True}})
    build_id = ""
    async with server(home, known) as first:
        build_id = await first.submit(repository.path)
        await first.wait_for(build_id, "waiting")
        await first.client.post(
            f"/build/{build_id}/environments", json={"environment": "production", "state": "approved"}
        )
        await first.wait_for(build_id, "running_build")
        await first.kill()
    async with server(home, known) as second:
        build = await second.wait_for(build_id, "running_build")
        assert build["attempt"] == 3
        assert (home / "builds" / build_id / "earlier" / "jobs.json").exists()
        await second.client.post(f"/build/{build_id}/cancel")
        assert (await second.ended(build_id))["conclusion"] == "cancelled"
        assert not (home / "builds" / build_id / "earlier").exists()
    await no_machine_is_left()


async def test_a_key_survives_the_server(tmp_path: Path, home: Path) -> None:
    repository = make_repository(tmp_path / "repository", {".github/workflows/ci.yml": f"on: push\n{JOB % 'say x'}"})

    async def post(process: Process) -> httpx.Response:
        body = {"repo_url": str(repository.path)}
        return await process.client.post("/build", json=body, headers={"Idempotency-Key": "k"})

    async with server(home) as first:
        one = await post(first)
        await first.kill()
    async with server(home) as second:
        assert (await post(second)).json()["build_id"] == one.json()["build_id"]
        assert len(await all_ended(second, 1)) == 1
