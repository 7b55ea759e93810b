"""Real machines in namespaces of their own: what they reach, what reaches them, and that forks need no addresses of their own."""

import asyncio

import pytest

from firebrick import machine
from firebrick.machine import HostError, Network, Qemu, SpecError
from firebrick.machine.network.policy import Allow, Forward, NetworkPolicy
from firebrick.machine.network.pool import SlotPool
from tests.network import world as worlds
from tests.network.world import ALLOWED, HOST, NAMED, OTHER
from tests.workshop import Workshop

pytestmark = pytest.mark.machine

POLICY = NetworkPolicy(allow=(Allow(f"{ALLOWED}/32", (80,)), Allow("git.example.org", (80,))))


@pytest.fixture
def world():
    with worlds.world() as made:
        yield made


async def first_line(m: machine.Machine, address: str, seconds: int = 20) -> str:
    """What the server at this address, or name, says; empty where it is not reached in time."""
    script = f"exec 3<>/dev/tcp/{address}/80 && read -r line <&3 && echo $line"
    done = await m.run(["timeout", str(seconds), "bash", "-c", script])
    return done.stdout.decode().partition(" ")[0]


async def test_machines_and_their_forks_reach_what_is_allowed_and_nothing_else(world, workshop: Workshop, tmp_path):
    world.names["git.example.org"] = [NAMED]
    spec = await workshop.spec(network=Network.NAMESPACE, policy=POLICY)
    async with (
        world.resolving(),
        world.serving(ALLOWED, OTHER, NAMED) as met,
        SlotPool(host=world.host, size=2) as pool,
        machine.launch(spec, Qemu(workshop.home / "cache", network=pool), home=workshop.home) as m,
    ):
        assert await first_line(m, ALLOWED) == ALLOWED
        assert await first_line(m, "git.example.org") == NAMED
        assert await first_line(m, OTHER, 2) == ""
        dropped = (await m._vm.slot.counters()).egress_dropped
        assert dropped.packets > 0
        async with m.forks(2) as copies:
            everyone = [m, *copies]
            assert await asyncio.gather(*(first_line(each, ALLOWED) for each in everyone)) == [ALLOWED] * 3
            assert await first_line(copies[0], "git.example.org") == NAMED
            assert await first_line(copies[1], OTHER, 2) == ""
            addresses = {(await each.run(["hostname", "-I"])).stdout for each in everyone}
            assert len(addresses) == 1
            await copies[0]._vm.slot.apply(NetworkPolicy())
            assert await first_line(copies[0], ALLOWED, 2) == ""
            assert await first_line(copies[1], ALLOWED) == ALLOWED
        assert met[OTHER] == 0


async def test_a_connection_of_the_source_is_not_the_forks(world, workshop: Workshop, tmp_path):
    """A fork wakes up in the middle of connections that its own namespace knows nothing of: they are the source's, and go on there."""
    script = f"exec 3<>/dev/tcp/{ALLOWED}/80; read -r l <&3; echo ready; read -r go; echo again >&3; read -t 10 -r l <&3; echo $l"
    spec = await workshop.spec(network=Network.NAMESPACE, policy=POLICY)
    async with (
        world.serving(ALLOWED) as met,
        SlotPool(host=world.host, size=2) as pool,
        machine.launch(spec, Qemu(workshop.home / "cache", network=pool), home=workshop.home) as m,
        m.exec(["bash", "-c", script], stdin=True) as process,
    ):
        assert await process.stdout.read() == b"ready\n"
        async with m.fork() as copy:
            assert await first_line(copy, ALLOWED) == ALLOWED
            await process.write(b"go\n")
            assert await process.stdout.read() == b"again\n"
        assert met[ALLOWED] == 2


SERVE = (
    "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 80, Listen => 5, ReuseAddr => 1) or die;"
    '$| = 1; print "up\\n"; while (my $c = $s->accept) { print $c "hello\\n"; close $c }'
)


async def said(port: int, address: str = "127.0.0.1") -> bytes:
    """By what listens behind this port of the host."""
    reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), 20)
    try:
        return await reader.readline()
    finally:
        writer.close()


async def test_a_port_of_the_host_reaches_the_machine(world, workshop: Workshop):
    spec = await workshop.spec(
        network=Network.NAMESPACE, policy=NetworkPolicy(forwards=(Forward(8080, 80), Forward(8080, 80, address=HOST)))
    )
    async with (
        SlotPool(host=world.host, size=0) as pool,
        machine.launch(spec, Qemu(workshop.home / "cache", network=pool), home=workshop.home) as m,
        m.exec(["perl", "-e", SERVE]) as process,
    ):
        assert await process.stdout.read() == b"up\n"
        for address in ("127.0.0.1", HOST):
            assert await said(8080, address) == b"hello\n"


async def test_a_fork_comes_up_beside_a_source_that_has_ports_of_the_host(world, workshop: Workshop, tmp_path):
    spec = await workshop.spec(network=Network.NAMESPACE, policy=NetworkPolicy(forwards=(Forward(8080, 80),)))
    driver = Qemu(workshop.home / "cache", network=(pool := SlotPool(host=world.host, size=0)))
    async with (
        pool,
        machine.launch(spec, driver, home=workshop.home) as m,
        m.exec(["perl", "-e", SERVE]) as process,
    ):
        assert await process.stdout.read() == b"up\n"
        async with m.fork() as copy, m.fork(forwards=(Forward(8081, 80),)) as other:
            assert copy.spec.policy.forwards == ()
            assert other.spec.policy.forwards == (Forward(8081, 80),)
            assert await said(8080) == await said(8081) == b"hello\n"
            with pytest.raises(HostError, match="cannot forward tcp port 8081 of 127.0.0.1: Address already in use"):
                async with m.fork(forwards=(Forward(8081, 80),)):
                    pass
        taken = await m.snapshot(tmp_path / "s")
        with pytest.raises(HostError, match="port 8080 of 127.0.0.1: Address already in use") as told:
            async with machine.restore(taken, driver, home=workshop.home):
                pass
        assert "with_forwards" in told.value.hint
        async with machine.restore(taken.with_forwards(()), driver, home=workshop.home) as copy:
            assert (await copy.run(["true"])).status.ok


async def test_without_a_pool_there_is_no_namespace(workshop: Workshop):
    spec = await workshop.spec(network=Network.NAMESPACE)
    with pytest.raises(SpecError, match="the driver has none to give"):
        async with machine.launch(spec, "qemu", home=workshop.home):
            pass
    assert list((workshop.home / "machines").iterdir()) == []
