"""The monitor's protocol, against a made-up QEMU over a socket pair."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import pytest

from firebrick.machine.errors import MachineGoneError
from firebrick.machine.qmp import Qmp, QmpError, QmpSilentError


@asynccontextmanager
async def conversation(answer, events=None):
    """`answer` maps a command to its reply; None ends the connection."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=theirs)

    async def qemu():
        writer.write(b'{"QMP": {"version": {}}}\r\n')
        while line := await reader.readline():
            message = json.loads(line)
            if message["execute"] == "qmp_capabilities":
                writer.write(b'{"return": {}}\r\n')
                continue
            reply = answer(message)
            if reply is None:
                break
            writer.write(
                b'7\r\n[]\r\nnull\r\n"error"\r\n{"event": "STOP", "timestamp": {}}\r\n'
                + json.dumps(reply).encode()
                + b"\r\n"
            )
        writer.close()

    task = asyncio.create_task(qemu())
    qmp = Qmp(ours, (events if events is not None else []).append)
    try:
        yield qmp
    finally:
        await qmp.close()
        await task
        await writer.wait_closed()


async def test_answers_come_in_order_events_in_between():
    events = []
    async with conversation(lambda m: {"return": m["arguments"]}, events) as qmp:
        answers = await asyncio.gather(*(qmp.execute("echo", number=i, some_name=i) for i in range(20)))
    assert answers == [{"number": i, "some-name": i} for i in range(20)]
    assert len(events) == 20


async def test_a_refusal_is_an_error_with_qemus_reason():
    async with conversation(lambda m: {"error": {"class": "GenericError", "desc": "no such file"}}) as qmp:
        with pytest.raises(QmpError, match="refused blockdev-add: no such file") as caught:
            await qmp.execute("blockdev-add")
    assert caught.value.kind == "GenericError"


async def test_the_end_of_qemu_ends_what_waits_and_what_comes():
    async with conversation(lambda m: None) as qmp:
        with pytest.raises(MachineGoneError):
            await qmp.execute("stop")
        with pytest.raises(MachineGoneError):
            await qmp.execute("cont")


async def test_a_cancelled_command_does_not_take_the_next_ones_answer():
    async with conversation(lambda m: {"return": m["execute"]}) as qmp:
        await qmp.execute("first")
        task = asyncio.create_task(qmp.execute("second"))
        await asyncio.sleep(0)
        task.cancel()
        assert await qmp.execute("third") == "third"


@pytest.mark.parametrize("line", [b"nonsense", b"[" * 100_000, b"\xff", b"x" * (5 << 20)])
async def test_a_qemu_that_talks_nonsense_has_ended(line):
    ours, theirs = socket.socketpair()
    _, writer = await asyncio.open_unix_connection(sock=theirs)
    qmp = Qmp(ours, lambda _: None)
    writer.write(line + b"\n")
    with pytest.raises(MachineGoneError):
        await qmp.execute("stop")
    await qmp.close()
    writer.close()


async def test_an_error_that_is_none_is_one():
    async with conversation(lambda m: {"error": 7}) as qmp:
        with pytest.raises(QmpError, match="refused stop"):
            await qmp.execute("stop")


async def test_closing_what_was_never_opened():
    ours, theirs = socket.socketpair()
    await Qmp(ours, lambda _: None).close()
    theirs.close()


async def test_a_qemu_that_is_silent_is_an_error_that_names_the_command():
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    qmp = Qmp(ours, lambda _: None, deadline=0.01)
    for command in ("qmp_capabilities", "stop"):
        with pytest.raises(QmpSilentError, match=f"QEMU did not answer {command} within 0.01 s") as silent:
            await qmp.execute("stop")
        assert "Kill the machine" in silent.value.hint
    writer.write(b'{"return": "capabilities"}\n{"return": "stop"}\n{"return": "cont"}\n')  # late: each to its own
    assert await qmp.execute("cont") == "cont"
    await qmp.close()
    writer.close()
    await writer.wait_closed()
    assert reader is not None


async def test_what_writes_a_file_is_given_longer():
    ours, theirs = socket.socketpair()
    _, writer = await asyncio.open_unix_connection(sock=theirs)
    qmp = Qmp(ours, lambda _: None, deadline=0.01)
    writer.write(b'{"return": {}}\n')
    with pytest.raises(QmpSilentError, match=r"did not answer xen-save-devices-state within 0.1 s"):
        await qmp.execute("xen-save-devices-state", filename="x")
    await qmp.close()
    writer.close()
    await writer.wait_closed()
