"""Keys of jobs and workflows as records: containers, environments, permissions, concurrency, calls."""

import pytest

from firebrick.workflow.container.reader import read_container, read_services
from firebrick.workflow.diagram import draw
from firebrick.workflow.expression.expression import EvaluationError, Scope
from firebrick.workflow.job_reader import read_job
from firebrick.workflow.plan import plan
from firebrick.workflow.problem import Position, WorkflowError
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.schema.shape import Walk
from firebrick.workflow.schema.workflow import WORKFLOW
from firebrick.workflow.syntax import Services
from firebrick.workflow.yaml import load_yaml


def job_of(text: str):
    """The one job of a file, read even where it has what cannot be run yet."""
    content = "on: push\njobs:\n  a:\n" + "".join(f"    {line}\n" for line in text.strip().split("\n"))
    walk = Walk("f.yml", content)
    fields = walk.read(load_yaml(content, "f.yml"), WORKFLOW)
    job = read_job("a", Position(), fields["jobs"]["a"], walk, ("a",))
    assert [problem.message for problem in walk.problems if "not supported yet" not in problem.message] == []
    return job


def steps_job(text: str):
    return job_of(f"runs-on: x\nsteps: [run: x]\n{text}")


SCOPE = Scope({"github": {"ref": "r"}, "secrets": {"P": "s"}, "matrix": {"tag": "12"}})


def test_a_container_that_is_an_image():
    container = steps_job("container: debian:${{ matrix.tag }}").container
    assert container.image.text(SCOPE) == "debian:12"
    assert (container.env.texts(SCOPE), container.ports.texts(SCOPE), container.volumes.texts(SCOPE)) == ({}, (), ())
    assert container.credentials is None
    assert steps_job("container: ''").container is None


def test_a_container_with_everything():
    container = steps_job(
        """
container:
  image: registry/x
  env: {A: "${{ secrets.P }}", B: 1}
  ports: [80, '8080:80/udp']
  volumes: ['data:/data', /tmp:/t]
  options: --cpus 1
  credentials: {username: u, password: "${{ secrets.P }}"}
"""
    ).container
    assert container.image.raw == "registry/x"
    assert container.env.texts(SCOPE) == {"A": "s", "B": "1"}
    assert container.ports.texts(SCOPE) == ("80", "8080:80/udp")
    assert container.volumes.texts(SCOPE) == ("data:/data", "/tmp:/t")
    assert container.options.raw == "--cpus 1"
    assert container.credentials.username.raw == "u"
    assert container.credentials.password.text(SCOPE) == "s"


def test_services():
    services = steps_job(
        """
services:
  db:
    image: postgres:${{ matrix.tag }}
    entrypoint: /start
    command: --fast
    ports: ${{ fromJSON('["5432:5432", 1]') }}
  cache: redis
"""
    ).services
    assert list(services.entries) == ["db", "cache"]
    db, cache = services.entries.values()
    assert db.ports.texts(SCOPE) == ("5432:5432", "1")
    assert (db.entrypoint.raw, db.command.raw) == ("/start", "--fast")
    assert cache.image.raw == "redis"
    assert not Services()


def test_services_from_an_expression():
    services = steps_job("services: ${{ fromJSON(inputs.services) }}").services
    assert services
    assert services.expression.value(Scope({"inputs": {"services": '{"a": {"image": "b"}}'}})) == {"a": {"image": "b"}}


@pytest.mark.parametrize("json", ["1", "{}", "[[1]]"])
def test_ports_that_are_no_sequence_of_scalars(json):
    ports = steps_job(f"container: {{image: x, ports: \"${{{{ fromJSON('{json}') }}}}\"}}").container.ports
    with pytest.raises(EvaluationError, match="Expected a s"):
        ports.texts(SCOPE)


def test_nothing_written_is_no_container():
    walk = Walk("f.yml", "")
    assert read_container(None, walk) is None
    assert not read_services(None, walk)


def test_environments():
    assert steps_job("name: x").environment is None
    assert steps_job("environment: prod").environment.name.raw == "prod"
    environment = steps_job("environment: {name: p, url: '${{ steps.a.outputs.url }}', deployment: false}").environment
    assert environment.url.contexts == {"steps"}
    assert environment.deployment.value(SCOPE) is False


