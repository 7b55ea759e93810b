"""Commands: how they are started, fed, read, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterable
from pathlib import Path

import pytest

from firebrick.guest.client import Agent, Move, PtySize, Put
from firebrick.guest.errors import (
    AgentError,
    BadRequestError,
    FileMissingError,
    OutputTooLargeError,
    PreparationError,
    StreamClosedError,
)
from tests.agent.conftest import Guest


def lives(pid: int) -> bool:
    """A zombie does not: who has to reap it may be this process, which adopts orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while lives(pid):
            await asyncio.sleep(0.005)


# --- on every guest ---


async def test_output_error_and_status(agent: Agent) -> None:
    done = await agent.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.stdout, done.stderr, done.status.code, done.status.signal) == (b"out\n", b"err\n", 3, None)
    assert done.status.wall_s < 10


async def test_merged_output(agent: Agent) -> None:
    done = await agent.run(["sh", "-c", "echo 1; echo 2 >&2; echo 3"], merge=True)
    assert (done.stdout, done.stderr) == (b"1\n2\n3\n", b"")


async def test_arguments_and_environment_are_bytes(agent: Agent) -> None:
    done = await agent.run(["echo", b"caf\xc3\xa9", b"\xff"], env={"A": os.fsdecode(b"\xfe")})
    assert done.stdout == b"caf\xc3\xa9 \xff\n"
    done = await agent.run(["sh", "-c", "echo $A"], env={"A": os.fsdecode(b"\xfe")})
    assert done.stdout == b"\xfe\n"


async def test_what_is_done_before_is_there(guest: Guest, agent: Agent) -> None:
    place = os.fsencode(guest.place)
    await agent.files.mkdir(f"{guest.place}/old")
    before = (
        Move(source=place + b"/old", target=place + b"/new", overwrite=False),
        Put(path=place + b"/new/sub/file", data=b"put", mode=0o640),
        Put(path=place + b"/new/sub/file", data=b"again"),
        Put(path=place + b"/new/empty", data=b""),
    )
    done = await agent.run(["cat", f"{guest.place}/new/sub/file"], before=before, listing=f"{guest.place}/new")
    assert (done.stdout, done.status.code) == (b"again", 0)
    assert done.status.listing is not None
    assert [(entry.name, entry.kind) for entry in done.status.listing] == [(b"empty", "file"), (b"sub", "directory")]
    assert (done.status.listing[0].size, done.status.listing[0].nlink) == (0, 1)
    assert (await agent.files.stat(f"{guest.place}/new/sub/file")).mode == 0o640
    assert not await agent.files.exists(f"{guest.place}/old")


async def test_what_cannot_be_done_before_keeps_a_command_from_starting(guest: Guest, agent: Agent) -> None:
    place = os.fsencode(guest.place)
    missing = Move(source=place + b"/none", target=place + b"/new", overwrite=False)
    for before in ([missing], [Put(path=place, data=b"")]):
        command = ["sh", "-c", f"echo ran > {guest.place}/ran"]
        with pytest.raises(PreparationError, match="cannot"):
            await agent.run(command, before=[*before, Put(path=place + b"/later", data=b"")])
    assert await agent.files.list(str(guest.place)) == []


async def test_a_program_that_is_missing_is_missing_after_what_was_done_before(guest: Guest, agent: Agent) -> None:
    with pytest.raises(FileMissingError):
        await agent.run(["no-such-program"], before=[Put(path=os.fsencode(guest.place / "put"), data=b"")])
    assert await agent.files.exists(f"{guest.place}/put")


async def test_a_listing_is_of_what_the_command_has_left(guest: Guest, agent: Agent) -> None:
    done = await agent.run(["sh", "-c", "echo 12345 > file; exit 3"], cwd=str(guest.place), listing=str(guest.place))
    assert done.status.code == 3
    assert done.status.listing is not None
    assert [(entry.name, entry.size) for entry in done.status.listing] == [(b"file", 6)]


