"""Containers and services of a job, as they are run."""

from __future__ import annotations

import contextlib
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firebrick.workflow.container.container import ContainerSpec, Login, Port, container_spec, service_specs
from firebrick.workflow.container.options import parse_duration, parse_options
from firebrick.workflow.expression.expression import EvaluationError, Scope
from firebrick.workflow.reader import read_workflow

SCOPE = Scope(
    {
        "matrix": {
            "db": {"image": "db:1", "ports": ["5432"], "env": {"A": 1}},
            "image": "x:2",
            "none": "",
            "many": {"a": "b"},
        },
        "secrets": {"USER": "u", "PASSWORD": "p"},
        "github": {},
    }
)


def job(text: str):
    head = "on: push\njobs:\n  a:\n    runs-on: base\n    strategy: {matrix: {db: [1]}}\n    steps: [{run: 'true'}]\n"
    return read_workflow(head + textwrap.indent(textwrap.dedent(text), "    "), "ci.yml").jobs["a"]


def service(text: str) -> ContainerSpec:
    return service_specs(job(text).services, SCOPE)["s"]


def test_a_service_with_everything() -> None:
    spec = service("""\
        services:
          s:
            image: redis:7
            env: {A: '${{ matrix.image }}', B: 2}
            ports: [6379, '8080:80', '127.0.0.1:9000:90/udp']
            volumes: ['/a:/b']
            credentials: {username: '${{ secrets.USER }}', password: '${{ secrets.PASSWORD }}'}
            options: --health-cmd "redis-cli ping" --health-interval 10s --health-timeout=1m30s --health-retries 5 --cpus 2 --network-alias x
            command: serve 'a b'
    """)
    assert spec.image == "redis:7"
    assert dict(spec.env) == {"A": "x:2", "B": "2"}
    assert spec.ports == (Port(6379), Port(80, 8080), Port(90, 9000, "udp"))
    assert spec.login == Login(username="u", password="p")
    assert "p" not in repr(spec.login).split("password")[-1]
    assert spec.options.health.command == "redis-cli ping"
    assert (spec.options.health.interval_s, spec.options.health.timeout_s, spec.options.health.retries) == (10, 90, 5)
    assert (spec.options.vcpus, spec.options.ignored) == (2, ("--network-alias",))
    assert (spec.entrypoint, spec.command) == (None, ("serve", "a b"))


def test_a_text_is_an_image_and_an_expression_may_be_all_of_it() -> None:
    assert service("services: {s: {image: redis}}").image == "redis"
    spec = service("services: {s: '${{ matrix.db }}'}")
    assert (spec.image, spec.ports, dict(spec.env)) == ("db:1", (Port(5432),), {"A": "1"})
    assert service('services: >-\n  ${{ fromJSON(\'{"s": {"image": "a"}}\') }}').image == "a"


def test_an_empty_image_is_no_container() -> None:
    assert service_specs(job("services: {s: {image: '${{ matrix.none }}'}}").services, SCOPE) == {}
    container = job("container: ${{ matrix.none }}").container
    assert container is not None
    assert container_spec(container, SCOPE) is None


@pytest.mark.parametrize(
    "text",
    [
        "services: {s: {image: a, ports: ['0:0']}}",
        "services: {s: {image: a, ports: ['80-90']}}",
        "services: {s: {image: a, ports: ['99999']}}",
        "services: {s: {image: a, options: '--health-interval soon'}}",
        "services: {s: {image: a, options: '--memory much'}}",
        "services: {s: {image: a, options: 'word'}}",
        "services: {s: {image: a, options: '--hostname \"a b\"'}}",
        "services: {s: {image: a, options: '\"'}}",
        "services: {s: '${{ matrix.many }}'}",
        "services: {s: {image: a, credentials: {username: '${{ secrets.USER }}', password: '${{ secrets.NONE }}'}}}",
        'services: >-\n  ${{ fromJSON(\'{"a b": "x"}\') }}',
        'services: >-\n  ${{ fromJSON(\'{"a\\nb": "x"}\') }}',
        "services: >-\n  ${{ fromJSON('[]') }}",
        f"services: {{{', '.join(f's{n}: {{image: a}}' for n in range(17))}}}",
        f"services: {{s: {{image: a, ports: [{', '.join(['80'] * 65)}]}}}}",
    ],
)
def test_what_is_no_service(text: str) -> None:
    with pytest.raises(EvaluationError):
        service_specs(job(text).services, SCOPE)


def test_options_of_docker() -> None:
    options = parse_options("-u 1001:1 -w /x -h box -m 2g -e A=b --env=C --entrypoint '' --privileged --no-healthcheck")
    assert (options.user, options.directory, options.hostname, options.memory_mib) == ("1001:1", "/x", "box", 2048)
    assert dict(options.env) == {"A": "b", "C": ""}
    assert (options.entrypoint, options.ignored, options.health.disabled) == ("", ("--privileged",), True)


def test_a_command_may_begin_with_a_dash() -> None:
    assert parse_options("--health-cmd '--x'").health.command == "--x"


def test_durations() -> None:
    assert [parse_duration(text, "x") for text in ("1h2m3s", "500ms", "1.5s")] == [3723, 0.5, 1.5]
    for wrong in ("", "10", "s", "1d", "1s ", "9" * 1000):
        with pytest.raises(EvaluationError):
            parse_duration(wrong, "x")


@given(st.text(max_size=300))
def test_any_text_is_options_or_a_mistake(text: str) -> None:
    with contextlib.suppress(EvaluationError):
        assert parse_options(text).env is not None
