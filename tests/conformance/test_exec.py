"""Running commands."""

import asyncio
import signal

import pytest

from firebrick.guest.client import Move, PtySize, Put
from firebrick.guest.errors import (
    CommandError,
    FileMissingError,
    NoSuchUserError,
    OutputTooLargeError,
    PreparationError,
)
from firebrick.machine import Machine
from tests.conformance.ways import PACE


@pytest.mark.every_way
async def test_output_and_status(m: Machine):
    done = await m.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.stdout, done.stderr, done.status.code) == (b"out\n", b"err\n", 3)
    assert not done.status.ok


async def test_arguments_are_passed_as_they_are(m: Machine):
    words = ["a b", "", "$HOME", "'\"", "\\", "ä☃", b"\xff\xfe"]
    done = await m.run(["echo", *words], check=True)
    assert done.stdout == b" ".join(w if isinstance(w, bytes) else w.encode() for w in words) + b"\n"


async def test_environment(m: Machine):
    done = await m.run(["env"], env={"GIVEN": "x y", "EMPTY": ""}, check=True)
    lines = done.stdout.splitlines()
    assert {b"GIVEN=x y", b"EMPTY="} <= set(lines)
    assert any(line.startswith(b"PATH=") for line in lines)


async def test_a_cleared_environment(m: Machine):
    done = await m.run(["/bin/env" if m.pid is None else "/usr/bin/env"], env={"ONLY": "1"}, clear_env=True, check=True)
    assert done.stdout == b"ONLY=1\n"


async def test_working_directory(m: Machine):
    assert (await m.run(["pwd"], cwd="/tmp", check=True)).stdout == b"/tmp\n"


@pytest.mark.every_way
async def test_what_goes_before_and_what_is_left(m: Machine):
    before = [
        Put(path=b"/tmp/kept/script", data=b"echo said; echo more > /tmp/kept/left", mode=0o755),
        Move(source=b"/tmp/kept", target=b"/tmp/moved", overwrite=False),
        Put(path=b"/tmp/kept/other", data=b""),
    ]
    done = await m.run(["sh", "-c", "echo 12345 > /tmp/kept/left"], before=before, listing="/tmp/kept", check=True)
    assert done.status.listing is not None
    assert [(entry.name, entry.size) for entry in done.status.listing] == [(b"left", 6), (b"other", 0)]
    assert (await m.run(["cat", "/tmp/moved/script"], check=True)).stdout == before[0].data
    with pytest.raises(PreparationError, match="/tmp/moved"):
        await m.run(["sh", "-c", "echo > /tmp/ran"], before=before[:2])
    assert not await m.files.exists("/tmp/ran")


async def test_standard_input(m: Machine):
    data = bytes(range(256)) * 4000
    assert (await m.run(["cat"], input=data, check=True)).stdout == data


async def test_without_input_there_is_an_end_of_file(m: Machine):
    assert (await m.run(["cat"], check=True)).stdout == b""


@pytest.mark.every_way
async def test_input_and_output_are_streamed(m: Machine):
    async with m.exec(["cat"], stdin=True) as process:
        for word in (b"one\n", b"two\n"):
            await process.write(word)
            assert await process.stdout.read() == word
        await process.close_stdin()
        assert (await process.wait()).code == 0


async def test_error_output_merged(m: Machine):
    done = await m.run(["sh", "-c", "echo 1; echo 2 >&2; echo 3"], merge=True, check=True)
    assert done.stdout == b"1\n2\n3\n"
    assert done.stderr == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
async def test_signals(m: Machine, number):
    async with m.exec(["sleep", "60"]) as process:
        await process.signal(number)
        status = await process.wait()
    assert (status.code, status.signal) == (None, number)


@pytest.mark.every_way
async def test_a_timeout_is_said_and_kept(m: Machine):
    done = await m.run(["sleep", "60"], timeout=0.3)
    assert done.status.timed_out
    assert done.status.signal == signal.SIGTERM
    assert 0.3 <= done.status.wall_s < 20 * PACE


async def test_what_ignores_sigterm_is_killed_after_the_grace(m: Machine):
    # Long enough for a shell on a busy host to have come to ignoring it.
    done = await m.run(["sh", "-c", "trap '' TERM; echo ignored; sleep 60"], timeout=3)
    assert done.stdout == b"ignored\n"
    assert done.status.timed_out
    assert done.status.signal == signal.SIGKILL
    assert 4.5 < done.status.wall_s < 15 * PACE


