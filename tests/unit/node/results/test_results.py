"""What jobs are given to find the artifact and cache services, and what they are not."""

from __future__ import annotations

import asyncio
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from firebrick.forge.address import parse_address
from firebrick.guest.double.task import Task
from firebrick.image.oci_config import ImageConfig
from firebrick.node.glob import Found
from firebrick.node.order import RunOrder, Source
from firebrick.node.results.offer import NodeResults, _grant, _ShelfWatcher
from firebrick.node.results.shelf import ArtifactShelf
from firebrick.node.scope import tenant_of
from firebrick.results.errors import InvalidError
from firebrick.results.limits import ResultsLimits
from firebrick.results.record import ZIP, Artifact
from firebrick.results.token import read_grant, read_key
from firebrick.workflow.reader import read_workflow
from tests.unit.node.conftest import Bed

NAMES = ("ACTIONS_RUNTIME_TOKEN", "ACTIONS_RESULTS_URL", "ACTIONS_CACHE_URL", "ACTIONS_CACHE_SERVICE_V2")
SHOW = "\n".join(f"show {name}" for name in NAMES)
JS = "name: X\ndescription: x\nruns: {using: node20, main: main.js}\n"
STEPS = """\
    on: push
    jobs:
      build:
        runs-on: linux
        steps:
          - run: show ACTIONS_RUNTIME_TOKEN
"""


@pytest.fixture
def served(bed: Bed) -> Bed:
    bed.results = NodeResults(bed.directory / "results", ResultsLimits())
    bed.actions.add("octo/a@v1", {"action.yml": JS, "main.js": SHOW + "\necho $ACTIONS_RUNTIME_TOKEN >> token"})
    return bed


async def test_actions_are_told_of_the_services_and_scripts_are_not(served: Bed):
    told = await served.run(STEPS + "          - uses: octo/a@v1\n          - run: show ACTIONS_RESULTS_URL\n")
    lines = told.lines()
    assert "ACTIONS_RUNTIME_TOKEN is not set" in lines
    assert "ACTIONS_RESULTS_URL is not set" in lines
    assert "ACTIONS_RUNTIME_TOKEN=***" in lines, "the token is a secret"
    assert "ACTIONS_CACHE_SERVICE_V2=true" in lines
    [url] = [line.partition("=")[2] for line in lines if line.startswith("ACTIONS_CACHE_URL=")]
    assert url.startswith("http://forge.localhost:")
    disk = served.lender.guests[0].disk
    assert b"127.0.0.1\tforge.localhost" in disk.find(b"/etc/hosts").content.read(0, 4096)
    token = disk.find(b"/home/runner/work/hello/hello/token").content.read(0, 4096).decode().strip()
    grant = read_grant(read_key(served.directory / "results/key"), token)
    assert (grant.repository, grant.run, grant.job) == ("octo/hello", "run-1", "build")
    assert grant.tenant == f"directory {served.directory / 'source'}"
    assert served.lender.guests[0].violations == []


async def test_an_action_that_is_an_image_has_a_way_of_its_own(served: Bed):
    async def tool(task: Task) -> int:
        for name in NAMES:
            await task.out(name.encode() + b"=" + task.env.get(name.encode(), b"-") + b"\n")
        return 0

    served.lender.containers = {"tool:1": ImageConfig(entrypoint=("tool",))}
    served.lender.programs |= {"tool": tool}
    told = await served.run(STEPS + "          - uses: docker://tool:1\n          - uses: octo/a@v1\n")
    ports = [line.rpartition(":")[2] for line in told.lines() if line.startswith("ACTIONS_RESULTS_URL=http://forge")]
    assert len(ports) == 2
    assert told.lines().count("ACTIONS_RUNTIME_TOKEN=***") == 2
    for guest in served.lender.guests:
        assert b"127.0.0.1\tforge.localhost" in guest.disk.file(b"/etc/hosts").content.read(0, 4096)


async def test_nothing_is_opened_for_a_job_that_cannot_ask(served: Bed):
    told = await served.run(STEPS)
    assert told.steps() == ["success"]
    assert not (served.directory / "results").exists()


async def test_nothing_is_started_before_somebody_asks(served: Bed):
    await served.run(STEPS + "          - uses: octo/a@v1\n")
    assert [path.name for path in (served.directory / "results").iterdir()] == ["key"]


def order(**source: object) -> RunOrder:
    workflow = read_workflow("on: push\njobs: {a: {runs-on: x, steps: [{run: x}]}}", "ci.yml")
    given = {"path": Path("/src"), "repository": "acme/rocket", "ref": "refs/heads/main", "sha": "a" * 40}
    return RunOrder(id="1", workflow=workflow, source=Source(**given | source), artifact_dir=Path("/out"))  # type: ignore[arg-type]