async def test_much_and_nothing_are_not_listed(guest: Guest, agent: Agent) -> None:
    assert (await agent.run(["true"])).status.listing is None
    assert (await agent.run(["true"], listing=f"{guest.place}/none")).status.listing is None
    for number in range(17):
        await agent.files.write(f"{guest.place}/{number}", b"")
    assert (await agent.run(["true"], listing=str(guest.place))).status.listing is None


async def test_no_preparation_is_refused(real: Guest, real_agent: Agent) -> None:
    put = Put(path=os.fsencode(real.place / "put"), data=b"")
    with pytest.raises(PreparationError, match="absolute"):
        await real_agent.run(["true"], before=[Put(path=b"relative", data=b"")])
    with pytest.raises(BadRequestError, match="64"):
        await real_agent.run(["true"], before=[put] * 65)
    assert not await real_agent.files.exists(f"{real.place}/put")


async def test_a_clear_environment_is_clear(agent: Agent) -> None:
    assert (await agent.run(["/usr/bin/env"], env={"A": "1"}, clear_env=True)).stdout == b"A=1\n"


async def test_the_default_environment(agent: Agent) -> None:
    lines = (await agent.run(["env"])).stdout.splitlines()
    assert {line.partition(b"=")[0] for line in lines} >= {b"PATH", b"HOME", b"USER", b"LOGNAME"}
    assert not [line for line in lines if line.startswith(b"TERM=")]
    assert b"TERM=" in (await agent.run(["env"], pty=PtySize(24, 80))).stdout


async def test_a_working_directory(guest: Guest, agent: Agent) -> None:
    assert (await agent.run(["pwd"], cwd=str(guest.place))).stdout == f"{guest.place}\n".encode()
    with pytest.raises(FileMissingError):
        await agent.run(["pwd"], cwd="/no/such/directory")


async def test_what_is_not_there(guest: Guest, agent: Agent) -> None:
    with pytest.raises(FileMissingError):
        await agent.run(["no-such-program"])
    with pytest.raises(FileMissingError):
        await agent.run(["/no/such/program"])
    await agent.files.write(f"{guest.place}/script", b"echo no shebang\n", mode=0o644)
    with pytest.raises(AgentError) as caught:
        await agent.run([f"{guest.place}/script"])
    assert caught.value.code in ("not_executable", "permission")


async def test_input_of_two_megabytes_comes_back(agent: Agent) -> None:
    data = os.urandom(2 << 20)
    assert (await agent.run(["cat"], input=data)).stdout == data


async def test_without_input_there_is_an_end(agent: Agent) -> None:
    assert (await agent.run(["cat"])).stdout == b""


async def test_input_that_nobody_reads(agent: Agent) -> None:
    assert (await agent.run(["true"], input=bytes(1 << 20))).status.ok


async def test_writing_after_the_end(agent: Agent) -> None:
    async with agent.exec(["true"], stdin=True) as process:
        assert (await process.wait()).ok
        with pytest.raises(StreamClosedError):
            await process.write(b"late")


async def test_signals(agent: Agent) -> None:
    async with agent.exec(["sleep", "1000"]) as process:
        await process.signal(signal.SIGTERM)
        status = await process.wait()
    assert (status.code, status.signal, status.timed_out) == (None, signal.SIGTERM, False)


async def test_a_timeout(agent: Agent) -> None:
    began = time.monotonic()
    status = (await agent.run(["sleep", "1000"], timeout=0.3)).status
    assert (status.timed_out, status.signal) == (True, signal.SIGTERM)
    assert 0.3 <= time.monotonic() - began < 20


async def test_many_at_once(agent: Agent) -> None:
    began = time.monotonic()
    done = await asyncio.gather(*(agent.run(["sh", "-c", f"sleep 0.3; echo {i}"]) for i in range(20)))
    assert [d.stdout for d in done] == [b"%d\n" % i for i in range(20)]
    assert time.monotonic() - began < 5