async def test_leaving_the_context_ends_the_command(m: Machine):
    async with m.exec(["sleep", "60"]) as process:
        pass
    done = await m.run(["sh", "-c", f"kill -0 {process.pid}"])
    assert not done.status.ok


async def test_a_program_that_is_not_there(m: Machine):
    with pytest.raises(FileMissingError, match="no-such-program"):
        await m.run(["no-such-program"])


@pytest.mark.real
async def test_a_user_who_is_not_there(m: Machine):
    with pytest.raises(NoSuchUserError, match="nobody-knows"):
        await m.run(["true"], user="nobody-knows")


async def test_a_failure_that_matters_carries_the_last_words(m: Machine):
    with pytest.raises(CommandError, match="status 4: broken") as caught:
        await m.run(["sh", "-c", "echo broken >&2; exit 4"], check=True)
    assert caught.value.code == 4


async def test_too_much_output_is_refused_and_the_command_ended(m: Machine):
    with pytest.raises(OutputTooLargeError):
        await m.run(["yes"], limit=1 << 20)
    assert (await m.run(["true"])).status.ok


async def test_many_at_once(m: Machine):
    async def one(i: int) -> bytes:
        return (await m.run(["echo", str(i)], check=True)).stdout

    assert await asyncio.gather(*(one(i) for i in range(20))) == [f"{i}\n".encode() for i in range(20)]


async def test_concurrent_waiting_does_not_queue(m: Machine):
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(m.run(["sleep", str(PACE)]) for _ in range(10)))
    assert asyncio.get_running_loop().time() - began < 4 * PACE


async def test_a_reader_who_does_not_read_holds_up_nobody_else(m: Machine):
    async with m.exec(["yes"]) as stuck:
        assert await stuck.stdout.read()
        for _ in range(3):
            assert (await m.run(["echo", "free"], check=True)).stdout == b"free\n"


async def test_a_detached_command_outlives_its_context(m: Machine):
    async with m.exec(["sleep", "30"], detach=True) as process:
        pass
    if m.pid is not None:  # the double keeps no process table for kill -0 across streams
        await m.run(["kill", "-0", str(process.pid)], check=True)
    assert (await m.run(["true"])).status.ok


async def test_a_cancelled_run_leaves_the_machine_usable(m: Machine):
    task = asyncio.create_task(m.run(["sleep", "60"]))
    await m.run(["true"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await m.run(["echo", "on"], check=True)).stdout == b"on\n"


@pytest.mark.every_way
@pytest.mark.real
async def test_a_terminal_and_its_size(m: Machine):
    async with m.exec(
        ["sh", "-c", "stty size; read x; stty size; echo $x"], stdin=True, pty=PtySize(rows=30, cols=100)
    ) as process:
        shown = b""
        while b"30 100" not in shown:
            shown += await process.stdout.read()
        await process.resize(PtySize(rows=40, cols=120))
        await process.write(b"typed\n")
        async for chunk in process.stdout:
            shown += chunk
        assert (await process.wait()).code == 0
    assert b"40 120" in shown
    assert shown.rstrip().endswith(b"typed")


@pytest.mark.real
async def test_other_users(m: Machine):
    assert (await m.run(["id", "-un"], user="nobody", check=True)).stdout == b"nobody\n"
    assert (await m.run(["sh", "-c", "echo $(id -u):$(id -g)"], user="1234:5678", check=True)).stdout == b"1234:5678\n"


@pytest.mark.real
async def test_a_hangup_of_the_terminal_reaches_the_command(m: Machine):
    async with m.exec(["sleep", "60"], stdin=True, pty=PtySize(rows=24, cols=80)) as process:
        await process.write(b"\x03")
        assert (await process.wait()).signal == signal.SIGINT


@pytest.mark.real
async def test_what_it_used_is_counted(m: Machine):
    done = await m.run(["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"], check=True)
    assert done.status.cpu_s > 0
    assert done.status.memory_peak_bytes > 100_000
    usage = await m.usage()
    assert usage.guest.cpu_s >= done.status.cpu_s * 0.9
    assert usage.host.cpu_s > 0
    assert usage.host.resident_bytes >= usage.host.private_bytes > 0