def test_permissions():
    permissions = steps_job("permissions: {contents: read, id-token: write}").permissions
    assert [permissions.level(scope) for scope in ("contents", "id-token", "issues")] == ["read", "write", "none"]
    assert steps_job("permissions: write-all").permissions.level("issues") == "write"
    assert steps_job("permissions: {}").permissions.level("issues") == "none"
    assert steps_job("name: x").permissions is None


def test_concurrency():
    concurrency = steps_job(
        "concurrency: {group: '${{ github.ref }}', cancel-in-progress: true, queue: single}"
    ).concurrency
    assert concurrency.group.text(SCOPE) == "r"
    assert concurrency.cancel_in_progress.flag(SCOPE)
    short = steps_job("concurrency: g").concurrency
    assert (short.group.raw, short.cancel_in_progress, short.queue) == ("g", None, None)


def test_what_a_workflow_says_of_all_its_jobs():
    text = "on: push\npermissions: read-all\nconcurrency: {group: g, queue: max}\njobs: {a: {runs-on: x, steps: [run: x]}}\n"
    workflow = read_workflow(text, "f.yml")
    assert workflow.permissions.level("contents") == "read"
    assert (workflow.concurrency.group.raw, workflow.concurrency.queue.raw) == ("g", "max")
    job = workflow.jobs["a"]
    assert (job.permissions, job.concurrency, job.call, job.runner_group) == (None, None, None, None)


def test_a_call():
    job = job_of(
        """
uses: o/r/.github/workflows/x.yml@v1
with: {n: 1, flag: true, text: "${{ github.ref }}"}
secrets: {token: "${{ secrets.P }}"}
"""
    )
    assert job.call.uses == "o/r/.github/workflows/x.yml@v1"
    assert {name: item.value(SCOPE) for name, item in job.call.with_.entries.items()} == {
        "n": 1,
        "flag": True,
        "text": "r",
    }
    assert job.call.secrets.texts(SCOPE) == {"token": "s"}
    assert not job.call.inherit_secrets
    assert (job.steps, job.runs_on) == ((), ())


def test_a_call_that_passes_all_secrets():
    call = job_of("uses: ./.github/workflows/x.yml\nsecrets: inherit").call
    assert call.inherit_secrets
    assert not call.secrets


def test_groups_of_runners():
    job = job_of("runs-on: {group: big, labels: [a, b]}\ncancel-timeout-minutes: 2\nsteps: [run: x]")
    assert job.runner_group.raw == "big"
    assert [label.raw for label in job.runs_on] == ["a", "b"]
    assert job.cancel_timeout_minutes.value(SCOPE) == 2


def strategy_of(text: str, **contexts):
    workflow = read_workflow(f"on: push\njobs: {{a: {{runs-on: x, strategy: {text}, steps: [run: x]}}}}\n", "f.yml")
    return plan(workflow, contexts=contexts).jobs


def test_one_expression_may_be_all_of_a_strategy():
    made = strategy_of(
        '"${{ fromJSON(inputs.s) }}"',
        inputs={"s": '{"matrix": {"v": [1, 2, 3]}, "fail-fast": false, "max-parallel": 2}'},
    )
    assert [job.name for job in made] == ["a (1)", "a (2)", "a (3)"]
    assert {(job.fail_fast, job.max_parallel) for job in made} == {(False, 2)}
    assert [job.name for job in strategy_of('"${{ fromJSON(inputs.s) }}"', inputs={"s": "{}"})] == ["a"]


@pytest.mark.parametrize(("json", "message"), [("[]", "Expected a mapping"), ('{"x": 1}', "Unexpected value 'x'")])
def test_an_expression_that_is_no_strategy(json, message):
    with pytest.raises(WorkflowError, match=rf"\(Line: 2, Col: 34\).*{message}"):
        strategy_of('"${{ fromJSON(inputs.s) }}"', inputs={"s": json})


def test_a_strategy_that_asks_for_needs_stays_open():
    text = 'on: push\njobs: {b: {runs-on: x, steps: [run: x]}, a: {needs: b, runs-on: x, strategy: "${{ fromJSON(needs.b.outputs.s) }}", steps: [run: x]}}\n'
    planned = plan(read_workflow(text, "f.yml"), contexts={})
    assert [job.is_open for job in planned.jobs] == [False, True]
    assert "a matrix" in draw(read_workflow(text, "f.yml"))
