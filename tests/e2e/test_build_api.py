"""The build service over a real socket, with real clones, on a node that has no machines."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sqlite3
from typing import Any

import pytest

from tests.e2e.conftest import Service, Start
from tests.e2e.git_http import GitServer
from tests.e2e.repository import make_repository
from tests.node_double import DoubleNode

pytestmark = pytest.mark.network
STATES = ["queued", "cloning_repo", "starting_vm", "running_build", "collecting_artifacts", "completed"]


async def events(service: Service, build_id: str, **headers: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Server-sent events as (name, id, data), to the end."""
    found = []
    async with service.client.stream(
        "GET", f"/build/{build_id}/log", headers={"Accept": "text/event-stream", **headers}
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        name = number = ""
        async for line in answer.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "id":
                number = value
            elif field == "data":
                found.append((name, number, json.loads(value)))
                name = number = ""
    return found


async def test_a_build_from_the_request_to_its_artifacts(service: Service) -> None:
    repository = service.repository("say hello", "keep dist/a.txt content")
    head = repository.git("rev-parse", "HEAD")
    answer = await service.client.post(
        "/build", json={"repo_url": str(repository.path), "branch": "main", "commit": head}
    )
    assert answer.status_code == 200
    assert answer.json() == {"build_id": answer.json()["build_id"], "status": "queued"}
    build_id = answer.json()["build_id"]
    assert re.fullmatch(r"build_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", build_id)

    build = await service.ended(build_id)
    assert list(build)[:3] == ["id", "status", "created_at"]
    assert {k: build[k] for k in ("id", "status", "repo_url", "branch", "commit", "artifacts_count", "message")} == {
        "id": build_id,
        "status": "completed",
        "repo_url": f"file://{repository.path}",
        "branch": "main",
        "commit": head,
        "artifacts_count": 1,
        "message": None,
    }
    assert build["created_at"] <= build["updated_at"]
    assert "hello\n" in build["log"]

    (artifact,) = (await service.client.get(f"/build/{build_id}/artifacts")).json()
    assert (artifact["path"], artifact["size"], artifact["sha256"]) == (
        "dist/a.txt",
        7,
        hashlib.sha256(b"content").hexdigest(),
    )
    file = await service.client.get(artifact["url"])
    assert (file.content, file.headers["etag"]) == (b"content", f'"{artifact["sha256"]}"')
    assert file.headers["content-disposition"].startswith("attachment")
    part = await service.client.get(artifact["url"], headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"nte")
    manifest = (await service.client.get(f"/build/{build_id}/manifest.json")).json()
    assert (manifest["commit"], manifest["total_size"], manifest["artifacts"][0]["sha256"]) == (
        head,
        7,
        artifact["sha256"],
    )
    assert service.left(build_id) == ["artifacts", "jobs.json", "log.jsonl", "manifest.json"]
    assert service.node.live == set()


async def test_the_states_are_those_of_the_pipeline(service: Service) -> None:
    repository = service.repository("gate go", "say after")
    build_id = await service.submit(repository)
    following = asyncio.create_task(events(service, build_id))
    await asyncio.wait_for(service.node.at_gate["go"].wait(), 20)
    running = await service.show(build_id)
    assert (running["status"], running["conclusion"]) == ("running_build", None)
    service.node.gates["go"].set()
    seen = await asyncio.wait_for(following, 20)
    states = [data["status"] for name, _, data in seen if name != "log"]
    assert states == [state for state in STATES if state in states]
    assert {"running_build", "completed"} <= set(states)
    assert seen[-1][0] == "end"


async def test_the_order_says_what_was_asked_for(service: Service) -> None:
    repository = service.repository("say x")
    build_id = await service.submit(
        repository, vcpus=3, memory_mib=512, timeout_s=42, artifacts=["dist/*"], image="base"
    )
    await service.ended(build_id)
    (order,) = service.node.orders
    assert (order.resources.vcpus, order.resources.memory_mib, order.resources.timeout_s) == (3, 512, 42)
    assert (order.collect, order.image, order.source.ref) == (("dist/*",), "base", "refs/heads/main")
    assert order.source.remote is not None
    assert order.source.remote.path == str(repository.path)
    await service.ended(await service.submit(repository))
    second = service.node.orders[1]
    assert (second.resources.vcpus, second.resources.memory_mib, second.resources.timeout_s) == (2, 2048, 600)


async def test_a_command_instead_of_a_workflow_and_a_workflow_by_path(service: Service) -> None:
    repository = service.repository(
        "fail 1",
        files={"ci/other.yml": "name: other\non: push\njobs: {b: {runs-on: linux, steps: [{run: say other}]}}\n"},
    )
    assert (await service.ended(await service.submit(repository, command="say mine")))["status"] == "completed"
    assert (await service.ended(await service.submit(repository, workflow="ci/other.yml")))["status"] == "completed"
    missing = await service.ended(await service.submit(repository, workflow="ci/none.yml"))
    assert (missing["status"], missing["message"]) == ("failed", "the repository has no workflow ci/none.yml")


async def test_a_step_that_fails_is_named(service: Service) -> None:
    build = await service.ended(await service.submit(service.repository("say before", "keep out x", "fail 3")))
    assert (build["status"], build["conclusion"]) == ("failed", "failure")
    assert build["message"] == "step 'Work' of job 'build' failed with exit status 3"
    assert build["artifacts_count"] == 1
    assert "==> Failed: step 'Work'" in build["log"]


async def test_a_step_that_may_fail_is_told_in_the_log(service: Service) -> None:
    build = await service.ended(await service.submit(service.repository("say before", "forgive 3")))
    assert (build["conclusion"], build["message"]) == ("success", None)
    assert (
        "--> step 'Work' of job 'build' failed with exit status 3, and the job goes on: continue-on-error\n"
        in build["log"]
    )


async def test_a_mistake_in_the_workflow_is_told_with_its_place(service: Service) -> None:
    repository = service.repository(
        files={".github/workflows/ci.yml": "on: push\njobs:\n  build:\n    runs-on: linux\n    stepz: []\n"}
    )
    build = await service.ended(await service.submit(repository))
    assert build["status"] == "failed"
    assert ".github/workflows/ci.yml (Line: 5, Col: 5)" in build["message"]
    assert service.node.orders == []


async def test_a_repository_that_is_not_there_fails_with_its_address(service: Service) -> None:
    build_id = (await service.client.post("/build", json={"repo_url": f"{service.repositories}/none"})).json()[
        "build_id"
    ]
    build = await service.ended(build_id)
    assert build["status"] == "failed"
    assert f"cannot clone file://{service.repositories}/none" in build["message"]
    assert service.left(build_id) == ["log.jsonl"]


async def test_a_timeout_fails_the_build(service: Service) -> None:
    build = await service.ended(await service.submit(service.repository("hang"), timeout_s=0.2))
    assert (build["status"], build["conclusion"]) == ("failed", "failure")
    assert "took longer than 0.2 s" in build["message"]


@pytest.mark.parametrize("where", ["hang", "unprepared"])
async def test_cancel_a_build_that_runs(service: Service, where: str) -> None:
    build_id = await service.submit(
        service.repository("gate here", where) if where == "hang" else service.repository(where)
    )
    if where == "hang":
        service.node.gates["here"].set()
        await asyncio.wait_for(service.node.at_gate["here"].wait(), 20)
    answer = await service.client.post(f"/build/{build_id}/cancel")
    assert (answer.status_code, answer.json()["cancel_requested"]) == (202, True)
    build = await service.ended(build_id)
    assert (build["status"], build["message"], build["conclusion"]) == ("failed", "cancelled", "cancelled")
    assert service.node.live == set()
    again = await service.client.post(f"/build/{build_id}/cancel")
    assert (again.status_code, again.headers["content-type"]) == (409, "application/problem+json")


async def test_cancel_a_build_that_clones(start: Start, tmp_path: Any) -> None:
    asked = asyncio.Event()
    git = GitServer(tmp_path, silent=True, on_request=asked.set)
    async with git.running(), start(clone_protocols={"http"}) as service:
        build_id = (await service.client.post("/build", json={"repo_url": f"{git.url}/o/n"})).json()["build_id"]
        await asyncio.wait_for(asked.wait(), 20)
        assert (await service.show(build_id))["status"] == "cloning_repo"
        await service.client.post(f"/build/{build_id}/cancel")
        build = await service.ended(build_id)
        assert (build["status"], build["message"]) == ("failed", "cancelled")
        assert service.left(build_id) == ["log.jsonl"]


async def test_cancel_a_build_that_waits(start: Start) -> None:
    async with start(DoubleNode(machines=1)) as service:
        repository = service.repository("gate go")
        first, second, third = [await service.submit(repository) for _ in range(3)]
        await asyncio.wait_for(service.node.at_gate["go"].wait(), 20)
        answer = (await service.client.post(f"/build/{second}/cancel")).json()
        assert (answer["status"], answer["message"]) == ("failed", "cancelled")
        assert (await service.client.get(f"/build/{second}/log")).text == "==> Cancelled\n"
        service.node.gates["go"].set()
        assert (await service.ended(first))["status"] == (await service.ended(third))["status"] == "completed"
        assert len(service.node.orders) == 2


async def test_a_cancel_at_any_moment_ends_the_build(service: Service) -> None:
    """The request to cancel comes while the build is claimed, cloned, planned or run, as it happens."""
    repository = service.repository("hang")
    for delay in range(24):
        build_id = await service.submit(repository)
        for _ in range(delay * delay):
            await asyncio.sleep(0)
        assert (await service.client.post(f"/build/{build_id}/cancel")).status_code == 202
        assert (await service.ended(build_id))["message"] == "cancelled"
        assert service.left(build_id) in ([], ["log.jsonl"], ["artifacts", "jobs.json", "log.jsonl", "manifest.json"])
    assert service.node.live == set()


async def test_builds_run_at_once_up_to_the_capacity(start: Start) -> None:
    async with start(DoubleNode(machines=3)) as service:
        repository = service.repository("gate go")
        answers = await asyncio.gather(*(service.submit(repository) for _ in range(40)))
        await asyncio.wait_for(service.node.at_gate["go"].wait(), 20)
        while len(service.node.live) < 3:
            await asyncio.sleep(0.01)
        health = (await service.client.get("/health")).json()
        assert (health["status"], health["running"], health["queued"]) == ("ok", 3, 37)
        service.node.gates["go"].set()
        builds = await asyncio.gather(*(service.ended(build_id) for build_id in answers))
        assert {build["status"] for build in builds} == {"completed"}
        assert service.node.most == 3
        assert len(service.node.orders) == 40
        assert len({build["id"] for build in builds}) == 40


async def test_pages(service: Service) -> None:
    repository = service.repository("say x")
    ids = [await service.submit(repository) for _ in range(5)]
    for build_id in ids:
        await service.ended(build_id)
    first = await service.client.get("/builds", params={"limit": 2})
    assert [build["id"] for build in first.json()] == [ids[4], ids[3]]
    link = re.fullmatch(r'<(.*)>; rel="next"', first.headers["link"])
    assert link is not None
    second = await service.client.get(link[1])
    assert [build["id"] for build in second.json()] == [ids[2], ids[1]]
    last = await service.client.get("/builds", params={"before": ids[1], "status": "completed"})
    assert [build["id"] for build in last.json()] == [ids[0]]
    assert "link" not in last.headers
    assert (await service.client.get("/builds", params={"limit": 1000})).status_code == 422
    assert (await service.client.get("/builds", params={"before": "build_none"})).status_code == 404


async def test_following_from_a_line_on(service: Service) -> None:
    build_id = await service.submit(service.repository("lines 300"))
    await service.ended(build_id)
    whole = [(int(number), data["text"]) for name, number, data in await events(service, build_id) if name == "log"]
    assert [number for number, _ in whole] == list(range(1, len(whole) + 1))
    rest = await events(service, build_id, **{"Last-Event-ID": "290"})
    assert [(int(number), data["text"]) for name, number, data in rest if name == "log"] == whole[290:]
    text = (await service.client.get(f"/build/{build_id}/log")).text
    assert text.splitlines() == [line for _, line in whole]


async def test_many_followers_and_one_that_does_not_read(service: Service) -> None:
    build_id = await service.submit(service.repository("gate go", "lines 40000 100"))
    await asyncio.wait_for(service.node.at_gate["go"].wait(), 20)
    async with service.client.stream("GET", f"/build/{build_id}/log?follow=1"):  # and never reads
        followers = [asyncio.create_task(events(service, build_id)) for _ in range(20)]
        service.node.gates["go"].set()
        seen = await asyncio.wait_for(asyncio.gather(*followers), 120)
    for found in seen:
        numbers = [int(number) for name, number, _ in found if name == "log"]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) > 40000
        assert found[-1][2]["status"] == "completed"