def test_what_a_repository_calls_itself_opens_nothing():
    assert tenant_of(order()) == "directory /src"
    assert tenant_of(order(tenant="git.example.org/acme/rocket")) == "git.example.org/acme/rocket"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://git.example.org/acme/rocket", "https://token:x@GIT.example.org/acme/rocket.git", True),
        ("https://git.example.org/acme/rocket", "ssh://git@git.example.org/acme/rocket.git", True),
        ("https://git.example.org/acme/rocket", "git@git.example.org:acme/rocket", True),
        ("https://git.example.org/acme/rocket", "https://evil.example/acme/rocket", False),
        ("https://git.example.org/acme/rocket", "https://git.example.org:8443/acme/rocket", False),
        ("https://git.example.org/acme/rocket", "https://git.example.org/x/acme/rocket", False),
        ("https://git.example.org/acme/rocket", "https://git.example.org/Acme/rocket", False),
    ],
)
def test_one_repository_is_one_tenant_by_whatever_address(one: str, other: str, *, same: bool):
    assert (parse_address(one).place == parse_address(other).place) is same


def test_a_pull_request_is_granted_its_own_scope_alone():
    event = {"pull_request": {"base": {"ref": "main"}}, "repository": {"default_branch": "main"}}
    grant = _grant(order(event_name="pull_request", ref="refs/pull/7/merge", event=event), "build")
    assert (grant.read, grant.write) == (("refs/pull/7/merge", "refs/heads/main"), "refs/pull/7/merge")


async def test_a_run_ends_after_what_its_clients_were_storing(tmp_path: Path):
    results = NodeResults(tmp_path / "results", ResultsLimits())
    shelf, gate, done = ArtifactShelf(tmp_path / "shelf", lambda _: None, limit=10), asyncio.Event(), []

    async def unpack(job: str, name: str, content: Path, *, archive: bool) -> None:
        await gate.wait()
        done.append(name)

    shelf.unpack = unpack  # type: ignore[method-assign]
    leaving = asyncio.Event()

    async def run() -> None:
        async with results.watched(order(), shelf):
            watcher = results._watchers.find("directory /src", "1")
            assert watcher is not None
            keeping.append(asyncio.create_task(watcher.keep(ARTIFACT, tmp_path)))
            await asyncio.sleep(0)
            leaving.set()

    keeping: list[asyncio.Task[None]] = []
    ending = asyncio.create_task(run())
    await leaving.wait()
    await asyncio.sleep(0)
    assert results._watchers.find("directory /src", "1") is None
    assert not ending.done()
    gate.set()
    await ending
    assert done == ["n"]
    await asyncio.gather(*keeping)


ARTIFACT = Artifact(
    number=1,
    tenant="t",
    run="1",
    job="build",
    name="n",
    mime="text/plain",
    sha256="",
    size=4,
    created_us=0,
    expires_us=0,
)


async def test_the_shelf_says_no_in_words_the_client_gets(tmp_path: Path):
    watcher = _ShelfWatcher(ArtifactShelf(tmp_path / "shelf", lambda _: None, limit=10))
    (tmp_path / "content").write_bytes(b"text")
    with pytest.raises(InvalidError, match="no zip archive"):
        await watcher.keep(replace(ARTIFACT, mime=ZIP), tmp_path / "content")
    await watcher.keep(ARTIFACT, tmp_path / "content")
    with pytest.raises(InvalidError, match="already there"):
        await watcher.keep(ARTIFACT, tmp_path / "content")
    assert watcher.offers() == []
    await watcher.drop(ARTIFACT)
    await watcher.keep(ARTIFACT, tmp_path / "content")


async def test_what_steps_have_stored_is_offered_as_an_archive(tmp_path: Path):
    shelf = ArtifactShelf(tmp_path / "shelf", lambda _: None, limit=1 << 20)

    async def fetch(job: str, name: str, files: object, source: str, relative: str) -> int:
        (tmp_path / "shelf" / relative).parent.mkdir(parents=True)
        (tmp_path / "shelf" / relative).write_bytes(b"data")
        return 4

    shelf._fetch = fetch  # type: ignore[method-assign,assignment]
    await shelf.store("build", "n", None, [Found("/w/deep/a", 0)], root="/w")  # type: ignore[arg-type]
    [offer] = _ShelfWatcher(shelf).offers()
    out = io.BytesIO()
    offer.write(out)
    with zipfile.ZipFile(out) as archive:
        assert archive.read("deep/a") == b"data"
    assert (offer.job, offer.name) == ("build", "n")


async def test_all_machines_of_a_job_have_one_token(served: Bed, monkeypatch: pytest.MonkeyPatch):
    """Each would be one more text to mask, and a job may use a thousand actions."""
    tokens = []

    async def tool(task: Task) -> int:
        tokens.append(task.env[b"ACTIONS_RUNTIME_TOKEN"])
        return 0

    signed = (f"token-{number}" for number in range(100))
    monkeypatch.setattr("firebrick.results.token.sign_grant", lambda *_, **__: next(signed))
    served.lender.containers = {"tool:1": ImageConfig(entrypoint=("tool",))}
    served.lender.programs |= {"tool": tool}
    both = (
        STEPS
        + "          - uses: docker://tool:1\n" * 3
        + "      other: {runs-on: linux, steps: [{uses: 'docker://tool:1'}]}\n"
    )
    await served.run(both)
    assert sorted(tokens.count(token) for token in set(tokens)) == [1, 3]
