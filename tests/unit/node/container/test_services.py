"""Jobs with services, and jobs in containers, on guests in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from firebrick.guest.double.task import Task
from firebrick.image.oci_config import Healthcheck, ImageConfig
from firebrick.node.container.service import check_of, launch_of
from firebrick.node.errors import ContainerError
from firebrick.node.event import CancelCause
from firebrick.node.order import Resources
from firebrick.workflow.container.container import ContainerSpec
from firebrick.workflow.container.options import parse_options
from tests.unit.node.conftest import Bed


async def upper(read: Callable[[], Awaitable[bytes]], write: Callable[[bytes], Awaitable[None]]) -> None:
    text = b""
    while piece := await read():
        text += piece
    await write(text.upper())


async def serve(task: Task) -> int:
    """A program that serves for ever, having said how it was called."""
    await task.out(b"serving " + b" ".join(task.argv[1:]) + b" for " + task.env.get(b"WHO", b"nobody") + b"\n")
    await asyncio.Event().wait()
    return 0


async def die(task: Task) -> int:
    await task.out(b"first line\ncannot open the database\n")
    return 3


SERVER = ImageConfig(entrypoint=("serve",), command=("--port", "6379"), exposed={"6379/tcp": b"{}"})  # type: ignore[dict-item]


@pytest.fixture
def served(bed: Bed) -> Bed:
    lender = bed.lender
    lender.capacity = 8
    lender.containers = {"redis": SERVER, "web": SERVER, "bare": ImageConfig()}
    lender.ports = {"redis": {6379: upper}, "web": {6379: upper, 80: upper}}
    lender.programs |= {"serve": serve, "die": die}
    return bed


def workflow(services: str, *steps: str, before: str = "") -> str:
    lines = ["on: push", "jobs:", "  build:", "    runs-on: base"]
    lines += [f"    {line}" for line in before.splitlines()]
    lines += ["    services:", *(f"      {line}" for line in services.splitlines()), "    steps:"]
    lines += [f"      - run: {step}" for step in steps]
    return "\n".join(lines) + "\n"


async def test_a_service_is_found_by_its_name(served: Bed) -> None:
    told = await served.run(workflow("cache: {image: redis}", "call cache 6379 ping", "call cache 80 ping"))
    assert told.result.conclusion == "success"
    assert told.lines(step=0) == ["PING"]
    assert told.lines(step=1) == ["refused"], "nothing but its ports can be reached"
    assert served.lender.most == 2
    assert [purpose.split(" of ")[0] for _, _, purpose in served.lender.asked] == ["job build", "service cache"]


async def test_ports_are_those_of_localhost_too(served: Bed) -> None:
    told = await served.run(
        workflow(
            "cache: {image: redis, ports: ['7000:6379', 80]}",
            "call localhost 7000 mapped",
            "call 127.0.0.1 ${{ job.services.cache.ports['6379'] }} context",
            "echo ${{ job.services.cache.ports[80] > 0 }} ${{ job.services.cache.id }} ${{ job.services.cache.network }}",
        )
    )
    assert [told.lines(step=n) for n in range(3)] == [["MAPPED"], ["CONTEXT"], ["true m2 firebrick"]]


async def test_services_find_one_another(served: Bed) -> None:
    answers: list[bytes] = []

    async def ask(task: Task) -> int:
        lines = task.disk.file(b"/etc/hosts").content.read(0, 1 << 16).decode().splitlines()
        address = next(line.split()[0] for line in lines if "cache" in line.split())
        end = task.dial(6379, address)
        await end.write(b"from front")
        await end.end()
        answers.append(await end.read(100))
        return await serve(task)

    async def has_asked(task: Task) -> int:
        return 0 if answers else 1

    served.lender.programs |= {"ask": ask, "sh": has_asked}
    services = "cache: {image: redis}\nfront: {image: bare, entrypoint: ask, ports: [80], options: --health-cmd x}"
    told = await served.run(workflow(services, "echo"))
    assert told.result.conclusion == "success"
    assert answers == [b"FROM FRONT"]


async def test_a_service_does_not_find_another_at_its_own_port(served: Bed) -> None:
    """A program that listens on all addresses could not, where somebody listens on one of them."""
    told = await served.run(workflow("cache: {image: redis}\nweb: {image: web}", "echo"))
    assert told.lines(step=-1) == [
        "The service cache does not find web at port 6379, which is one of its own.",
        "The service web does not find cache at port 6379, which is one of its own.",
    ]


async def test_a_service_that_ends_while_the_job_runs_is_told(served: Bed) -> None:
    async def lives(task: Task) -> int:
        await dead.wait()
        return 0

    async def die_later(task: Task) -> int:
        asyncio.get_running_loop().call_later(0.1, dead.set)
        return await die(task)

    dead = asyncio.Event()
    served.lender.programs |= {"die": die_later, "bash": lives}
    told = await served.run(workflow("db: {image: bare, entrypoint: die, ports: [1]}", "x"))
    assert told.result.conclusion == "success"
    assert told.lines(step=-1) == [
        "The service db has ended: its program exited with status 3",
        "The last lines of the service db:",
        "  first line",
        "  cannot open the database",
    ]


async def test_a_health_check_is_waited_for(served: Bed) -> None:
    tries = []

    async def ping(task: Task) -> int:
        tries.append(task.env.get(b"WHO"))
        await task.out(b"not yet\n")
        return 0 if len(tries) == 3 else 1

    served.lender.programs["sh"] = ping
    served.lender.containers["base"] = ImageConfig()
    told = await served.run(
        workflow("cache: {image: redis, env: {WHO: me}, options: --health-cmd ping --health-interval 1s}", "echo ready")
    )
    assert told.lines(step=0) == ["ready"]
    assert tries == [b"me"] * 3


async def test_a_service_that_stays_unhealthy_fails_the_job(served: Bed) -> None:
    async def ping(task: Task) -> int:
        await task.out(b"connection refused\n")
        return 1

    served.lender.programs["sh"] = ping
    options = "--health-cmd ping --health-interval 100ms --health-retries 2"
    told = await served.run(workflow(f"cache: {{image: redis, options: {options}}}", "echo never"))
    assert told.result.conclusion == "failure"
    assert "the service cache is not healthy" in told.result.jobs["build"].message
    assert "connection refused" in told.result.jobs["build"].message
    assert "  serving --port 6379 for nobody" in told.lines(step=-1)
    assert told.steps() == []


async def test_a_service_that_dies_before_it_is_ready_fails_the_job(served: Bed) -> None:
    async def ping(task: Task) -> int:
        await asyncio.sleep(60)
        return 1

    served.lender.programs["sh"] = ping
    told = await served.run(workflow("db: {image: bare, entrypoint: die, options: --health-cmd x}", "echo never"))
    message = told.result.jobs["build"].message
    assert "the service db has ended before it was ready: its program exited with status 3" in message
    assert told.lines(step=-1)[-4:-1] == [
        "The last lines of the service db:",
        "  first line",
        "  cannot open the database",
    ]


@pytest.mark.parametrize(
    ("services", "message"),
    [
        ("x: {image: none}", "there is no image `none`"),
        ("x: {image: bare}", "does not say what to run"),
        ("a: {image: redis, ports: ['7000:6379']}\nb: {image: web, ports: ['7000:80']}", "it is taken"),
        ("x: {image: redis, options: --cpus none}", "Unexpected value 'none' for --cpus"),
    ],
)
async def test_what_cannot_be_started_fails_the_job(served: Bed, services: str, message: str) -> None:
    told = await served.run(workflow(services, "echo never"))
    assert told.result.conclusion == "failure"
    assert message in told.result.jobs["build"].message


async def test_what_has_no_effect_is_said(served: Bed) -> None:
    told = await served.run(
        workflow("x: {image: redis, volumes: ['/a:/b'], ports: ['53:53/udp'], options: --network-alias y}", "echo ok")
    )
    warnings = [line for line in told.lines(step=-1) if line.startswith("Warning")]
    assert len(warnings) == 3
    assert told.result.conclusion == "success"


async def test_much_that_has_no_effect_is_not_all_said(served: Bed) -> None:
    volumes = ", ".join(f"'/v{number}:/v'" for number in range(30))
    told = await served.run(workflow(f"x: {{image: redis, volumes: [{volumes}]}}", "echo ok"))
    assert len(told.lines(step=-1)) == 21
    assert told.lines(step=-1)[-1] == "Warning: 10 more have no effect here."


async def test_a_service_gets_what_it_asks_for_within_what_the_job_has(served: Bed) -> None:
    resources = Resources(vcpus=2, memory_mib=2048)
    services = (
        "a: {image: redis, options: --cpus 8 --memory 64g}\nb: {image: redis}\nc: {image: redis, options: --memory 1m}"
    )
    await served.run(workflow(services, "echo"), resources=resources)
    assert [(asked.vcpus, asked.memory_mib) for _, asked, _ in served.lender.asked] == [
        (2, 2048),
        (2, 2048),
        (1, 1024),
        (1, 64),
    ]


async def test_a_cancelled_job_leaves_no_machine(served: Bed) -> None:
    async def ping(task: Task) -> int:
        waiting.set()
        await asyncio.sleep(60)
        return 1

    waiting = asyncio.Event()
    served.lender.programs["sh"] = ping
    async with served.live(workflow("x: {image: redis, options: --health-cmd x}", "echo never")) as run:
        await waiting.wait()
        run.cancel(CancelCause.USER)
        result = await run.result()
    assert result.conclusion == "cancelled"
    assert served.lender.lent == 0


async def test_two_jobs_with_services_on_a_small_node_take_turns(served: Bed) -> None:
    served.lender.capacity = 2
    text = """
        on: push
        jobs:
          a: {runs-on: base, services: {s: {image: redis}}, steps: [{run: call s 6379 a}]}
          b: {runs-on: base, services: {s: {image: redis}}, steps: [{run: call s 6379 b}]}
    """
    told = await served.run(text)
    assert told.jobs() == {"a": "success", "b": "success"}
    assert served.lender.most == 2


async def test_a_job_in_a_container(served: Bed) -> None:
    served.lender.containers["app"] = ImageConfig(environment=("PATH=/opt/app:/bin", "MODE=image", "ONE=image"))
    told = await served.run(
        workflow(
            "cache: {image: redis, ports: ['7000:6379']}",
            "echo $MODE $ONE $TWO $PATH",
            "call cache 6379 ping",
            "call localhost 7000 ping",
            "echo ${{ job.container.id }} ${{ job.container.network }} ${{ job.services.cache.ports['6379'] }}[${{ env.ONE }}]",
            before="container: {image: app, env: {ONE: '${{ secrets.KEY }}1', TWO: '2'}, options: --privileged, volumes: ['/x:/y']}\n"
            "env: {TWO: job}",
        ),
        secrets={"KEY": "sesame"},
    )
    assert told.lines(step=0) == ["image ***1 job /opt/app:/bin"]
    assert [told.lines(step=1), told.lines(step=2)] == [["PING"], ["refused"]]
    assert told.lines(step=3) == ["m1 firebrick 6379[]"]
    assert served.lender.asked[0][0] == "app"
    assert [line for line in told.lines(step=-1) if line.startswith("Warning")] == [
        "Warning: The option --privileged of the container has no effect here.",
        "Warning: The volume /x:/y of the container has no effect here.",
    ]


async def test_no_container_where_the_image_is_empty(served: Bed) -> None:
    served.lender.containers["app"] = ImageConfig()
    told = await served.run(
        """
        on: push
        jobs:
          build:
            runs-on: base
            strategy: {matrix: {image: ['', app]}}
            container: ${{ matrix.image }}
            steps: [{run: 'echo [${{ job.container.network }}]'}]
        """
    )
    assert list(told.jobs().values()) == ["success", "success"]
    assert sorted(image for image, _, _ in served.lender.asked) == ["app", "base"]
    assert sorted(line for job in told.jobs() for line in told.lines(job, 0)) == ["[]", "[firebrick]"]


async def test_credentials_reach_the_registry(served: Bed) -> None:
    login = "credentials: {username: me, password: '${{ secrets.KEY }}'}"
    await served.run(workflow(f"x: {{image: redis, {login}}}", "echo"), secrets={"KEY": "sesame"})
    assert [(login.username, login.password) for login in served.lender.logins if login] == [("me", "sesame")]


IMAGE = ImageConfig(
    entrypoint=("/entry", "x"),
    command=("serve",),
    environment=("A=image", "B=image"),
    user="app:app",
    directory="/srv",
    health=Healthcheck(test=("CMD", "ping"), interval=2_000_000_000, retries=4),
)


@pytest.mark.parametrize(
    ("fields", "argv"),
    [
        ({}, ("/entry", "x", "serve")),
        ({"command": ("other",)}, ("/entry", "x", "other")),
        ({"entrypoint": ("own",)}, ("own",)),
        ({"entrypoint": ("own",), "command": ("y",)}, ("own", "y")),
        ({"options": parse_options("--entrypoint own")}, ("own",)),
        ({"options": parse_options("--entrypoint ''"), "command": ("y",)}, ("y",)),
    ],
)
def test_what_is_run(fields: dict[str, object], argv: tuple[str, ...]) -> None:
    launch = launch_of(ContainerSpec(image="i", env={"B": "own"}, **fields), IMAGE)  # type: ignore[arg-type]
    assert launch.argv == argv
    assert dict(launch.env) == {"A": "image", "B": "own"}
    assert (launch.user, launch.directory) == ("app", "/srv")


def test_nothing_to_run() -> None:
    with pytest.raises(ContainerError, match="does not say"):
        launch_of(ContainerSpec(image="i", options=parse_options("--entrypoint ''")), IMAGE)


def test_the_check_of_the_image_and_of_the_options() -> None:
    check = check_of(ContainerSpec(image="i"), IMAGE)
    assert check is not None
    assert (check.argv, check.interval_s, check.timeout_s, check.retries, check.patience_s) == (("ping",), 2, 30, 4, 8)
    own = check_of(ContainerSpec(image="i", options=parse_options("--health-cmd 'a b' --health-retries 2")), IMAGE)
    assert own is not None
    assert (own.argv, own.retries) == (("sh", "-c", "a b"), 2)
    assert check_of(ContainerSpec(image="i", options=parse_options("--no-healthcheck")), IMAGE) is None
    assert check_of(ContainerSpec(image="i"), ImageConfig(health=Healthcheck(test=("NONE",)))) is None
    line = check_of(ContainerSpec(image="i"), ImageConfig(health=Healthcheck(test=("CMD-SHELL", "x | y"))))
    assert line is not None
    assert line.argv == ("sh", "-c", "x | y")


def test_a_check_ends_within_an_hour_whatever_the_workflow_says() -> None:
    own = check_of(ContainerSpec(image="i", options=parse_options("--health-cmd a --health-timeout 999999h")), IMAGE)
    assert own is not None
    assert own.timeout_s == 3600