async def test_a_follower_that_goes_away_is_forgotten(service: Service) -> None:
    build_id = await service.submit(service.repository("gate go"))
    await asyncio.wait_for(service.node.at_gate["go"].wait(), 20)
    feed = service.builds._feeds.of(build_id)
    waiting = len(feed._change._waiters)
    for _ in range(5):
        async with service.client.stream("GET", f"/build/{build_id}/log?follow=1") as answer:
            async for line in answer.aiter_lines():
                if line.startswith("event: status"):
                    break
    async with asyncio.timeout(10):
        while len(feed._change._waiters) > waiting:
            await asyncio.sleep(0.01)
    service.node.gates["go"].set()
    await service.ended(build_id)


async def test_credentials_are_used_and_kept_from_everybody(
    start: Start, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    make_repository(tmp_path / "served" / "o" / "n", {"Makefile": "all:\n"})
    git = GitServer(tmp_path / "served", credential="me:s3cret-t0ken")
    async with git.running(), start(clone_protocols={"http"}) as service:
        address = git.url.replace("http://", "http://me:s3cret-t0ken@") + "/o/n"
        build_id = (await service.client.post("/build", json={"repo_url": address, "command": "say x"})).json()[
            "build_id"
        ]
        build = await service.ended(build_id)
        assert (build["status"], build["repo_url"]) == ("completed", f"{git.url}/o/n")
        wrong = address.replace("s3cret-t0ken", "wr0ng-t0ken")
        refused = await service.ended(
            (await service.client.post("/build", json={"repo_url": wrong})).json()["build_id"]
        )
        assert refused["status"] == "failed"
        paths = (f"/build/{build_id}", f"/build/{refused['id']}", "/builds")
        everything = "".join([(await service.client.get(path)).text for path in paths])
        dump = "\n".join(sqlite3.connect(service.home.database).iterdump())
    files = b"".join(path.read_bytes() for path in service.home.root.rglob("*") if path.is_file())
    for secret in ("s3cret-t0ken", "wr0ng-t0ken"):
        assert secret not in everything + dump + caplog.text
        assert secret.encode() not in files


@pytest.mark.parametrize("to_its_port", [True, False])
async def test_the_configured_credential_of_a_host(start: Start, tmp_path: Any, to_its_port: bool) -> None:
    make_repository(tmp_path / "served" / "o" / "n", {"Makefile": "all:\n"})
    git = GitServer(tmp_path / "served", credential="bot:configured")
    async with git.running():
        server = git.url.removeprefix("http://") if to_its_port else "127.0.0.1"
        async with start(clone_protocols={"http"}, git_credentials={server: "bot:configured"}) as service:
            body = {"repo_url": f"{git.url}/o/n", "command": "say x"}
            build_id = (await service.client.post("/build", json=body)).json()["build_id"]
            assert (await service.ended(build_id))["status"] == ("completed" if to_its_port else "failed")
            assert any(git.authorizations) is to_its_port, "a secret of another port is sent to nobody"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ([], 422),
        ({"repo_url": "ext::sh -c id"}, 422),
        ({"repo_url": "https://example.org/o/n", "branch": "--upload-pack=id"}, 422),
        ({"repo_url": "https://example.org/o/n", "commit": "HEAD~1"}, 422),
        ({"repo_url": "https://example.org/o/n", "vcpus": 64, "memory_mib": 1 << 20}, 422),
        ({"repo_url": "https://example.org/o/n", "typo": 1}, 422),
    ],
)
async def test_refusals_are_problems(service: Service, body: Any, status: int) -> None:
    answer = await service.client.post("/build", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert problem["status"] == status
    assert problem["detail"]
    assert (await service.client.get("/builds")).json() == []


async def test_a_refusal_says_what_was_asked_wrong_and_where_to_look(service: Service) -> None:
    both = {"repo_url": "https://example.org/o/n", "inputs": {"a": "b"}}
    assert (await service.client.post("/build", json=both)).json()["errors"] == [
        {"field": "", "message": "`inputs` are those of a `workflow_dispatch`"}
    ]
    for method, path, detail in (("GET", "/nothing", "nothing at this path"), ("DELETE", "/builds", "this method")):
        problem = (await service.client.request(method, path)).json()
        assert detail in problem["detail"]
        assert problem["hint"] == "GET /docs shows what there is."


async def test_a_refusal_does_not_repeat_a_secret(service: Service) -> None:
    for body in ({"repo_url": "gopher://me:s3cret@h/o/n"}, {"repo_url": "https://me:s3cret@h/o/n", "vcpus": "s3cret"}):
        answer = await service.client.post("/build", json=body)
        assert answer.status_code == 422
        assert "s3cret" not in answer.text


async def test_bodies_that_are_no_requests(service: Service) -> None:
    post, json_type = service.client.post, {"Content-Type": "application/json"}
    assert (await post("/build", content=b"{", headers=json_type)).status_code == 400
    assert (
        await post("/build", content=b'{"repo_url": "x"}', headers={"Content-Type": "text/plain"})
    ).status_code == 415
    assert (await post("/build", content=b" " * 1_100_000, headers=json_type)).status_code == 413

    async def chunks() -> Any:
        for _ in range(1100):
            yield b" " * 1000

    assert (await post("/build", content=chunks(), headers=json_type)).status_code == 413
    assert (await post("/build", content=b"\xff\xfe", headers=json_type)).status_code in (400, 422)


@pytest.mark.parametrize(
    "path",
    [
        "../../firebrick.db",
        "..%2f..%2ffirebrick.db",
        "%2e%2e/log.jsonl",
        "/etc/passwd",
        "dist",
        "",
        "dist/a.txt/",
        "link",
    ],
)
async def test_only_what_is_in_the_manifest_is_served(service: Service, path: str) -> None:
    build_id = await service.submit(service.repository("keep dist/a.txt x"))
    await service.ended(build_id)
    (service.home.builds / build_id / "artifacts" / "link").symlink_to("/etc/passwd")
    answer = await service.client.get(f"/build/{build_id}/artifacts/{path}", follow_redirects=True)
    assert "root:" not in answer.text
    assert answer.status_code == 404 or answer.json()[0]["path"] == "dist/a.txt"


async def test_a_full_queue_says_so(start: Start) -> None:
    async with start(DoubleNode(machines=1), max_queued=2) as service:
        repository = service.repository("gate go")
        first = await service.submit(repository)
        await asyncio.wait_for(service.node.at_gate["go"].wait(), 20)
        others = [await service.submit(repository) for _ in range(2)]
        answer = await service.client.post("/build", json={"repo_url": str(repository.path)})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        service.node.gates["go"].set()
        for build_id in (first, *others):
            await service.ended(build_id)


async def test_no_more_builds_wait_than_may_where_many_come_at_once(start: Start) -> None:
    async with start(DoubleNode(machines=1), max_queued=2) as service:
        repository = service.repository("gate go")
        first = await service.submit(repository)
        await asyncio.wait_for(service.node.at_gate["go"].wait(), 20)
        body = {"repo_url": str(repository.path)}
        answers = await asyncio.gather(*(service.client.post("/build", json=body) for _ in range(12)))
        assert sorted(answer.status_code for answer in answers) == [200] * 2 + [503] * 10
        assert (await service.client.get("/health")).json()["queued"] == 2
        service.node.gates["go"].set()
        for build_id in (first, *(answer.json()["build_id"] for answer in answers if answer.is_success)):
            await service.ended(build_id)


async def test_the_description_is_complete_and_the_page_needs_nothing_else(service: Service) -> None:
    openapi = (await service.client.get("/openapi.json")).json()
    assert {"/build", "/build/{build_id}", "/builds", "/health", "/build/{build_id}/cancel"} <= set(openapi["paths"])
    page = await service.client.get("/docs")
    assert all(path in page.text for path in openapi["paths"])
    assert "<script" not in page.text
    assert "https://" not in page.text.replace("https://example.org", "")
