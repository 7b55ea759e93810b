"""Builds for events over a real socket: which workflows start, with which inputs; attempts that follow each other."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.e2e.conftest import Service, Start
from tests.node_double import DoubleNode

pytestmark = pytest.mark.network

JOB = "jobs: {build: {runs-on: linux, steps: [{run: say %s}]}}\n"


def flow(on: str, word: str = "x") -> str:
    return f"on: {on}\n{JOB % word}"


FLOWS = {
    ".github/workflows/a.yml": flow("{push: {branches: [release]}}"),
    ".github/workflows/b.yml": flow("{push: {paths: ['src/**']}}", "b"),
    ".github/workflows/c.yml": flow("{push: {paths: ['docs/**']}}", "c"),
    ".github/workflows/d.yml": flow("[push, pull_request]", "d"),
}


async def finished(service: Service, repository: Any, **fields: Any) -> dict[str, Any]:
    return await service.ended(await service.submit(repository, **fields))


async def test_an_event_starts_what_its_filters_let_through_and_says_why_not(service: Service) -> None:
    repository = service.repository(files={**FLOWS, ".github/workflows/ci.yml": "on: [\n"})
    before = repository.git("rev-parse", "HEAD")
    after = repository.commit({"src/x": "1"})
    payload = {"ref": "refs/heads/main", "before": before, "after": after}
    build = await finished(service, repository, event="push", payload=payload)
    assert (build["conclusion"], build["commit"], build["ref"]) == ("success", after, "refs/heads/main")
    starts = {each["path"].rpartition("/")[2]: each["starts"] for each in build["workflows"]}
    assert starts == {"a.yml": False, "b.yml": True, "c.yml": False, "ci.yml": False, "d.yml": True}
    reasons = {each["path"].rpartition("/")[2]: each["reason"] for each in build["workflows"]}
    assert reasons["a.yml"] == "The branch 'main' is not of `branches`: release."
    assert reasons["c.yml"] == "None of 1 changed file is of `paths`: docs/**."
    assert "(Line: " in reasons["ci.yml"]
    builds = {each["path"][-5:]: each["build"] for each in build["workflows"] if each["starts"]}
    assert builds["b.yml"] == build["id"]
    other = await service.ended(builds["d.yml"])
    assert (other["conclusion"], other["commit"], other["ref"]) == ("success", after, "refs/heads/main")
    assert [order.workflow.path[-5:] for order in service.node.orders] == ["b.yml", "d.yml"]
    assert [(order.source.event_name, order.source.event["before"]) for order in service.node.orders] == [
        ("push", before)
    ] * 2
    assert len((await service.client.get("/builds")).json()) == 2


async def test_an_event_queues_no_more_than_may_wait(start: Start) -> None:
    async with start(DoubleNode(machines=1), max_queued=2) as service:
        waits = flow("push").replace("say x", "gate go")
        files = {f".github/workflows/{name}.yml": waits for name in ("a", "b", "ci", "d", "e")}
        first = await service.submit(service.repository(files=files), event="push")
        await asyncio.wait_for(service.node.at_gate["go"].wait(), 20)
        build = (await service.client.get(f"/build/{first}")).json()
        assert [each["starts"] for each in build["workflows"]] == [True] * 3 + [False] * 2
        assert build["workflows"][-1]["build"] is None
        words = "It would, but 2 builds are waiting already. Ask for this workflow again later."
        assert build["workflows"][-1]["reason"] == words
        assert f"==> push does not start .github/workflows/e.yml: {words}\n" in build["log"]
        assert (await service.client.get("/health")).json()["queued"] == 2
        service.node.gates["go"].set()
        for each in build["workflows"][:3]:
            assert (await service.ended(each["build"]))["conclusion"] == "success"
        assert len((await service.client.get("/builds")).json()) == 3


async def test_what_starts_nothing_needs_no_machine(service: Service) -> None:
    repository = service.repository(files={".github/workflows/ci.yml": FLOWS[".github/workflows/c.yml"]})
    repository.commit({"src/x": "1"})
    build = await finished(service, repository, event="push")
    assert (build["status"], build["conclusion"]) == ("completed", "skipped")
    assert build["message"] == "None of 1 changed file is of `paths`: docs/**."
    assert "==> Not started: None of 1" in build["log"]
    assert service.node.orders == []
    assert service.left(build["id"]) == ["log.jsonl"]
    build = await finished(service, repository, event="release", workflow=".github/workflows/ci.yml")
    assert (build["conclusion"], build["message"]) == (
        "skipped",
        "The workflow does not run on release: its events are push.",
    )


async def test_a_pull_request_is_built_as_it_would_be_merged(service: Service) -> None:
    on = "{pull_request: {paths: ['src/**'], branches: [main]}}"
    repository = service.repository(files={".github/workflows/ci.yml": flow(on)})
    base = repository.git("rev-parse", "HEAD")
    repository.git("checkout", "--quiet", "-b", "change")
    head = repository.commit({"src/x": "1"})
    repository.git("checkout", "--quiet", "main")
    repository.commit({"docs/y": "1"})
    repository.git("merge", "--quiet", "--no-ff", "--message", "m", "change")
    merge = repository.git("rev-parse", "HEAD")
    repository.git("update-ref", "refs/pull/5/merge", merge)
    repository.git("update-ref", "refs/pull/5/head", head)
    repository.git("update-ref", "refs/pull/6/head", head)
    repository.git("reset", "--quiet", "--hard", base)
    payload = {"action": "opened", "number": 5, "pull_request": {"base": {"ref": "main"}, "head": {"ref": "change"}}}
    build = await finished(service, repository, event="pull_request", payload=payload)
    assert (build["conclusion"], build["commit"], build["ref"]) == ("success", merge, "refs/pull/5/merge")
    build = await finished(service, repository, event="pull_request", payload={**payload, "number": 6})
    assert (build["conclusion"], build["commit"], build["ref"]) == ("success", head, "refs/pull/6/head")
    (first, _) = service.node.orders
    assert (first.source.ref, first.source.event["number"]) == ("refs/pull/5/merge", 5)


DISPATCH = """on:
  workflow_dispatch:
    inputs:
      level: {type: choice, options: [low, high], required: true}
      dry: {type: boolean}
      count: {type: number, default: 3}