async def test_a_flood_nobody_reads_holds_up_nothing(agent: Agent) -> None:
    async with agent.exec(["yes"]) as flood:
        await flood.stdout.read()
        async with asyncio.timeout(20):
            for _ in range(10):
                assert (await agent.run(["echo", "x"])).stdout == b"x\n"
            await agent.ping()


async def test_output_over_the_limit(agent: Agent) -> None:
    with pytest.raises(OutputTooLargeError):
        await agent.run(["yes"], limit=100_000)
    assert (await agent.run(["echo", "x"])).stdout == b"x\n"


async def test_giving_up_is_confirmed_at_once(agent: Agent) -> None:
    began = time.monotonic()
    for _ in range(5):
        async with agent.exec(["yes"]) as process:
            await process.stdout.read()
    # Less than one unconfirmed end is waited for.
    assert time.monotonic() - began < 5


# --- where there is a Linux ---


async def test_leaving_the_context_kills(real_agent: Agent) -> None:
    async with real_agent.exec(["sh", "-c", "trap '' TERM HUP INT; sleep 1000 & echo $!; wait; sleep 1000"]) as process:
        child = int(await process.stdout.read())
    await gone(process.pid)
    await gone(child)


async def test_a_cancelled_command_is_gone(real: Guest, real_agent: Agent) -> None:
    running = asyncio.create_task(real_agent.run(["sh", "-c", "echo $$ > pid; exec sleep 1000"], cwd=str(real.place)))
    async with asyncio.timeout(10):
        while not (real.place / "pid").exists() or not (real.place / "pid").read_text().strip():
            await asyncio.sleep(0.005)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await gone(int((real.place / "pid").read_text()))


async def test_what_is_left_behind_is_killed(real_agent: Agent) -> None:
    """Of its process group: without control groups, which only a machine of its own has, the agent can do no more."""
    done = await real_agent.run(["sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"])
    assert done.status.ok
    await gone(int(done.stdout))


async def test_a_daemon_with_the_pipe_does_not_hold_back_the_end(real_agent: Agent) -> None:
    async with asyncio.timeout(10):
        done = await real_agent.run(["sh", "-c", "sleep 1000 & echo $!"])
    await gone(int(done.stdout))


async def test_a_detached_command_outlives_its_context(real: Guest) -> None:
    async with real.connect() as agent:
        async with agent.exec(["sleep", "1000"], detach=True) as process:
            pass
        assert lives(process.pid)
        assert await agent.ping() < 10
    async with real.connect() as agent:
        assert lives(process.pid)
        await agent.run(["kill", "-9", str(process.pid)], check=True)
        await gone(process.pid)


async def test_a_lost_connection_kills(real: Guest) -> None:
    async with real.connect() as agent:
        stack = agent.exec(["sleep", "1000"])
        process = await stack.__aenter__()
    await stack.__aexit__(None, None, None)
    async with real.connect():
        await gone(process.pid)


async def test_a_timeout_of_what_ignores_it(real_agent: Agent) -> None:
    began = time.monotonic()
    status = (await real_agent.run(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], timeout=1.5)).status
    assert status.timed_out
    assert status.signal == signal.SIGKILL
    assert 3.4 < time.monotonic() - began < 20


async def test_a_signal_to_one_or_to_all(real_agent: Agent) -> None:
    script = "sleep 1000 & trap 'echo caught; kill $!; exit 5' USR1; echo ready; wait"
    async with real_agent.exec(["sh", "-c", script]) as process:
        assert await process.stdout.read() == b"ready\n"
        await process.signal(signal.SIGUSR1, group=False)
        assert await process.stdout.read_all(100) == b"caught\n"
        assert (await process.wait()).code == 5


