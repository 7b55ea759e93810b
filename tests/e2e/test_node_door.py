"""The socket of a node: what `firebrick vm` asks and gets. Machines are in memory, sockets are real."""

import asyncio
import contextlib
import os
import stat

import pytest

from firebrick.home import Home
from firebrick.machine import Fake, Machine, MachineSpec, launch
from firebrick.node.errors import NodeError, NoNodeError
from firebrick.node.socket import wire
from firebrick.node.socket.caller import ask, call, find_machine, list_machines
from firebrick.node.socket.door import open_door
from firebrick.node.socket.roster import Roster

pytestmark = pytest.mark.network


@pytest.fixture
async def machine(tmp_path):
    for name in ("kernel", "initrd"):
        (tmp_path / name).touch()
    spec = MachineSpec(kernel=tmp_path / "kernel", initrd=tmp_path / "initrd")
    async with launch(spec, Fake(), home=tmp_path / "home") as machine:
        yield machine


@pytest.fixture
async def door(tmp_path, machine: Machine):
    roster = Roster()
    with roster.registered(machine, "base", "a test"):
        async with open_door(Home(tmp_path / "home").nodes, roster) as socket:
            yield socket
        await roster.close()
    assert not socket.exists()


async def execute(socket, machine, *argv, feed=(), size=None):
    """Run a command; what it wrote on each stream, and how it ended."""
    out = {1: b"", 2: b""}
    async with call(socket) as connection:
        await connection.send(wire.Execute(machine=machine.id, argv=argv, size=size))
        for data in (*feed, b""):
            await connection.send(wire.Input(data=data))
        while True:
            answer = await connection.receive()
            if isinstance(answer, wire.Exited):
                return out[1], out[2], answer
            out[answer.stream] += answer.data


async def test_only_the_owner_can_knock(door):
    assert stat.S_IMODE(door.stat().st_mode) == 0o600
    assert stat.S_IMODE(door.parent.stat().st_mode) == 0o700


async def test_machines_are_listed_and_found_by_the_beginning_of_their_id(door, machine):
    [(socket, info)] = await list_machines(door.parent)
    assert (socket, info.id, info.image, info.purpose, info.node) == (door, machine.id, "base", "a test", os.getpid())
    assert await find_machine(door.parent, machine.id[:4]) == (door, machine.id)
    with pytest.raises(NoNodeError, match="no machine 'zzz' is running"):
        await find_machine(door.parent, "zzz")


async def test_sockets_of_nodes_that_are_gone_are_removed(door):
    import socket

    stale = door.parent / "1-1.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stale))
    assert len(await list_machines(door.parent)) == 1
    assert not stale.exists()


async def test_input_output_and_status_of_a_command(door, machine):
    out, err, end = await execute(door, machine, "cat", feed=[b"one ", b"two" * 100_000])
    assert (out, err) == (b"one " + b"two" * 100_000, b"")
    assert (end.code, end.signal) == (0, None)
    assert (await execute(door, machine, "false"))[2].code == 1


async def test_what_cannot_be_is_said_with_its_hint(door, machine):
    with pytest.raises(NodeError, match="nonesuch"):
        await execute(door, machine, "nonesuch")
    with pytest.raises(NodeError, match="no machine begins") as error:
        await ask(door, wire.Console(machine="none"))
    assert "vm ls" in error.value.hint


async def test_what_is_no_message_is_refused(door):
    async with call(door) as connection:
        connection._writer.write(b"\x05\0\0\0hello")
        with pytest.raises(NodeError, match="no message of this protocol"):
            await connection.receive()
    async with call(door) as connection:
        connection._writer.write(b"\xff\xff\xff\xff")
        with pytest.raises(NodeError, match="longer than the limit"):
            await connection.receive()


async def test_a_caller_that_goes_away_ends_its_command(door, machine):
    async with call(door) as connection:
        await connection.send(wire.Execute(machine=machine.id, argv=("sleep", "1000"), stdin=False))
        await processes(machine, 1)
    await processes(machine, 0)


async def test_what_has_no_meaning_while_a_command_runs_is_refused_and_ends_it(door, machine):
    async with call(door) as connection:
        await connection.send(wire.Execute(machine=machine.id, argv=("sleep", "1000")))
        await connection.send(wire.Console(machine=machine.id))
        with pytest.raises(NodeError, match="Console has no meaning while a command runs"):
            await connection.receive()
    await processes(machine, 0)


async def processes(machine, count):
    async with asyncio.timeout(10):
        while (await machine.usage()).guest.processes != count:
            await asyncio.sleep(0.01)


async def test_a_signal_reaches_the_command(door, machine):
    async with call(door) as connection:
        await connection.send(wire.Execute(machine=machine.id, argv=("sleep", "1000")))
        await processes(machine, 1)
        await connection.send(wire.Signal(number=15))
        answer = await connection.receive()
    assert (answer.code, answer.signal) == (None, 15)


async def test_files_and_directories_in_and_out(door, machine, tmp_path):
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_bytes(b"x" * 1_000_000)
    (tmp_path / "one").write_text("one")
    name = machine.id
    await ask(door, wire.Copy(machine=name, host=str(tmp_path / "one"), guest="/root", into=True))
    assert await machine.files.read("/root/one") == b"one"
    await ask(door, wire.Copy(machine=name, host=str(source), guest="/srv/tree", into=True))
    await ask(door, wire.Copy(machine=name, host=str(tmp_path / "back"), guest="/srv/tree", into=False))
    assert (tmp_path / "back" / "deep" / "file").read_bytes() == b"x" * 1_000_000
    with pytest.raises(NodeError):
        await ask(door, wire.Copy(machine=name, host=str(tmp_path / "no"), guest="/none", into=False))


async def test_a_fork_ends_with_its_caller(door, monkeypatch):
    begun, ended = asyncio.Event(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def never(self):
        begun.set()
        try:
            await asyncio.Event().wait()
            yield
        finally:
            ended.set()

    monkeypatch.setattr(Machine, "fork", never)
    [(socket, info)] = await list_machines(door.parent)
    async with asyncio.timeout(5):
        async with call(socket) as connection:
            await connection.send(wire.Fork(machine=info.id))
            await begun.wait()
        await ended.wait()


async def test_fork_and_stop(door, machine):
    forked = await ask(door, wire.Fork(machine=machine.id))
    assert isinstance(forked, wire.Forked)
    assert len(await list_machines(door.parent)) == 2
    assert await ask(door, wire.Stop(machine=forked.machine, grace_s=5.0)) == wire.Done()
    assert await ask(door, wire.Stop(machine=machine.id, grace_s=None)) == wire.Done()
    assert isinstance(await ask(door, wire.Console(machine=machine.id)), wire.Text)


async def test_a_visit_that_lasts_is_ended_with_the_node(tmp_path, machine):
    roster = Roster()
    with roster.registered(machine, "base", "a test"):
        async with open_door(tmp_path / "nodes", roster) as socket:
            context = call(socket)
            connection = await context.__aenter__()
            await connection.send(wire.Execute(machine=machine.id, argv=("sleep", "1000")))
            await processes(machine, 1)
        with pytest.raises(NodeError, match="the node has ended"):
            await connection.receive()
        await context.__aexit__(None, None, None)
    await processes(machine, 0)


async def test_sockets_of_processes_that_were_killed_go_with_the_next_node(tmp_path):
    nodes = tmp_path / "nodes"
    nodes.mkdir()
    (nodes / f"{2**22 + 1}-1.sock").touch()  # no process has a number above the kernel's limit
    async with open_door(nodes, Roster()) as socket:
        assert list(nodes.iterdir()) == [socket]