jobs: {build: {runs-on: linux, steps: [{run: say x}]}}
"""


async def test_a_dispatch_has_its_inputs_checked_as_the_language_does(service: Service) -> None:
    path = ".github/workflows/ci.yml"
    repository = service.repository(files={path: DISPATCH})
    ask = {"event": "workflow_dispatch", "workflow": path}
    build = await finished(service, repository, **ask, inputs={"level": "high", "DRY": True})
    assert build["conclusion"] == "success"
    (order,) = service.node.orders
    assert order.inputs == {"level": "high", "dry": True, "count": 3}
    assert order.source.event["inputs"] == {"level": "high", "dry": "true", "count": "3"}
    build = await finished(service, repository, **ask, inputs={"level": "middle", "other": "x"})
    assert build["conclusion"] == "failure"
    assert 'Unexpected inputs provided: ["other"]' in build["message"]
    assert "Provided value 'middle' for input 'level' not in the list of allowed values" in build["message"]
    build = await finished(service, repository, **ask)
    assert "Required input 'level' not provided" in build["message"]
    assert len(service.node.orders) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"event": "workflow_dispatch"}, "of one `workflow`"),
        ({"inputs": {"a": "b"}}, "`inputs` are those"),
        ({"payload": {}}, "is that of an `event`"),
        ({"event": "push", "command": "x"}, "is not started by"),
        ({"event": "Push!"}, "event"),
        ({"event": "push", "payload": {"ref": "refs/heads/x"}, "branch": "main"}, "another ref"),
        (
            {"event": "push", "payload": {"ref": "refs/heads/main", "after": "a" * 40}, "commit": "b" * 40},
            "another commit",
        ),
        ({"event": "push", "payload": {"ref": "refs/heads/x", "deleted": True}}, "deleted its ref"),
        ({"event": "push", "payload": {"ref": "refs/heads/../x"}}, "not a name"),
        ({"event": "push", "payload": {"ref": "--upload-pack=x"}}, ""),
        ({"event": "push", "payload": {"before": "nonsense"}}, ""),
        ({"event": "workflow_dispatch", "workflow": "w.yml", "inputs": {"a": "x" * 70_000}}, "too large"),
        ({"event": "workflow_dispatch", "workflow": "w.yml", "inputs": {str(n): "x" for n in range(26)}}, "25"),
        ({"event": "workflow_dispatch", "workflow": "w.yml", "inputs": {"a": {"b": "c"}}}, "inputs"),
        ({"event": "push", "payload": {"number": [-(10**4000)]}}, "64 bits"),
        ({"event": "push", "payload": {"number": 1 << 62}}, ""),
        ({"image": f"built-{'0' * 32}-{'0' * 12}"}, "may not be named"),
        ({"image": f"redis-7-{'a' * 12}"}, "may not be named"),
        ({"image": "ab" * 32}, "may not be named"),
        ({"event": "push", "payload": {"ref": "refs/heads/\ud800"}}, "no Unicode"),
        ({"event": "push", "payload": {"\udfff": [1]}}, "payload"),
    ],
)
async def test_what_cannot_be_meant_is_refused(service: Service, fields: dict[str, Any], words: str) -> None:
    repository = service.repository("say x")
    body = json.dumps({"repo_url": str(repository.path), **fields})
    answer = await service.client.post("/build", content=body, headers={"Content-Type": "application/json"})
    if words:
        assert answer.status_code == 422
        assert words in answer.text
    else:
        assert (await service.ended(answer.json()["build_id"]))["status"] in ("completed", "failed")


async def test_a_payload_too_deep_is_refused(service: Service) -> None:
    deep: dict[str, Any] = {}
    for _ in range(150):
        deep = {"x": [deep]}
    repository = service.repository("say x")
    body = {"repo_url": str(repository.path), "event": "push", "payload": deep}
    answer = await service.client.post("/build", json=body)
    assert (answer.status_code, "nested" in answer.text) == (422, True)


async def test_one_key_is_one_build(service: Service) -> None:
    repository = service.repository("say x")
    body = {"repo_url": str(repository.path)}

    async def post(**fields: Any) -> Any:
        return await service.client.post("/build", json={**body, **fields}, headers={"Idempotency-Key": "k1"})

    answers = await asyncio.gather(*(post() for _ in range(8)))
    assert len({answer.json()["build_id"] for answer in answers}) == 1
    assert (await post(command="say y")).status_code == 409
    await service.ended(answers[0].json()["build_id"])
    assert (await post()).json()["build_id"] == answers[0].json()["build_id"]
    assert len(service.node.orders) == 1


CHAIN = """on: push
jobs:
  good: {runs-on: linux, steps: [{run: keep out/good kept}]}
  bad: {needs: good, runs-on: linux, steps: [{run: 'gate decide'}, {run: fail 1}]}
  after: {needs: bad, runs-on: linux, steps: [{run: say after}]}
