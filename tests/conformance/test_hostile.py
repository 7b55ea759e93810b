"""What jobs do to their machine: it survives, and so does everybody else's."""

import asyncio
import contextlib
import signal

import pytest

from firebrick.guest.errors import GuestError, NoSpaceError
from firebrick.machine import Machine, State
from tests.conformance.ways import IN_LAB, PACE

pytestmark = pytest.mark.real

BOUND_S = 240 if IN_LAB else 60


async def assert_usable(m: Machine) -> None:
    async with asyncio.timeout(BOUND_S):
        assert (await m.run(["echo", "alive"], check=True)).stdout == b"alive\n"
        assert (await m.agent.usage()).processes == 0
    assert m.state is State.RUNNING


async def test_a_fork_bomb(m: Machine):
    async with asyncio.timeout(BOUND_S):
        done = await m.run(["sh", "-c", "b() { b | b & }; b; sleep 30"], timeout=3)
        assert done.status.timed_out or not done.status.ok
        await assert_usable(m)


async def test_a_full_disk(m: Machine):
    async with asyncio.timeout(BOUND_S):
        done = await m.run(["sh", "-c", "dd if=/dev/zero of=/fill bs=1M 2>/dev/null"])
        assert done.status.code == 1
        with pytest.raises(NoSpaceError):
            await m.files.write("/tmp/more", bytes(4 << 20))
        await m.files.remove("/fill")
        await assert_usable(m)


async def test_all_memory_taken(m: Machine):
    async with asyncio.timeout(BOUND_S):
        done = await m.run(["perl", "-e", "my @a; push @a, 'x' x 1000000 while 1;"])
        assert done.status.oom
        assert not done.status.ok
        await assert_usable(m)


async def test_memory_taken_by_files(m: Machine):
    async with asyncio.timeout(BOUND_S):
        done = await m.run(["sh", "-c", "dd if=/dev/zero of=/dev/shm/fill bs=1M"])
        assert not done.status.ok
        with contextlib.suppress(GuestError):
            await m.files.remove("/dev/shm/fill", missing_ok=True)
        await assert_usable(m)


async def test_killing_everything(m: Machine):
    async with asyncio.timeout(BOUND_S):
        bystander = asyncio.create_task(m.run(["sleep", "60"]))
        await m.run(["sh", "-c", "kill -9 -1"])
        assert (await bystander).status.signal == signal.SIGKILL
        await assert_usable(m)


async def test_signals_to_the_first_process(m: Machine):
    await m.run(["sh", "-c", "kill -9 1; kill -TERM 1; kill -INT 1; kill -HUP 1"])
    await assert_usable(m)


async def test_daemons_are_ended_with_their_command(m: Machine):
    async with asyncio.timeout(BOUND_S):
        done = await m.run(
            ["sh", "-c", "setsid sleep 600 & setsid -f sh -c 'trap \"\" TERM; sleep 600'; echo started"], check=True
        )
        assert done.stdout == b"started\n"
        await assert_usable(m)


async def test_a_daemon_that_keeps_the_pipe_does_not_hold_the_exit(m: Machine):
    async with asyncio.timeout(BOUND_S):
        done = await m.run(["sh", "-c", "sleep 600 & echo done"], check=True)
        assert done.stdout == b"done\n"
        assert done.status.wall_s < 10 * PACE


async def test_a_flood_without_a_newline(m: Machine):
    async with asyncio.timeout(BOUND_S):
        async with m.exec(["sh", "-c", "tr '\\0' x < /dev/zero"]) as process:
            taken = 0
            while taken < 8 << 20:
                taken += len(await process.stdout.read())
        await assert_usable(m)


async def test_output_nobody_reads_costs_the_host_nothing(m: Machine):
    async with m.exec(["sh", "-c", "cat /dev/zero"]) as process:
        await m.run(["sleep", "0.5"])
        assert process.stdout._room >= 0
    await assert_usable(m)


async def test_closing_everything_it_has(m: Machine):
    done = await m.run(["sh", "-c", "exec 0<&- 1>&- 2>&-; sleep 0.2; exit 5"])
    assert done.status.code == 5
    await assert_usable(m)


async def test_garbage_on_the_console_is_only_garbage(m: Machine):
    await m.run(["sh", "-c", "head -c 100000 /dev/urandom > /dev/console"], timeout=BOUND_S)
    assert len(m.console()) <= 64 << 10
    await assert_usable(m)


# Exits with 0 where the job could take the place of the agent, or speak to it. The numbers are AF_VSOCK, and its addresses for any, this machine and itself.
_TAKE_VSOCK = """
socket(S, 40, 1, 0) or die "socket: $!";
exit 0 if bind(S, pack("SSLLL", 40, 0, 1024, 0xffffffff, 0)) && listen(S, 1);
$SIG{ALRM} = sub { exit 3 }; alarm 5;
for my $cid (1, 3) { socket(C, 40, 1, 0); exit 0 if connect(C, pack("SSLLL", 40, 0, 1024, $cid, 0)); }
exit 3;
"""


async def test_the_agents_port_is_not_the_jobs(m: Machine):
    """A job that finds the port cannot open it a second time: the connection stays the host's."""
    if m.driver.name == "firecracker":
        done = await m.run(["perl", "-e", _TAKE_VSOCK])
        assert (done.status.code, done.stderr) == (3, b"")
    else:
        done = await m.run(["sh", "-c", "for p in /dev/vport*; do echo garbage > $p; done"])
        assert not done.status.ok
    await assert_usable(m)


async def test_unmounting_and_remounting(m: Machine):
    await m.run(["sh", "-c", "umount -l /tmp /run /dev/shm; mount -o remount,ro /; umount -fl /"])
    async with asyncio.timeout(BOUND_S):
        await m.agent.ping()
        assert (await m.run(["true"])).status.code is not None


@pytest.mark.rooms
async def test_a_panic_is_told_as_what_it_is(m: Machine):
    from firebrick.machine import ExitCause, MachineGoneError

    async with asyncio.timeout(BOUND_S):
        with pytest.raises((MachineGoneError, GuestError)):
            await m.run(["sh", "-c", "echo c > /proc/sysrq-trigger; sleep 30"], check=True)
        end = await m.wait()
    assert end.cause is ExitCause.PANIC
    assert "sysrq" in end.message
    assert "Kernel panic" in m.console()
