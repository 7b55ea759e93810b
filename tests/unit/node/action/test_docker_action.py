"""Actions that are images: their machine, what they are given, and what comes back of it."""

from __future__ import annotations

import asyncio

import pytest

from firebrick.guest.double.task import Task
from firebrick.image.oci_config import ImageConfig
from firebrick.node.event import CancelCause
from tests.unit.node.action.test_action import composite, job, said
from tests.unit.node.conftest import WORKSPACE, Bed
from tests.unit.node.container.test_services import serve, upper, workflow

IMAGE = ImageConfig(entrypoint=("tool",), command=("--help",), environment=("PATH=/opt/tool", "KIND=image"))


def read(task: Task, path: bytes) -> bytes:
    return task.disk.file(path).content.read(0, 1 << 16)


def append(task: Task, path: bytes, text: bytes) -> None:
    file = task.disk.open(path, parents=True, truncate=False)
    file.content.write(file.content.size, text)


async def tool(task: Task) -> int:
    """Says how it was called and what it sees, and leaves something of every kind."""
    await task.out(b"args " + b"|".join(task.argv[1:]) + b"\n")
    for name in (b"PATH", b"KIND", b"INPUT_WHO", b"GITHUB_WORKSPACE", b"HOME", b"STATE_seen"):
        if name in task.env:
            await task.out(name + b"=" + task.env[name] + b"\n")
    append(task, task.env[b"GITHUB_OUTPUT"], b"word=brick\n")
    append(task, task.env[b"GITHUB_ENV"], b"LATER=yes\n")
    append(task, task.env[b"GITHUB_STATE"], b"seen=1\n")
    append(task, b"/github/workspace/made", b"by the action in " + task.cwd)
    await task.out(b"::notice::it was here\n")
    return int(task.env.get(b"INPUT_STATUS", b"0"))


async def cat(task: Task) -> int:
    await task.out(read(task, task.path(task.argv[-1])) + b"\n")
    return 0


@pytest.fixture
def imaged(bed: Bed) -> Bed:
    bed.lender.containers = {"tool:1": IMAGE, "bare": ImageConfig()}
    bed.lender.programs |= {"tool": tool, "other": tool, "before": tool, "after": tool}
    bed.lender.files[f"{WORKSPACE}/source"] = "of the job"
    return bed


async def test_an_image_as_a_step(imaged: Bed) -> None:
    told = await imaged.run(
        job(
            "uses: docker://tool:1\n        id: t\n        with: {args: \"-a 'b c'\", who: me}",
            "run: echo $LATER ${{ steps.t.outputs.word }} ${{ hashFiles('made') != '' }} ${{ hashFiles('source') != '' }}",
        )
    )
    assert told.result.conclusion == "success"
    warning, *lines = said(told)
    assert warning == "##[warning]Unexpected input(s) 'who', valid inputs are ['']", "and not of args"
    assert lines[:5] == [
        "args -a|b c",
        "PATH=/opt/tool",
        "KIND=image",
        "INPUT_WHO=me",
        "GITHUB_WORKSPACE=/github/workspace",
    ]
    assert lines[-1] == "yes brick true true"
    assert [a.message for a in told.annotations() if a.level == "notice"] == ["it was here"]
    assert [image for image, _, _ in imaged.lender.asked] == ["base", "tool:1"]


async def test_the_image_says_what_to_run_and_the_step_may_say_otherwise(imaged: Bed) -> None:
    told = await imaged.run(job("uses: docker://tool:1", "uses: docker://tool:1\n        with: {entrypoint: other}"))
    assert [line for line in said(told) if line.startswith("args")] == ["args --help", "args "]
    told = await imaged.run(job("uses: docker://bare"))
    assert "does not say what to run" in said(told)[0]


