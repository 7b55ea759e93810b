"""Schedules and environments with a clock that goes on when the test says so: started once, let in once, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from firebrick.cli.main import app
from firebrick.home import Home
from tests.clock import HandClock
from tests.e2e.conftest import Service, running
from tests.e2e.repository import Repository, make_repository
from tests.node_double import DoubleNode

pytestmark = pytest.mark.network
JOB = "jobs: {build: {runs-on: linux, steps: [{run: say x}]}}\n"
NIGHTLY = "on:\n  schedule:\n    - {cron: '30 2 * * *', timezone: Europe/Berlin}\n    - {cron: '0 12 * * *'}\n" + JOB


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "scheduled", {".github/workflows/night.yml": NIGHTLY})


@pytest.fixture
def clock() -> HandClock:
    return HandClock(2026, 3, 1)


@asynccontextmanager
async def server(
    tmp_path: Path, clock: HandClock, repository: Repository, node: DoubleNode | None = None, **said: Any
) -> AsyncIterator[Service]:
    repositories = {f"file://{repository.path}": said}
    home = Home(tmp_path / "home")
    settings: dict[str, Any] = {"repositories": repositories, "schedule_poll_s": 1}
    async with running(home, tmp_path / "repositories", node or DoubleNode(), clock, **settings) as service:
        yield service


async def builds(service: Service) -> list[dict[str, Any]]:
    """All there are, the oldest first, once they have ended or wait."""
    found = (await service.client.get("/builds")).json()
    for build in found:
        await settled(service, build["id"])
    return [await service.show(build["id"]) for build in reversed(found)]


async def settled(service: Service, build_id: str, *states: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while (build := await service.show(build_id))["status"] not in (states or ("completed", "failed", "waiting")):
            await asyncio.sleep(0.01)
    return build


async def until(service: Service, count: int) -> list[dict[str, Any]]:
    """All builds, once there are so many."""
    async with asyncio.timeout(30):
        while len((await service.client.get("/builds")).json()) < count:
            await asyncio.sleep(0.01)
    return await builds(service)


async def known(service: Service, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(30):
        while len(found := (await service.client.get("/schedules")).json()) != count:
            await asyncio.sleep(0.01)
    return found


async def quiet(service: Service, clock: HandClock) -> None:
    """All that is done by the clock has been looked at once more."""
    before = clock.asked
    clock.go_on(seconds=0)
    async with asyncio.timeout(30):
        while clock.asked < before + 3:
            await asyncio.sleep(0.01)


async def test_what_is_due_is_started_in_its_zone_and_once(
    tmp_path: Path, clock: HandClock, repository: Repository
) -> None:
    async with server(tmp_path, clock, repository, schedules=True) as service:
        first, second = await known(service, 2)
        # Half past two in Berlin is half past one in UTC, in winter.
        assert (first["cron"], first["next"]) == ("30 2 * * *", "2026-03-01T01:30:00Z")
        assert (second["cron"], second["next"]) == ("0 12 * * *", "2026-03-01T12:00:00Z")
        clock.go_on(hours=1)
        await quiet(service, clock)
        assert await builds(service) == []
        clock.go_on(minutes=30)
        (build,) = await until(service, 1)
        assert (build["event"], build["conclusion"], build["ref"]) == ("schedule", "success", "refs/heads/main")
        assert build["workflows"][0]["reason"] == "The schedule '30 2 * * *' is due."
        (order,) = service.node.orders
        assert (order.source.event_name, order.source.event["schedule"]) == ("schedule", "30 2 * * *")
        clock.go_on(hours=10, minutes=30)
        assert len(await until(service, 2)) == 2
        for _ in range(3):
            await quiet(service, clock)
        assert len(await builds(service)) == 2
        # Where the clocks skip half past two it is due when they go on.
        clock.go_on(days=27)
        await until(service, 4)
        assert "2026-03-29T01:00:00Z" in [each["next"] for each in await known(service, 2)]


async def test_of_what_was_missed_one_is_made_up_for(tmp_path: Path, clock: HandClock, repository: Repository) -> None:
    async with server(tmp_path, clock, repository, schedules=True) as service:
        await known(service, 2)
    clock.go_on(days=9)
    async with server(tmp_path, clock, repository, schedules=True) as service:
        found = await until(service, 2)
        await quiet(service, clock)
        assert len(await builds(service)) == len(found) == 2
        assert [each["next"][:10] for each in await known(service, 2)] == ["2026-03-10", "2026-03-10"]
    async with server(tmp_path, clock, repository, schedules=True) as service:
        await quiet(service, clock)
        assert len(await builds(service)) == 2


async def test_the_default_branch_says_which_there_are(
    tmp_path: Path, clock: HandClock, repository: Repository
) -> None:
    async with server(tmp_path, clock, repository, schedules=True) as service:
        before = await known(service, 2)
        repository.commit(
            {".github/workflows/night.yml": NIGHTLY.replace("0 12", "0 13"), ".github/workflows/bad.yml": "on: ["}
        )
        async with asyncio.timeout(30):
            while (after := await known(service, 2))[1]["cron"] != "0 13 * * *":
                clock.go_on(seconds=1)
                await asyncio.sleep(0.05)
        assert after[0] == before[0]
        async with asyncio.timeout(30):  # what it has looked at goes when it has
            while list(service.home.builds.iterdir()):
                await asyncio.sleep(0.01)
    # One that the settings do not name any more has none.
    async with server(tmp_path, clock, repository) as service:
        await known(service, 0)


async def test_a_repository_that_is_gone_keeps_what_it_had(
    tmp_path: Path, clock: HandClock, repository: Repository
) -> None:
    async with server(tmp_path, clock, repository, schedules=True) as service:
        await known(service, 2)
        repository.path.rename(tmp_path / "elsewhere")
        clock.go_on(hours=2)
        (build,) = await until(service, 1)
        assert build["conclusion"] == "failure"
        assert len(await known(service, 2)) == 2


DEPLOY = """on: push
jobs:
  build: {runs-on: linux, steps: [{run: keep out/a built}]}
  deploy: {needs: build, environment: production, runs-on: linux, steps: [{run: say deploying}]}
