"""The client against the double, which is strict, and against a peer that does what no agent should."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from firebrick.guest import message, protocol
from firebrick.guest.client import Agent, Identity, PtySize
from firebrick.guest.double import GuestDouble, Task, pipe
from firebrick.guest.errors import (
    AgentError,
    BadRequestError,
    BusyError,
    ChannelError,
    CommandError,
    FileMissingError,
    IdentityMissingError,
    MessageTooLargeError,
    OutputTooLargeError,
    ProtocolError,
    StreamClosedError,
    TreeError,
    VersionError,
)
from firebrick.guest.execution import _plain_errors
from firebrick.guest.protocol import Frame, Kind
from tests.unit.guest.guests import guest_double
from tests.unit.guest.peer import EXIT, Peer, connected


@pytest.fixture
async def guest() -> AsyncIterator[GuestDouble]:
    async with guest_double(grace_s=0.05) as double:
        yield double


@pytest.fixture
async def agent(guest: GuestDouble) -> AsyncIterator[Agent]:
    async with Agent.connect(guest.connect(), Identity.fresh("host-1"), timeout=10) as agent:
        yield agent
        async with asyncio.timeout(10):  # what was given up is confirmed by the guest
            while agent._connection._streams and not agent._connection._over:
                await asyncio.sleep(0)


async def nothing_runs(guest: GuestDouble, agent: Agent) -> None:
    async with asyncio.timeout(10):
        while (await agent.usage()).processes:
            await asyncio.sleep(0)


# --- connecting ---


async def test_connecting_sets_the_identity(guest: GuestDouble) -> None:
    identity = Identity.fresh("builder")
    async with Agent.connect(guest.connect(), identity, timeout=10) as agent:
        assert agent.hello.boot_id == guest.boot_id
        assert guest.identity is not None
        assert (guest.identity.hostname, guest.identity.machine_id) == ("builder", identity.machine_id)
        assert len(identity.entropy) >= protocol.MIN_ENTROPY
        assert (await agent.run(["hostname"])).stdout == b"builder\n"


def test_two_identities_have_nothing_in_common() -> None:
    one, other = Identity.fresh("a"), Identity.fresh("a")
    assert one.entropy != other.entropy
    assert one.machine_id != other.machine_id
    assert str(one.entropy) not in repr(one)


async def test_a_silent_agent_is_a_timeout(guest: GuestDouble) -> None:
    guest.silent = True
    with pytest.raises(TimeoutError):
        async with Agent.connect(guest.connect(), Identity.fresh("x"), timeout=0.05):
            pytest.fail("connected to an agent that says nothing")


async def test_a_hello_that_was_lost_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firebrick.guest.client._HELLO_PATIENCE", 0.01)
    host, end = pipe()
    peer = Peer(end)

    async def answer_the_second() -> None:
        assert isinstance(await peer.heard(), message.HelloRequest)
        await peer.greet()

    answering = asyncio.create_task(answer_the_second())
    async with Agent.connect(host, Identity.fresh("x"), timeout=10):
        pass
    answering.cancel()
    await asyncio.gather(answering, return_exceptions=True)


@pytest.mark.parametrize(("version", "minimum"), [(9, 2), (0, 0)])
async def test_an_agent_of_another_version_is_refused(version: int, minimum: int) -> None:
    host, end = pipe()
    peer = Peer(end)
    hello = message.Hello(version=version, minimum=minimum, agent="x", kernel="x", boot_id="b", quiesced=False)
    await peer.say(hello)
    with pytest.raises(VersionError, match="versions"):
        async with Agent.connect(host, Identity.fresh("x"), timeout=10):
            pytest.fail("connected")


async def test_a_new_connection_ends_what_the_old_one_ran(guest: GuestDouble) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(Agent.connect(guest.connect(), Identity.fresh("x"), timeout=10))
        process = await stack.enter_async_context(first.exec(["sleep", "1000"]))
        async with Agent.connect(guest.connect(), Identity.fresh("x"), timeout=10) as second:
            await nothing_runs(guest, second)
        with pytest.raises(ChannelError):
            await process.wait()


# --- commands ---


async def test_a_command_runs(agent: Agent) -> None:
    done = await agent.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.stdout, done.stderr, done.status.code) == (b"out\n", b"err\n", 3)
    assert str(done.status) == "exited with status 3"
    assert not done.status.ok


async def test_merged_output_keeps_its_order(agent: Agent) -> None:
    done = await agent.run(["sh", "-c", "echo 1; echo 2 >&2; echo 3"], merge=True)
    assert (done.stdout, done.stderr) == (b"1\n2\n3\n", b"")


async def test_environment_directory_and_user(agent: Agent) -> None:
    assert (await agent.run(["sh", "-c", "echo $A $HOME"], env={"A": "b c"})).stdout == b"b c /root\n"
    assert (await agent.run(["env"], env={"A": "1"}, clear_env=True)).stdout == b"A=1\n"
    assert (await agent.run(["pwd"], cwd="/tmp")).stdout == b"/tmp\n"
    assert (await agent.run(["whoami"], user="nobody")).stdout == b"nobody\n"


async def test_what_cannot_be_started_says_why(agent: Agent) -> None:
    with pytest.raises(FileMissingError, match="no such program") as caught:
        await agent.run(["no-such-program"])
    assert (caught.value.code, caught.value.errno) == ("not_found", 2)
    with pytest.raises(BadRequestError):
        await agent.run([])


async def test_check_raises_with_the_end_of_the_error_output(agent: Agent) -> None:
    with pytest.raises(CommandError, match="exited with status 4: too bad") as caught:
        await agent.run(["sh", "-c", "echo too bad >&2; exit 4"], check=True)
    assert (caught.value.code, caught.value.stderr) == (4, b"too bad\n")


async def test_input_of_any_size_comes_back(agent: Agent) -> None:
    data = bytes(range(256)) * 8192  # eight times the credit
    assert (await agent.run(["cat"], input=data, limit=len(data))).stdout == data


async def test_input_nobody_reads_is_no_error(agent: Agent) -> None:
    done = await agent.run(["true"], input=bytes(1 << 20))
    assert done.status.ok


async def test_output_over_the_limit_ends_the_command(guest: GuestDouble, agent: Agent) -> None:
    with pytest.raises(OutputTooLargeError, match="more than 1000 bytes"):
        await agent.run(["yes"], limit=1000)
    await nothing_runs(guest, agent)


async def test_a_timeout_is_a_fact_of_the_status(agent: Agent) -> None:
    status = (await agent.run(["sleep", "1000"], timeout=0.05)).status
    assert (status.timed_out, status.signal, status.ok) == (True, signal.SIGTERM, False)
    assert "ended by SIGTERM after running out of time" in str(status)


async def test_a_timeout_ends_what_ignores_it(agent: Agent) -> None:
    status = (await agent.run(["sh", "-c", "trap '' TERM; sleep 1000"], timeout=0.05)).status
    assert (status.timed_out, status.signal) == (True, signal.SIGKILL)


async def test_signals_reach_the_command(agent: Agent) -> None:
    async with agent.exec(["sleep", "1000"]) as process:
        await process.signal(signal.SIGINT)
        assert (await process.wait()).signal == signal.SIGINT
        await process.signal(signal.SIGINT)  # too late, and no error


async def test_a_terminal_has_a_size_that_changes(guest: GuestDouble, agent: Agent) -> None:
    async def sizes(task: Task) -> int:
        changed = asyncio.Event()
        task.trap(signal.SIGWINCH, changed.set)
        await task.out(f"{task.size}\n".encode())
        await changed.wait()
        await task.err(f"{task.size}\n".encode())
        return 0

    guest.programs["sizes"] = sizes
    async with agent.exec(["sizes"], pty=PtySize(24, 80)) as process:
        assert await process.stdout.read() == b"PtySize(rows=24, cols=80)\n"
        await process.resize(PtySize(50, 132))
        assert await process.stdout.read_all(100) == b"PtySize(rows=50, cols=132)\n"
        assert (await process.wait()).ok


async def test_writing_to_what_has_ended_says_so(agent: Agent) -> None:
    async with agent.exec(["true"], stdin=True) as process:
        await process.wait()
        with pytest.raises(StreamClosedError):
            await process.write(b"x")
        await process.close_stdin()


async def test_output_that_is_held_can_be_read_after_the_end(agent: Agent) -> None:
    async with agent.exec(["echo", "late"]) as process:
        await process.wait()
        assert await process.stdout.read_all(100) == b"late\n"
        assert await process.stdout.read() == b""


async def test_discarded_output_lets_a_command_end(guest: GuestDouble, agent: Agent) -> None:
    async def flood(task: Task) -> int:
        await task.out(bytes(4 << 20))
        return 0

    guest.programs["flood"] = flood
    async with agent.exec(["flood"]) as process:
        process.stdout.discard()
        assert (await process.wait()).ok


async def test_leaving_the_context_ends_the_command(guest: GuestDouble, agent: Agent) -> None:
    async with agent.exec(["sleep", "1000"]):
        assert (await agent.usage()).processes == 1
    assert (await agent.usage()).processes == 0


async def test_leaving_the_context_leaves_a_detached_command(guest: GuestDouble, agent: Agent) -> None:
    done = asyncio.Event()

    async def outlive(task: Task) -> int:
        await task.read()
        await done.wait()
        await task.out(bytes(1 << 20))  # nobody listens, and nobody is waited for
        return 0

    guest.programs["outlive"] = outlive
    async with agent.exec(["outlive"], detach=True):
        pass
    assert (await agent.usage()).processes == 1
    done.set()
    await nothing_runs(guest, agent)


async def test_a_cancelled_command_is_gone(guest: GuestDouble, agent: Agent) -> None:
    running = asyncio.create_task(agent.run(["sleep", "1000"]))
    async with asyncio.timeout(10):
        while not (await agent.usage()).processes:
            await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await agent.usage()).processes == 0


async def test_an_error_inside_the_context_ends_the_command(agent: Agent) -> None:
    with pytest.raises(ZeroDivisionError):
        async with agent.exec(["yes"]) as process:
            await process.stdout.read()
            raise ZeroDivisionError
    assert (await agent.usage()).processes == 0


# --- many at once ---


async def test_many_commands_run_at_once(guest: GuestDouble, agent: Agent) -> None:
    together = asyncio.Barrier(50)

    async def meet(task: Task) -> int:
        await together.wait()
        await task.out(task.argv[1])
        return 0

    guest.programs["meet"] = meet
    async with asyncio.timeout(20):
        done = await asyncio.gather(*(agent.run(["meet", str(i)]) for i in range(50)))
    assert [d.stdout for d in done] == [str(i).encode() for i in range(50)]


async def test_a_stream_nobody_reads_holds_up_no_other(agent: Agent) -> None:
    async with agent.exec(["yes"]) as stuck:
        async with asyncio.timeout(20):
            for _ in range(5):
                assert (await agent.run(["echo", "x"])).stdout == b"x\n"
            assert await agent.ping() < 10
            await agent.files.write("/tmp/big", bytes(2 << 20))
            assert len(await agent.files.read("/tmp/big")) == 2 << 20
        assert sum(len(c) for c in stuck.stdout._chunks) <= protocol.INITIAL_CREDIT


async def test_an_upload_does_not_hold_up_a_ping(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(8 << 20))
    upload = asyncio.create_task(agent.upload(tmp_path, "/big"))
    pings = 0
    while not upload.done():
        await agent.ping()
        pings += 1
    await upload
    assert pings > 20


# --- files ---


async def test_files(agent: Agent) -> None:
    files = agent.files
    assert await files.write("/a/b/c", b"content", parents=True, mode=0o600, uid=7, gid=8) == 7
    assert await files.read("/a/b/c") == b"content"
    assert await files.read("/a/b/c", offset=3, limit=2) == b"te"
    assert await files.read("/a/b/c", offset=100) == b""
    await files.write("/a/b/c", b" more", append=True)
    entry = await files.stat("/a/b/c")
    assert (entry.name, entry.kind, entry.size, entry.mode, entry.uid, entry.gid) == (b"c", "file", 12, 0o600, 7, 8)
    await files.symlink("/a/l", "b/c")
    assert (await files.stat("/a/l", follow=False)).target == b"b/c"
    assert (await files.stat("/a/l")).kind == "file"
    assert [e.name for e in await files.list("/a")] == [b"b", b"l"]
    await files.chmod("/a/b/c", 0o755)
    assert (await files.stat("/a/b/c")).mode == 0o755
    await files.mkdir("/a/d/e", parents=True)
    await files.move("/a/b/c", "/a/d/c")
    assert not await files.exists("/a/b/c")
    assert await files.exists("/a/l"), "a link that leads nowhere is there all the same"
    with pytest.raises(AgentError) as caught:
        await files.remove("/a")
    assert caught.value.code == "not_empty"
    await files.remove("/a", recursive=True)
    await files.remove("/a", missing_ok=True)
    with pytest.raises(FileMissingError):
        await files.remove("/a")


async def test_a_file_is_written_from_pieces_and_read_in_pieces(agent: Agent) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for i in range(40):
            yield bytes([i]) * 50_000

    assert await agent.files.write("/tmp/f", pieces()) == 2_000_000
    read = [piece async for piece in agent.files.stream("/tmp/f")]
    assert b"".join(read) == b"".join([p async for p in pieces()])


async def test_reading_more_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch, agent: Agent) -> None:
    monkeypatch.setattr("firebrick.guest.files.READ_LIMIT", 1000)
    await agent.files.write("/f", bytes(1001))
    with pytest.raises(OutputTooLargeError, match="'/f'"):
        await agent.files.read("/f")
    assert len(await agent.files.read("/f", limit=1000)) == 1000


async def test_a_write_that_is_refused_stops_early(agent: Agent) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 16)

    async with asyncio.timeout(10):
        with pytest.raises(FileMissingError):
            await agent.files.write("/no/such/file", endless())


async def test_a_write_whose_source_fails_is_given_up(agent: Agent) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"x"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await agent.files.write("/tmp/f", failing())
    assert await agent.ping() >= 0


# --- trees ---


async def test_trees_go_there_and_back(agent: Agent, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d/f").write_bytes(bytes(range(256)) * 4096)
    (source / "link").symlink_to("d/f")
    with (source / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    sent = await agent.upload(source, "/work", uid=5, gid=6)
    assert (await agent.files.stat("/work/d/f")).uid == 5
    assert await agent.files.read("/work/link", limit=4) == b"\0\1\2\3"
    got = await agent.download("/work", tmp_path / "back")
    assert got.entries == sent.entries == 5
    assert (tmp_path / "back/d/f").read_bytes() == (source / "d/f").read_bytes()
    assert (tmp_path / "back/sparse").stat().st_size == 1 << 30
    assert (await agent.download("/work", tmp_path / "less", exclude=["d", "sparse"])).entries == 2


async def test_an_upload_that_is_refused_says_so(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(4 << 20))
    await agent.files.write("/file", b"")
    with pytest.raises(AgentError) as caught:
        await agent.upload(tmp_path, "/file")
    assert caught.value.code == "exists"


async def test_an_upload_of_nothing_local_says_so(agent: Agent, tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="cannot read the tree"):
        await agent.upload(tmp_path / "missing", "/x")
    assert await agent.ping() >= 0


async def test_a_cancelled_upload_leaves_nothing(guest: GuestDouble, agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(32 << 20))
    files = len(list(Path("/proc/self/fd").iterdir()))
    upload = asyncio.create_task(agent.upload(tmp_path, "/big"))
    async with asyncio.timeout(10):
        while not await agent.files.exists("/big/big"):
            await asyncio.sleep(0)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert len(list(Path("/proc/self/fd").iterdir())) == files


# --- ports ---


async def test_ports_and_sockets(guest: GuestDouble, agent: Agent) -> None:
    async def upper(read: object, write: object) -> None:
        while piece := await read():  # type: ignore[operator]
            await write(piece.upper())  # type: ignore[operator]

    guest.ports[8080] = upper
    guest.ports[b"/run/x.sock"] = upper
    for opening in (agent.connect_port(8080), agent.connect_unix("/run/x.sock")):
        async with opening as tunnel:
            await tunnel.write(b"hello")
            assert await tunnel.read(3) == b"HEL"
            assert await tunnel.read(30) == b"LO"
            await tunnel.end()
            assert await tunnel.read(30) == b""
    with pytest.raises(AgentError, match="refused"):
        async with agent.connect_port(81):
            pytest.fail("connected")


# --- freezing ---


async def test_nothing_moves_while_quiesced(guest: GuestDouble, agent: Agent) -> None:
    async with agent.exec(["yes"]) as process:
        await process.stdout.read()
        await agent.quiesce()
        assert guest.quiesced
        process.stdout.discard()  # the credit for it must wait
        late = asyncio.create_task(agent.run(["echo", "late"]))
        ping = asyncio.create_task(agent.ping())
        write = asyncio.create_task(agent.files.write("/f", b"x"))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not (late.done() or ping.done() or write.done())
        await agent.resume()
        await agent.resume()
        assert (await late).stdout == b"late\n"
        await ping
        await write


async def test_a_cancelled_quiesce_is_undone() -> None:
    async with connected() as (agent, peer):
        quiesce = asyncio.create_task(agent.quiesce())
        assert isinstance(await peer.heard(), message.Quiesce)
        quiesce.cancel()
        with pytest.raises(asyncio.CancelledError):
            await quiesce
        assert isinstance(await peer.heard(), message.Resume)
        await peer.say(message.Quiesced())
        await peer.say(message.Resumed())
        ping = asyncio.create_task(agent.ping())
        token = await peer.heard()
        assert isinstance(token, message.Ping)
        await peer.say(message.Pong(token=token.token))
        await ping


async def test_a_context_left_while_quiesced_is_reset_afterwards(
    guest: GuestDouble, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firebrick.guest.execution.RESET_PATIENCE", 0.01)
    async with agent.exec(["sleep", "1000"]):
        await agent.quiesce()
    await agent.resume()
    await nothing_runs(guest, agent)


async def test_the_clock_is_of_the_moment_the_identity_is_given(guest: GuestDouble) -> None:
    """Not of that when it was made: a machine may take seconds to start in between."""
    hour_ns = 3600 * 10**9
    identity = replace(Identity.fresh("slow"), clock_offset_ns=-hour_ns)
    await asyncio.sleep(0.05)
    before = time.time_ns()
    async with Agent.connect(guest.connect(), identity, timeout=10) as agent:
        assert guest.identity is not None
        assert before - hour_ns <= guest.identity.realtime_ns <= time.time_ns() - hour_ns
        await agent.identify(Identity.fresh("again"))
        assert before <= guest.identity.realtime_ns <= time.time_ns()


async def test_a_restored_guest_needs_a_new_identity_and_runs_again(guest: GuestDouble) -> None:
    async with Agent.connect(guest.connect(), Identity.fresh("template"), timeout=10) as agent:
        await agent.files.write("/made-before", b"x")
        await agent.quiesce()
        saved = guest.save()
        await agent.resume()
    copies = [GuestDouble.restore(saved) for _ in range(2)]
    for i, copy in enumerate(copies):
        async with Agent.connect(copy.connect(), Identity.fresh(f"fork-{i}"), timeout=10) as agent:
            assert agent.hello.quiesced
            assert (await agent.run(["hostname"])).stdout == f"fork-{i}\n".encode()
            await agent.files.write("/mine", b"%d" % i)
            assert await agent.files.exists("/made-before")
    assert not await_exists(guest, b"/mine")
    for copy in copies:
        await copy.close()


def await_exists(guest: GuestDouble, path: bytes) -> bool:
    return path.lstrip(b"/") in guest.disk.root.names


# --- the end ---


async def test_poweroff(guest: GuestDouble, agent: Agent) -> None:
    await agent.poweroff(grace=1)
    await guest.powered_off.wait()
    with pytest.raises(ChannelError, match="closed"):
        await agent.ping()


async def test_a_lost_connection_ends_every_call_with_the_cause(guest: GuestDouble) -> None:
    async with Agent.connect(guest.connect(), Identity.fresh("x"), timeout=10) as agent:
        async with agent.exec(["sleep", "1000"], stdin=True) as process:
            await agent.quiesce()
            await agent.resume()

            async def fill() -> None:
                while True:
                    await process.write(bytes(1 << 16))

            async with agent.exec(["cat"], stdin=True) as cat:
                calls = [
                    asyncio.create_task(c)
                    for c in (
                        process.wait(),
                        process.stdout.read(),
                        fill(),
                        agent.run(["sleep", "9"]),
                        cat.stdout.read(),
                    )
                ]
                for _ in range(20):
                    await asyncio.sleep(0)
                await guest.close()
                async with asyncio.timeout(10):
                    results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(r) for r in results] == [ChannelError] * 5
        assert all(isinstance(r.__cause__, EOFError) for r in results if isinstance(r, ChannelError))
        for call in (
            agent.ping(),
            agent.run(["true"]),
            agent.files.read("/x"),
            agent.quiesce(),
            agent.usage(),
            agent.poweroff(),
        ):
            with pytest.raises(ChannelError):
                await call


async def test_requests_after_the_context_raise(guest: GuestDouble) -> None:
    async with Agent.connect(guest.connect(), Identity.fresh("x"), timeout=10) as agent:
        pass
    with pytest.raises(ChannelError, match="this end was closed"):
        await agent.run(["true"])


async def test_the_last_words_of_an_agent_are_the_cause() -> None:
    async with connected() as (agent, peer):
        ping = asyncio.create_task(agent.ping())
        await peer.say(message.Fatal(message="cannot mount the root disk"))
        with pytest.raises(ChannelError, match="cannot mount the root disk"):
            await ping


# --- hostile guests ---


def data(stream: int, channel: int, size: int) -> bytes:
    return protocol.data(stream, channel, bytes(size))


EXEC_VIOLATIONS = {
    "data_beyond_credit": data(1, 1, 1 << 18) + data(1, 1, 1),
    "data_on_input": data(1, 0, 1),
    "data_after_eof": protocol.eof(1, 1) + data(1, 1, 1),
    "started_twice": protocol.control(1, message.Started(pid=3)),
    "answer_of_another_kind": protocol.control(1, message.Done()),
    "message_of_stream_0": protocol.control(1, message.Pong(token=1)),
    "message_of_a_host": protocol.control(1, message.Signal(number=9, group=True)),
    "too_much_credit": protocol.credit(1, 0, 0xFFFFFFFF),
    "credit_for_output": protocol.credit(1, 1, 5),
    "reset": protocol.reset(1),
    "stream_never_opened": data(2, 1, 1),
    "answer_after_the_last": protocol.control(1, EXIT) + protocol.control(1, EXIT),
    "unasked_pong": protocol.control(0, message.Pong(token=1)),
    "unasked_report": protocol.control(
        0,
        message.UsageReport(
            cpu_us=0, memory_bytes=0, memory_peak_bytes=0, processes=0, scratch_used_bytes=0, scratch_total_bytes=0
        ),
    ),
    "another_boot": protocol.control(
        0, message.Hello(version=1, minimum=1, agent="", kernel="", boot_id="other", quiesced=False)
    ),
    "garbage": b"\xff" * 40,
    "deep": protocol.HEADER.pack(60000, 1, Kind.CONTROL, 0, 0) + b"\x91" * 60000,
}


@pytest.mark.parametrize("name", EXEC_VIOLATIONS)
async def test_what_no_agent_may_do_ends_the_connection_and_nothing_else(name: str) -> None:
    async with connected() as (agent, peer):
        context = agent.exec(["x"])
        entering = asyncio.create_task(context.__aenter__())
        assert isinstance(await peer.heard(), message.Exec)
        await peer.say(message.Started(pid=2), stream=1)
        process = await entering
        await peer.raw(EXEC_VIOLATIONS[name])
        with pytest.raises(ChannelError) as caught:
            while True:
                await agent.ping()
        assert isinstance(caught.value.__cause__, ProtocolError)
        if "last" not in name:
            with pytest.raises(ChannelError):
                await process.wait()
        await context.__aexit__(None, None, None)
        with pytest.raises((EOFError, OSError)):
            while True:
                await peer.frame()


async def test_data_of_a_stat_is_refused() -> None:
    async with connected() as (agent, peer):
        stat = asyncio.create_task(agent.files.stat("/"))
        await peer.heard()
        await peer.raw(data(1, 1, 1))
        with pytest.raises(ChannelError, match="data on channel 1 of a stat"):
            await stat


async def test_an_exit_that_says_nothing_is_refused() -> None:
    async with connected() as (agent, peer):
        run = asyncio.create_task(agent.run(["x"]))
        await peer.heard()
        await peer.say(message.Started(pid=2), stream=1)
        nothing = message.Exit(
            code=None, signal=None, timed_out=False, oom=False, cpu_us=0, memory_peak_bytes=0, wall_us=0
        )
        await peer.say(nothing, stream=1)
        with pytest.raises(ChannelError, match="did not say"):
            await run


LISTED = message.Entry(
    name=b"a", kind="file", size=0, mode=0o644, uid=0, gid=0, mtime_ns=0, target=None, nlink=1
)  # fmt: skip


@pytest.mark.parametrize(("asked", "name", "fault"), [(None, b"a", "nobody asked"), ("/d", b"../a", "the name")])
async def test_a_listing_that_no_exec_can_have_is_refused(asked: str | None, name: bytes, fault: str) -> None:
    async with connected() as (agent, peer):
        run = asyncio.create_task(agent.run(["x"], listing=asked))
        await peer.heard()
        await peer.say(message.Started(pid=2), stream=1)
        await peer.say(msgspec.structs.replace(EXIT, listing=(msgspec.structs.replace(LISTED, name=name),)), stream=1)
        with pytest.raises(ChannelError, match=fault):
            await run


async def test_a_listing_that_is_none_ends_the_connection() -> None:
    async with connected() as (agent, peer):
        listing = asyncio.create_task(agent.files.list("/"))
        await peer.heard()
        await peer.raw(protocol.data(1, 1, b"nonsense"))
        with pytest.raises(ChannelError) as caught:
            await listing
        assert isinstance(caught.value.__cause__, ProtocolError)
        with pytest.raises(ChannelError):
            await agent.ping()
        with pytest.raises((EOFError, OSError)):
            while True:
                await peer.frame()


async def test_empty_data_costs_nothing() -> None:
    async with connected() as (agent, peer):
        context = agent.exec(["x"])
        entering = asyncio.create_task(context.__aenter__())
        await peer.heard()
        await peer.raw(protocol.control(1, message.Started(pid=2)), data(1, 1, 0) * 1000, protocol.control(1, EXIT))
        process = await entering
        assert (await process.wait()).ok
        assert not process.stdout._chunks
        await context.__aexit__(None, None, None)


async def test_an_agent_that_does_not_confirm_a_reset_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("firebrick.guest.execution.RESET_PATIENCE", 0.01)
    async with connected() as (agent, peer):
        context = agent.exec(["x"])
        entering = asyncio.create_task(context.__aenter__())
        await peer.heard()
        await peer.say(message.Started(pid=2), stream=1)
        await entering
        await context.__aexit__(None, None, None)
        assert await peer.frame() == Frame(1, Kind.RESET, 0, b"")
        # What it still sends is dropped, until its last message.
        await peer.raw(data(1, 1, 1 << 18), data(1, 2, 5))
        await peer.say(message.Error(code="reset", message="given up", errno=None), stream=1)
        stat = asyncio.create_task(agent.files.stat("/"))
        assert isinstance(await peer.heard(), message.Stat)
        await peer.say(message.Error(code="permission", message="no", errno=13), stream=2)
        with pytest.raises(AgentError, match="no"):
            await stat


async def test_a_cancelled_request_is_reset() -> None:
    async with connected() as (agent, peer):
        stat = asyncio.create_task(agent.files.stat("/"))
        await peer.heard()
        stat.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stat
        assert await peer.frame() == Frame(1, Kind.RESET, 0, b"")


async def test_an_agent_that_answers_nothing_does_not_fill_the_memory() -> None:
    async with connected() as (agent, _):
        with pytest.raises(BusyError):
            for _ in range(1000):
                ping = asyncio.create_task(agent.ping())
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                if ping.done():
                    await ping
                ping.cancel()


async def test_a_request_that_does_not_fit_is_refused_here(agent: Agent) -> None:
    with pytest.raises(MessageTooLargeError, match="exec"):
        await agent.run(["echo", "x" * 100_000])
    assert (await agent.run(["echo", "x" * 10_000])).status.ok


async def test_credit_is_kept(guest: GuestDouble, agent: Agent) -> None:
    """No more than the agent has granted is on its way: the double would write down a violation, so see that it waits."""
    async with agent.exec(["sleep", "1000"], stdin=True) as process:
        writing = asyncio.create_task(process.write(bytes(1 << 20)))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not writing.done()
        assert process._stream._credit == 0
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing


async def test_nothing_runs_without_an_identity() -> None:
    double = GuestDouble()
    host = double.connect()
    await host.write(protocol.control(1, message.Stat(path=b"/", follow=True)))
    decoder = protocol.FrameDecoder()
    frames: list[Frame] = []
    while len(frames) < 2:
        frames += decoder.feed(await host.read(4096))
    error = protocol.Messages[message.Message](message.FromGuestStream, "").decode(frames[1].payload)
    assert isinstance(error, message.Error)
    assert error.code == "no_identity"
    await host.close()
    await double.close()
    assert issubclass(IdentityMissingError, AgentError)


async def test_a_group_that_fails_leaves_no_cancellation_behind():
    """Python before 3.13 would, and a time limit of 3.11.2 then ends as a cancellation of its task."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("wrong")

    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(ValueError, match="wrong"):
        async with _plain_errors(), asyncio.TaskGroup() as group:
            group.create_task(fail())
    assert task.cancelling() == 0
