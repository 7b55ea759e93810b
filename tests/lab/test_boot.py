"""The lab is what it says, and Firecracker starts our kernel, our initramfs and our root image in it."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from bench import bare_firecracker as bare
from firebrick.guest.client import Agent, Identity, open_stream
from firebrick.guest.errors import ChannelError
from firebrick.machine import countdown
from firebrick.machine.accel import LIMIT_MS

AGENT_PORT = 1024
PATIENCE_S = 60.0


def test_kvm_runs_guests_and_does_not_emulate_them() -> None:
    argv = [sys.executable, "-I", "-S", countdown.__file__]
    times = [int(subprocess.run(argv, capture_output=True, check=True).stdout) / 1000 for _ in range(3)]
    assert 0 < min(times) < LIMIT_MS


def test_the_host_is_what_machines_need() -> None:
    for device in ("/dev/kvm", "/dev/net/tun", "/dev/vhost-vsock", "/dev/userfaultfd"):
        assert Path(device).is_char_device()
    controllers = Path("/sys/fs/cgroup/cgroup.subtree_control").read_text().split()
    assert {"cpu", "memory", "pids", "io"} <= set(controllers)


async def test_the_agent_answers_over_vsock_and_powers_off(setup: bare.Setup, tmp_path: Path) -> None:
    with bare.booted(setup, tmp_path) as machine:
        stream = await open_stream(machine.connect(AGENT_PORT))
        async with Agent.connect(stream, Identity.fresh("inner"), timeout=PATIENCE_S) as agent:
            done = await agent.run(
                ["sh", "-c", "hostname; ls /dev/disk/by-serial; findmnt -no FSTYPE /; ls /sys/module"], check=True
            )
            words = done.stdout.decode().split()
            assert words[:4] == ["inner", "root", "scratch", "overlay"]
            assert "vmw_vsock_virtio_transport" in words
            assert "virtio_console" not in words
            await agent.poweroff(grace=1.0)
        assert machine.wait(PATIENCE_S) == 0


def test_a_machine_that_cannot_start_says_why_and_ends(setup: bare.Setup, tmp_path: Path) -> None:
    nothing, directory = tmp_path / "root", tmp_path / "machine"
    nothing.write_bytes(bytes(1 << 20))
    directory.mkdir()
    with bare.booted(dataclasses.replace(setup, root=nothing), directory) as machine:
        assert machine.wait(PATIENCE_S) == 0
    assert "fatal: cannot mount the root image /dev/vda" in (directory / "console.txt").read_text(errors="replace")


async def test_a_bare_snapshot_goes_on_in_another_directory(setup: bare.Setup, tmp_path: Path) -> None:
    first, second, snapshot = (tmp_path / name for name in ("first", "second", "snapshot"))
    for directory in (first, second, snapshot):
        directory.mkdir()
    with bare.booted(setup, first) as machine:
        stream = await open_stream(machine.connect(AGENT_PORT))
        async with Agent.connect(stream, Identity.fresh("first"), timeout=PATIENCE_S) as agent:
            await agent.run(["sh", "-c", "echo kept > /root/file; sync"], check=True)
            await agent.quiesce()
            machine.pause()
            machine.snapshot(snapshot)
    with bare.restored(setup, snapshot, second) as machine:
        async with _greeted(machine, "second") as agent:
            assert (await agent.run(["sh", "-c", "cat /root/file; hostname"])).stdout == b"kept\nsecond\n"


@contextlib.asynccontextmanager
async def _greeted(machine: bare.Bare, hostname: str) -> AsyncIterator[Agent]:
    """The agent of a restored machine. Firecracker before 1.16 may close the first connection after it was accepted."""
    async with contextlib.AsyncExitStack() as stack:
        for attempts_left in reversed(range(5)):
            stream = await open_stream(machine.connect(AGENT_PORT))
            try:
                agent = await stack.enter_async_context(
                    Agent.connect(stream, Identity.fresh(hostname), timeout=PATIENCE_S)
                )
                break
            except ChannelError:
                if not attempts_left:
                    raise
        yield agent
