"""GitHub's own clients, unmodified, against our services: an old and a new one of each."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firebrick.results.limits import ResultsLimits
from firebrick.results.serve import open_results
from firebrick.results.token import Grant
from tests.e2e.clients import Clients, Job, install_clients, loopback

GRANT = Grant(
    tenant="host/acme/rocket",
    repository="acme/rocket",
    run="run:7",
    job="build (3.11, a b)",
    read=("refs/heads/main",),
    write="refs/heads/main",
)
MakeJob = Callable[..., Job]

pytestmark = [pytest.mark.network, pytest.mark.timeout(600)]


@pytest.fixture(scope="session")
def clients() -> Clients:
    return install_clients()


@pytest.fixture
async def job(clients: Clients, tmp_path: Path) -> AsyncIterator[Job]:
    limits = ResultsLimits(free_mib=1)
    async with open_results(tmp_path / "results", limits) as results, loopback(results.socket) as port:
        (tmp_path / "work").mkdir()
        yield Job(clients, results, port, GRANT, tmp_path / "work")


def write(root: Path, files: dict[str, bytes]) -> list[str]:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return [str(root / name) for name in files]


def read(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("client", ["artifact-2", "artifact-6"])
async def test_artifacts_come_back_as_they_were(job: Job, client: str):
    files = {"one.txt": b"one", "deep/two.bin": os.urandom(3 << 20), "empty": b""}
    source = job.place / "source"
    paths = write(source, files)
    stored, again, found, got = await job.do(
        {"do": "upload", "client": client, "name": "all of it", "files": paths, "root": str(source)},
        {"do": "upload", "client": client, "name": "all of it", "files": paths, "root": str(source)},
        {"do": "list", "client": client},
        {"do": "get", "client": client, "name": "all of it"},
    )
    assert "(409) Conflict" in again["error"], again
    assert "already exists" in again["error"]
    [listed] = found["artifacts"]
    assert (listed["name"], listed["id"], listed["size"]) == ("all of it", stored["id"], stored["size"])
    assert got["artifact"] == listed
    target = job.place / "target"
    [down] = await job.do(
        {
            "do": "download",
            "client": client,
            "id": stored["id"],
            "options": {"path": str(target), "expectedHash": f"sha256:{stored.get('digest')}"},
        }
    )
    assert "error" not in down, down
    assert read(target) == files
    gone, listed_after = await job.do(
        {"do": "delete", "client": client, "name": "all of it"}, {"do": "list", "client": client}
    )
    assert gone == {"id": stored["id"]}
    assert listed_after == {"artifacts": []}


@pytest.mark.parametrize("client", ["artifact-2", "artifact-6"])
async def test_an_artifact_of_200_mb_goes_up_in_blocks_and_comes_back(job: Job, client: str):
    source, target = job.place / "source", job.place / "target"
    piece = os.urandom(8 << 20)
    [path] = write(source, {"large.bin": piece * 25})
    digest = hashlib.sha256(piece * 25).digest()
    [stored] = await job.do(
        {
            "do": "upload",
            "client": client,
            "name": "large",
            "files": [path],
            "root": str(source),
            "options": {"compressionLevel": 0},
        }
    )
    assert stored["size"] > 200 << 20
    [down] = await job.do({"do": "download", "client": client, "id": stored["id"], "options": {"path": str(target)}})
    assert "error" not in down, down
    assert hashlib.sha256((target / "large.bin").read_bytes()).digest() == digest


async def test_a_single_file_stays_what_it_is(job: Job):
    source, target = job.place / "source", job.place / "target"
    paths = write(source, {"report é.html": b"<h1>fine</h1>"})
    upload = {"do": "upload", "client": "artifact-6", "name": "x", "files": paths, "root": str(source)}
    [stored] = await job.do(upload | {"options": {"skipArchive": True}})
    [down] = await job.do(
        {"do": "download", "client": "artifact-6", "id": stored["id"], "options": {"path": str(target)}}
    )
    assert "error" not in down, down
    assert read(target) == {"report é.html": b"<h1>fine</h1>"}


async def test_artifacts_of_another_run_are_found_over_the_rest_api(job: Job):
    source, target = job.place / "source", job.place / "target"
    paths = write(source, {"a": b"from the first run"})
    first = replace(job, grant=replace(GRANT, run="41"))
    [stored] = await first.do(
        {"do": "upload", "client": "artifact-6", "name": "n", "files": paths, "root": str(source)}
    )
    second = replace(job, grant=replace(GRANT, run="42"))
    token = second.variables["ACTIONS_RUNTIME_TOKEN"]
    by = {"token": token, "workflowRunId": 41, "repositoryOwner": "acme", "repositoryName": "rocket"}
    api = {"GITHUB_API_URL": f"http://127.0.0.1:{job.port}/api/v3"}
    own, found, down, other = await second.do(
        {"do": "list", "client": "artifact-6"},
        {"do": "list", "client": "artifact-6", "options": {"findBy": by}},
        {"do": "download", "client": "artifact-6", "id": stored["id"], "options": {"findBy": by, "path": str(target)}},
        {"do": "list", "client": "artifact-6", "options": {"findBy": by | {"repositoryName": "satellite"}}},
        **api,
    )
    assert own == {"artifacts": []}
    assert [artifact["name"] for artifact in found["artifacts"]] == ["n"]
    assert "error" not in down, down
    assert read(target) == {"a": b"from the first run"}
    assert "not the one of the token" in other["error"]


V1 = {"ACTIONS_CACHE_SERVICE_V2": "", "ACTIONS_CACHE_MODE": ""}


@pytest.mark.parametrize("client", ["cache-4", "cache-6"])
@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_cache_is_found_by_its_key_or_by_how_a_key_begins(job: Job, client: str, version: str):
    variables = V1 if version == "v1" else {}
    cached = job.place / "cached"
    save: dict[str, Any] = {"do": "save", "client": client, "paths": ["cached"], "key": "linux-deps-1"}
    restore: dict[str, Any] = {"do": "restore", "client": client, "paths": ["cached"]}
    write(cached, {"a/b": os.urandom(1 << 20), "c": b"c"})
    before = read(cached)
    [miss, saved] = await job.do(restore | {"key": "linux-deps-1"}, save, **variables)
    assert miss is None
    assert isinstance(saved, int), saved
    for path in cached.rglob("*"):
        path.unlink() if path.is_file() else None
    results = await job.do(
        restore | {"key": "linux-deps-1"},
        restore
        | {"key": "linux-deps-2", "restoreKeys": ["linux-nothing-", "Linux-Deps-"], "options": {"lookupOnly": True}},
        restore | {"key": "windows", "restoreKeys": ["windows-"]},
        save,
        **variables,
    )
    assert results[:3] == ["linux-deps-1", "linux-deps-1", None]
    assert results[3] == -1, "the key was taken"
    assert read(cached) == before


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_large_cache_goes_up_in_parts(job: Job, version: str):
    cached = job.place / "cached"
    write(cached, {"large": os.urandom(140 << 20)})
    digest = hashlib.sha256((cached / "large").read_bytes()).digest()
    operation = {"client": "cache-6", "paths": ["cached"], "key": "large"}
    variables = V1 if version == "v1" else {}
    [saved] = await job.do(operation | {"do": "save"}, **variables)
    assert saved > 0
    (cached / "large").unlink()
    [restored] = await job.do(operation | {"do": "restore"}, **variables)
    assert restored == "large"
    assert hashlib.sha256((cached / "large").read_bytes()).digest() == digest


async def test_what_a_pull_request_caches_no_branch_reads(job: Job):
    cached = job.place / "cached"
    pull = "refs/pull/7/merge"
    proposal = replace(job, grant=replace(GRANT, run="8", read=(pull, "refs/heads/main"), write=pull))
    reader = replace(job, grant=replace(GRANT, run="9", write=None))
    operation = {"client": "cache-6", "paths": ["cached"], "key": "deps"}
    write(cached, {"x": b"poisoned"})
    assert (await proposal.do(operation | {"do": "save"}))[0] > 0
    assert await job.do(operation | {"do": "restore"}) == [None]
    assert await proposal.do(operation | {"do": "restore"}) == ["deps"]
    write(cached, {"x": b"good"})
    assert (await job.do(operation | {"do": "save"}))[0] > 0
    assert await reader.do(operation | {"do": "save", "key": "other"}, ACTIONS_CACHE_MODE="") == [-1]
    assert "cache write denied" in (job.place / "output.txt").read_text()
    await reader.do(operation | {"do": "restore"})
    assert read(cached) == {"x": b"good"}


async def test_a_forge_that_is_not_github_is_no_obstacle(job: Job):
    source = job.place / "source"
    paths = write(source, {"a": b"a"})
    upload = {"do": "upload", "client": "artifact-6", "name": "n", "files": paths, "root": str(source)}
    refused = await job.do(upload, GITHUB_SERVER_URL="https://git.example.org")
    taken = await job.do(upload, GITHUB_SERVER_URL=f"http://forge.localhost:{job.port}")
    assert "GHESNotSupportedError" in refused[0]["error"]
    assert taken[0]["id"] > 0


async def test_many_jobs_at_once_keep_what_they_have_once(job: Job):
    source = job.place / "source"
    paths = write(source, {"same": os.urandom(1 << 20)})
    jobs = [replace(job, grant=replace(GRANT, job=f"job {number}")) for number in range(4)]
    upload = {"do": "upload", "client": "artifact-6", "files": paths, "root": str(source)}
    raw = {"options": {"skipArchive": True}}
    ended = await asyncio.gather(*(each.do(upload | {"name": "same"} | raw) for each in jobs))
    assert sorted("id" in result[0] for result in ended) == [False, False, False, True]
    others = [replace(job, grant=replace(GRANT, run=f"r{number}")) for number in range(3)]
    ended = await asyncio.gather(*(each.do(upload | {"name": "same"} | raw) for each in others))
    assert all(result[0]["size"] == 1 << 20 for result in ended)
    kept = [path for path in (job.place.parent / "results/blobs").rglob("*") if path.is_file()]
    assert len(kept) == 1


@pytest.mark.parametrize(
    ("limit", "words", "saved"),
    [
        ("artifacts_mib", "Failed to FinalizeArtifact: Artifact storage quota has been hit.", 1),
        ("upload_mib", "RestError: insufficient usage: what this repository is uploading is more than 1 MiB.", -1),
    ],
)
async def test_what_is_too_much_is_said_in_words_and_not_tried_again(
    clients: Clients, tmp_path: Path, limit: str, words: str, saved: int
):
    work = tmp_path / "work"
    large, _ = write(work, {"large": os.urandom(20 << 20), "cached/large": os.urandom(3 << 20)})
    upload = {"do": "upload", "client": "artifact-6", "name": "n", "files": [large], "root": str(work)}
    save = {"do": "save", "client": "cache-6", "paths": ["cached"], "key": "k"}
    limits = ResultsLimits(**{"free_mib": 1, limit: 1})
    async with open_results(tmp_path / "results", limits) as results, loopback(results.socket) as port:
        refused, number = await Job(clients, results, port, GRANT, work).do(upload, save)
    assert words in refused["error"]
    assert number == saved
    output = (work / "output.txt").read_text()
    assert "Retrying request" not in output
    assert ("Failed to save: insufficient usage" in output) is (saved < 0)