async def test_a_terminal(real_agent: Agent) -> None:
    script = "stty size; trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    async with real_agent.exec(["sh", "-c", script], pty=PtySize(33, 99)) as process:
        seen = b""
        while b"ready" not in seen:
            seen += await process.stdout.read()
        assert seen.startswith(b"33 99\r\n")
        await process.resize(PtySize(50, 132))
        assert b"50 132" in await process.stdout.read_all(1000)
        assert (await process.wait()).ok


async def test_a_terminal_takes_input(real_agent: Agent) -> None:
    async with real_agent.exec(["cat"], pty=PtySize(24, 80), stdin=True) as process:
        await process.write(b"hello\n\x04")
        assert await process.stdout.read_all(1000) == b"hello\r\nhello\r\n"
        assert (await process.wait()).ok


async def test_users(real: Guest, real_agent: Agent) -> None:
    if real.kind == "root":
        assert (await real_agent.run(["id", "-u"], user="nobody")).stdout == b"65534\n"
        assert (
            await real_agent.run(["sh", "-c", "id -u; id -g; id -G"], user="1234:1235")
        ).stdout == b"1234\n1235\n1235\n"
        assert (await real_agent.run(["sh", "-c", "echo $USER $LOGNAME"], user="nobody")).stdout == b"nobody nobody\n"
    else:
        with pytest.raises(AgentError):
            await real_agent.run(["id"], user="0:0" if real.uid else "1")
    with pytest.raises(AgentError) as caught:
        await real_agent.run(["id"], user="no-such-user")
    assert caught.value.code == "no_such_user"


async def test_a_large_output_is_whole(real_agent: Agent) -> None:
    size = 0
    async with real_agent.exec(["head", "-c", str(64 << 20), "/dev/zero"]) as process:
        async for chunk in process.stdout:
            size += len(chunk)
        assert (await process.wait()).ok
    assert size == 64 << 20


async def test_only_the_agent_is_patient_while_a_program_floods(real: Guest, real_agent: Agent) -> None:
    """It does not interrupt who writes; what is started meanwhile interrupts as ever, and so does the agent once somebody asks for something."""
    assert real.process is not None
    agent = real.process.pid
    async with real_agent.exec(["cat", "/dev/zero"]) as process:
        async with asyncio.timeout(20):
            while os.sched_getscheduler(agent) != os.SCHED_BATCH:
                assert await process.stdout.read()
        started = await real_agent.run(["cat", "/proc/self/stat"], check=True)
    policy = int(started.stdout.rpartition(b")")[2].split()[38])
    assert policy == os.SCHED_OTHER
    await real_agent.ping()
    assert os.sched_getscheduler(agent) == os.SCHED_OTHER


async def test_what_is_prepared_while_a_program_floods_is_no_more_patient_than_others(
    real: Guest, real_agent: Agent
) -> None:
    """Its files are there in the middle of a turn in which the agent is patient: it is not to inherit that, nor is who looks at what it has left."""
    assert real.process is not None
    put = Put(path=os.fsencode(real.place / "put"), data=b"")
    async with real_agent.exec(["cat", "/dev/zero"]) as process:
        drain = asyncio.create_task(_read_all(process.stdout), name="test-drain")
        for _ in range(20):
            command = ["cat", "/proc/self/stat"]
            started = await real_agent.run(command, check=True, before=[put], listing=os.fspath(real.place))
            assert int(started.stdout.rpartition(b")")[2].split()[38]) == os.SCHED_OTHER
        tasks = (Path("/proc") / str(real.process.pid) / "task").iterdir()
        lanes = [int(task.name) for task in tasks if (task / "comm").read_text() == "lane\n"]
        assert lanes
        assert {os.sched_getscheduler(lane) for lane in lanes} == {os.SCHED_OTHER}
    await drain


async def _read_all(output: AsyncIterable[bytes]) -> None:
    with contextlib.suppress(StreamClosedError):
        async for _ in output:
            pass


async def test_a_line_without_an_end(real_agent: Agent) -> None:
    done = await real_agent.run(["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"])
    assert done.stdout == b"x" * 3_000_000