async def test_an_action_file_with_an_image(imaged: Bed) -> None:
    text = """
        name: T
        description: x
        inputs: {who: {default: nobody}}
        outputs: {word: {description: x}}
        runs:
          using: docker
          image: docker://tool:1
          pre-entrypoint: before
          post-entrypoint: after
          args: [hello, '${{ inputs.who }}', 'a b']
          env: {KIND: action}
    """
    imaged.actions.add("octo/t@v1", {"action.yml": text.replace("\n        ", "\n")})
    told = await imaged.run(
        job("uses: octo/t@v1\n        id: t\n        with: {who: me}", "run: echo ${{ steps.t.outputs.word }}")
    )
    assert told.steps() == ["success"] * 4
    assert [line for line in said(told) if line.startswith("args")] == ["args hello|me|a b"] * 3
    assert said(told).count("KIND=action") == 3
    assert said(told).count("STATE_seen=1") == 2, "what one phase leaves, the later ones have"
    assert "brick" in said(told)


async def test_the_services_of_the_job_are_found(imaged: Bed) -> None:
    async def ask(task: Task) -> int:
        lines = read(task, b"/etc/hosts").decode().splitlines()
        address = next(line.split()[0] for line in lines if "cache" in line.split())
        end = task.dial(6379, address)
        await end.write(b"from the action")
        await end.end()
        await task.out(await end.read(100) + b"\n")
        return 0

    imaged.lender.capacity = 3
    imaged.lender.containers["redis"] = ImageConfig(entrypoint=("other",), exposed={"6379": b"{}"})  # type: ignore[dict-item]
    imaged.lender.ports = {"redis": {6379: upper}}
    imaged.lender.programs |= {"tool": ask, "other": serve}
    told = await imaged.run(workflow("cache: {image: redis}", "echo").replace("- run: echo", "- uses: docker://tool:1"))
    assert said(told)[-1] == "FROM THE ACTION"


async def test_within_a_composite_action(imaged: Bed) -> None:
    imaged.actions.add("octo/c@v1", composite("uses: docker://tool:1"))
    told = await imaged.run(job("uses: octo/c@v1"))
    assert told.steps() == ["success"]
    assert imaged.lender.most == 2


async def test_a_failure_is_one_of_the_step_and_what_it_made_stays(imaged: Bed) -> None:
    told = await imaged.run(
        job(
            "uses: docker://tool:1\n        with: {status: 3}",
            "if: always()\n        run: echo ${{ hashFiles('made') != '' }}",
        )
    )
    assert told.steps() == ["failure", "success"]
    assert said(told)[-2:] == ["##[error]Process completed with exit code 3.", "true"]


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("uses: docker://none", "there is no image `none` on this node"),
        ('uses: docker://tool:1\n        with: {args: "\'"}', "cannot read `args` of the step"),
        ("uses: docker://tool:1\n        with: {entrypoint: nothing}", "nothing"),
    ],
)
async def test_what_cannot_be_run_fails_the_step(imaged: Bed, step: str, reason: str) -> None:
    told = await imaged.run(job(step, "if: always()\n        run: echo on"))
    assert told.steps() == ["failure", "success"]
    assert any(reason in line for line in said(told))


async def test_a_cancelled_action_leaves_no_machine(imaged: Bed) -> None:
    async def wait(task: Task) -> int:
        started.set()
        await asyncio.sleep(60)
        return 0

    started = asyncio.Event()
    imaged.lender.programs["tool"] = wait
    async with imaged.live(job("uses: docker://tool:1")) as run:
        await started.wait()
        run.cancel(CancelCause.USER)
        result = await run.result()
    assert result.conclusion == "cancelled"


async def test_a_machine_that_is_lost_fails_the_step(imaged: Bed) -> None:
    async def crash(task: Task) -> int:
        closing.append(asyncio.ensure_future(imaged.lender.guests[-1].close()))
        await asyncio.sleep(60)
        return 0

    closing: list[asyncio.Future[None]] = []
    imaged.lender.programs["tool"] = crash
    told = await imaged.run(job("uses: docker://tool:1", "if: always()\n        run: echo on"))
    assert told.steps() == ["failure", "success"]
    assert "the machine of the image tool:1 was lost" in said(told)[0]