"""


@pytest.fixture
def deployed(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "deployed", {".github/workflows/deploy.yml": DEPLOY})


def production(**rules: Any) -> dict[str, Any]:
    given = {"secrets": {"KEY": "pr0d"}, "variables": {"WHERE": "there"}}
    return {"secrets": {"GITHUB_TOKEN": "t0ken"}, "environments": {"production": {**given, **rules}}}


async def decide(service: Service, build_id: str, state: str, **fields: Any) -> int:
    body = {"environment": "Production", "state": state, **fields}
    return (await service.client.post(f"/build/{build_id}/environments", json=body)).status_code


async def test_a_build_waits_for_an_approval_and_holds_nothing(
    tmp_path: Path, clock: HandClock, deployed: Repository
) -> None:
    said = production(approval=True)
    async with server(tmp_path, clock, deployed, **said) as service:
        build_id = await service.submit(deployed)
        build = await settled(service, build_id)
        assert (build["status"], build["conclusion"], build["artifacts_count"]) == ("waiting", None, 1)
        assert build["message"] == "waiting for the environment production"
        assert service.node.live == set()
        (held,) = (await service.client.get(f"/build/{build_id}/environments")).json()
        assert (held["state"], held["approved"], held["until"]) == ("waiting", None, None)
        assert (await service.client.get("/health")).json()["running"] == 0
        clock.go_on(days=3)
        await quiet(service, clock)
        assert (await service.show(build_id))["status"] == "waiting"
    # Another server knows all of it.
    async with server(tmp_path, clock, deployed, **said) as service:
        assert await decide(service, build_id, "approved", comment="go") == 200
        assert await decide(service, build_id, "approved") in (200, 409)
        build = await settled(service, build_id, "completed", "failed")
        assert (build["conclusion"], build["attempt"], build["run_attempt"]) == ("success", 2, 1)
        (order,) = service.node.orders
        assert {key: ended.result for key, ended in order.earlier.jobs.items()} == {"build": "success"}
        assert order.environments["production"].secrets == {"KEY": "pr0d"}
        assert order.secrets == {"GITHUB_TOKEN": "t0ken"}
        assert (await service.client.get(f"/build/{build_id}/artifacts/out/a")).text == "built"
        assert service.left(build_id) == ["artifacts", "jobs.json", "log.jsonl", "manifest.json"]
        assert await decide(service, build_id, "rejected") == 409


async def test_what_goes_on_is_what_was_approved(tmp_path: Path, clock: HandClock, deployed: Repository) -> None:
    """Whoever may push to a branch does not thereby change what somebody else is looking at."""
    async with server(tmp_path, clock, deployed, **production(approval=True)) as service:
        build_id, gone_id = await service.submit(deployed), await service.submit(deployed)
        approved = (await settled(service, build_id))["commit"]
        await settled(service, gone_id)
        deployed.commit({".github/workflows/deploy.yml": DEPLOY.replace("say deploying", "say hello $KEY")})
        assert await decide(service, build_id, "approved") == 200
        build = await settled(service, build_id, "completed", "failed")
        assert (build["conclusion"], build["commit"]) == ("success", approved)
        assert "hello" not in build["log"]
        # A commit that was forced out of its branch is not built as one of it.
        deployed.git("update-ref", "refs/heads/main", deployed.git("commit-tree", "HEAD^{tree}", "-m", "anew"))
        assert await decide(service, gone_id, "approved") == 200
        build = await settled(service, gone_id, "completed", "failed")
        assert (build["conclusion"], "has no commit" in build["message"]) == ("failure", True)


async def test_who_rejects_ends_it(tmp_path: Path, clock: HandClock, deployed: Repository) -> None:
    async with server(tmp_path, clock, deployed, **production(approval=True)) as service:
        build_id = await service.submit(deployed)
        await settled(service, build_id)
        assert (
            await service.client.post(f"/build/{build_id}/environments", json={"environment": "x", "state": "approved"})
        ).status_code == 409
        assert await decide(service, build_id, "rejected", comment="not today") == 200
        build = await settled(service, build_id, "completed", "failed")
        assert (build["conclusion"], build["message"]) == (
            "failure",
            "The deployment to production was rejected: not today",
        )
        assert "deploying" not in build["log"]
        # Another attempt asks again.
        answer = await service.client.post(f"/build/{build_id}/rerun", json={"failed": True})
        again = await settled(service, answer.json()["build_id"])
        assert (again["status"], again["run_attempt"]) == ("waiting", 2)


async def test_a_wait_is_over_by_itself_and_once(tmp_path: Path, clock: HandClock, deployed: Repository) -> None:
    async with server(tmp_path, clock, deployed, **production(wait_minutes=30)) as service:
        build_id = await service.submit(deployed)
        await settled(service, build_id)
        clock.go_on(minutes=29)
        await quiet(service, clock)
        (held,) = (await service.client.get(f"/build/{build_id}/environments")).json()
        assert (held["state"], held["until"]) == ("waiting", "2026-03-01T00:30:00Z")
        clock.go_on(minutes=1)
        build = await settled(service, build_id, "completed", "failed")
        assert build["conclusion"] == "success"
        assert len(service.node.orders) == 2


async def test_a_branch_that_may_not_is_refused(tmp_path: Path, clock: HandClock, deployed: Repository) -> None:
    deployed.git("branch", "feature")
    async with server(tmp_path, clock, deployed, **production(branches=["main", "release/**"])) as service:
        build = await service.ended(await service.submit(deployed, branch="feature"))
        words = "Branch 'feature' is not allowed to deploy to production due to environment protection rules."
        assert (build["conclusion"], build["message"]) == ("failure", words)
        assert (await service.ended(await service.submit(deployed, branch="main")))["conclusion"] == "success"
        # A commit that is of no branch is of none that is allowed, and knows no secrets.
        build = await service.ended(await service.submit(deployed, commit=deployed.git("rev-parse", "HEAD")))
        assert build["conclusion"] == "failure"
        order = service.node.orders[-1]
        assert (order.secrets, order.environments["production"].secrets) == ({}, {})


async def test_what_waits_can_be_cancelled(tmp_path: Path, clock: HandClock, deployed: Repository) -> None:
    async with server(tmp_path, clock, deployed, **production(approval=True)) as service:
        build_id = await service.submit(deployed)
        await settled(service, build_id)
        await service.client.post(f"/build/{build_id}/cancel")
        build = await service.show(build_id)
        assert (build["status"], build["conclusion"]) == ("failed", "cancelled")
        assert build["log"].endswith("==> Waiting for the environment production\n==> Cancelled\n")
        assert await decide(service, build_id, "approved") == 409
        assert "earlier" not in service.left(build_id)


async def test_nobody_says_what_is_run_among_secrets(tmp_path: Path, clock: HandClock, deployed: Repository) -> None:
    async with server(tmp_path, clock, deployed, **production()) as service:
        build = await service.ended(await service.submit(deployed))
        service.node.checkpoints[f"{build['id']}-1", 1] = object()  # type: ignore[assignment]
        body = {"from_step": 1, "command": "env"}
        answer = await service.client.post(f"/build/{build['id']}/rerun", json=body)
        assert (answer.status_code, "with secrets" in answer.text) == (422, True)
        await service.ended(await service.submit(deployed, command="say x"))
        told = service.node.orders[-1]
        assert (told.secrets, told.environments["production"].secrets) == ({}, {})


def new_build(said: Result) -> str:
    """What it is called; the server of the test writes to the same output."""
    (name,) = [line for line in said.output.splitlines() if line.startswith("build_")]
    return name


async def test_the_command_line_approves_and_runs_again(tmp_path: Path, clock: HandClock, deployed: Repository) -> None:
    async with server(tmp_path, clock, deployed, **production(approval=True)) as service:

        async def cli(*words: str) -> Result:
            options = ["--server", str(service.client.base_url)]
            return await asyncio.to_thread(CliRunner().invoke, app, [*words, *options])

        approve = partial(cli, "approve")
        build_id = await service.submit(deployed)
        await settled(service, build_id)
        assert "production: Waiting for an approval" in (await approve(build_id)).output
        refused = await approve(build_id, "none")
        assert "does not wait for the environment " in str(refused.exception)
        done = await approve(build_id, "production", "--comment", "go")
        assert "production: approved; the build is " in done.output
        await settled(service, build_id, "completed")
        assert "production: open" in (await approve(build_id)).output
        again = new_build(await cli("rerun", build_id))
        assert (await settled(service, again))["status"] == "waiting"
        await approve(again, "production", "--reject")
        await settled(service, again, "failed")
        failed = new_build(await cli("rerun", build_id, "--failed"))
        build = await settled(service, failed)
        assert (build["run_attempt"], build["repeat"]["failed"]) == (3, True)
        nobody = await cli("rerun", "build_none")
        assert "there is no build build_none" in str(nobody.exception)
    gone = await cli("rerun", build_id)
    assert "cannot ask the server" in str(gone.exception)