"""


async def rerun(service: Service, build_id: str, **fields: Any) -> dict[str, Any]:
    answer = await service.client.post(f"/build/{build_id}/rerun", json=fields)
    assert answer.status_code == 200, answer.text
    return await service.ended(answer.json()["build_id"])


async def test_attempts_follow_each_other_on_the_same_commit(start: Start) -> None:
    async with start(DoubleNode()) as service:
        repository = service.repository(files={".github/workflows/ci.yml": CHAIN})
        service.node.gates["decide"].set()
        first = await finished(service, repository, event="push")
        assert (first["conclusion"], first["run_attempt"], first["origin"]) == ("failure", 1, first["id"])
        repository.commit(
            {".github/workflows/ci.yml": "on: push\njobs: {other: {runs-on: linux, steps: [{run: say o}]}}\n"}
        )

        second = await rerun(service, first["id"])
        assert (second["run_attempt"], second["origin"], second["commit"]) == (2, first["id"], first["commit"])
        assert (second["ref"], second["repeat"]["build"]) == ("refs/heads/main", first["id"])
        third = await rerun(service, first["id"], failed=True)
        assert (third["run_attempt"], third["repeat"]["failed"]) == (3, True)
        assert third["artifacts_count"] == 1
        one, two, three = service.node.orders
        assert [(order.number, order.origin) for order in (one, two, three)] == [(n, first["id"]) for n in (1, 2, 3)]
        assert dict(two.earlier.jobs) == {}
        assert {key: ended.result for key, ended in three.earlier.jobs.items()} == {
            "good": "success",
            "after": "success",
        }
        assert [order.source.event["after"] for order in (one, two, three)] == [first["commit"]] * 3
        shown = (await service.client.get(f"/build/{second['id']}/attempts")).json()
        assert [each["id"] for each in shown] == [first["id"], second["id"], third["id"]]
        assert service.left(third["id"]) == ["artifacts", "jobs.json", "log.jsonl", "manifest.json"]
        # What the first had left is its own still.
        assert (await service.client.get(f"/build/{first['id']}/artifacts/out/good")).text == "kept"


async def test_one_attempt_at_a_time(start: Start) -> None:
    async with start(DoubleNode()) as service:
        repository = service.repository(files={".github/workflows/ci.yml": CHAIN})
        build_id = await service.submit(repository)
        await service.node.at_gate["decide"].wait()
        busy = await service.client.post(f"/build/{build_id}/rerun", json={})
        assert (busy.status_code, "has not ended" in busy.text) == (409, True)
        service.node.gates["decide"].set()
        await service.ended(build_id)
        answers = await asyncio.gather(*(service.client.post(f"/build/{build_id}/rerun", json={}) for _ in range(6)))
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 5
        (new,) = [answer.json()["build_id"] for answer in answers if answer.status_code == 200]
        await service.ended(new)


async def test_a_rerun_that_makes_no_sense(service: Service) -> None:
    repository = service.repository("say x")
    build = await finished(service, repository)
    for fields, status, words in (
        ({"failed": True}, 422, "has failed"),
        ({"from_step": 2}, 409, "no checkpoint"),
        ({"command": "x"}, 422, "go with"),
        ({"failed": True, "from_step": 1}, 422, "not both"),
        ({"from_step": -1}, 422, "from_step"),
    ):
        answer = await service.client.post(f"/build/{build['id']}/rerun", json=fields)
        assert (answer.status_code, words in answer.text) == (status, True), answer.text
    assert (await service.client.post("/build/build_none/rerun", json={})).status_code == 404


async def test_on_from_a_checkpoint_of_the_node(start: Start) -> None:
    node = DoubleNode()
    async with start(node) as service:
        build = await finished(service, service.repository("say x"))
        entry = object()
        node.checkpoints[f"{build['id']}-1", 2] = entry  # type: ignore[assignment]
        again = await rerun(service, build["id"], from_step=2, command="say better")
        assert again["conclusion"] == "success"
        order = node.orders[-1]
        assert order.rerun is not None
        assert (order.rerun.entry, order.rerun.command, order.number) == (entry, "say better", 2)
        # Gone by the time it runs, it says so.
        del node.checkpoints[f"{build['id']}-1", 2]
        answer = await service.client.post(f"/build/{again['id']}/rerun", json={"from_step": 2})
        assert answer.status_code == 409
