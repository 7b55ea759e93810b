"""The lab's host: an emulated machine with KVM, booted and prepared once, saved, and restored whenever somebody needs a lab.

A restore takes a fraction of a second and gives a host nobody has used: loaded modules, mounted disks, a Python whose files are in memory.
What is saved depends on everything it was made from, so it is named after that, and made anew when any of it changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shlex
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick import machine
from firebrick.guest.errors import GuestError
from firebrick.home import Home
from firebrick.image import ImageStore
from firebrick.image.progress import Silent
from firebrick.lock import hold_lock
from firebrick.machine import Machine, MachineError, MachineSpec, Snapshot
from firebrick.machine.accel import Accelerator
from firebrick.machine.command import kernel_command_line
from firebrick.machine.spec import Drive
from firebrick.task import end_tasks
from lab.drives import GROUND, HOME, PACKAGES, ground_drive, ground_inside, home_drive, packages_drive
from lab.ground import Ground
from lab.packages import ensure_packages, wanted_packages
from lab.supply import ensure_ground

ROOT: Final = Path(__file__).resolve().parent.parent
_IMAGE: Final = ROOT / "lab" / "lab.toml"
_INSIDE: Final = ROOT / "lab" / "inside.py"
PYTHON_SOCKET: Final = "/run/lab-python.sock"
PROJECT: Final = "/project"
EVIDENCE: Final = "/evidence"
# One: with two, QEMU's emulation of nested virtualisation loses hosts more often (they stand still, or the stack runs over). Two hosts beside each
# other are as fast.
_VCPUS: Final = 1
_MEMORY_MIB: Final = 6144
_SCRATCH_MIB: Final = 16384
_DEADLINE_S: Final = 180.0
_NUDGE_S: Final = 2.0
# The lab has no secrets to guard, and what guards them would be emulated too.
_KERNEL_ARGS: Final = ("mitigations=off",)
# OpenSSL uses none of the vector instructions then, which an emulated processor has and is slowest at: SHA-256 does 92 MiB a second instead of 26.
_EMULATED: Final = {"OPENSSL_ia32cap": "0"}

# The program as a reader of the documentation has it; the tree under test is there when somebody starts it.
_PROGRAM: Final = f"""#!/bin/sh
PYTHONPATH={PROJECT}/src:{PACKAGES} exec python3 -m firebrick.cli.main "$@"
"""

_PREPARE: Final = f"""
set -eu
mkdir -p /lib/modules {PACKAGES} {GROUND} {HOME} {PROJECT} {EVIDENCE} /run/netns
mount -o ro /dev/disk/by-serial/modules /lib/modules
mount -o ro /dev/disk/by-serial/packages {PACKAGES}
mount -o ro /dev/disk/by-serial/ground {GROUND}
mount -o ro /dev/disk/by-serial/home {HOME}
modprobe -a kvm-amd tun vhost_vsock nbd loop veth bridge dummy sch_tbf sch_ingress act_police \\
    nf_tables nf_conntrack nf_nat nft_chain_nat nft_ct nft_nat nft_masq nft_redir nft_reject nft_reject_inet nft_limit nft_log nft_hash
# As an init system leaves a host: mounts are passed on, and every controller is there for who asks.
mount --make-rshared /
echo '+cpu +memory +pids +io' > /sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/firebrick
echo 1 > /proc/sys/net/ipv4/ip_forward
test -c /dev/kvm
printf '%s' {shlex.quote(_PROGRAM)} > /usr/local/bin/firebrick
chmod 755 /usr/local/bin/firebrick
cd /tmp
# What every test needs is in memory from then on.
find {GROUND} {HOME} -type f ! -name vmlinuz ! -name '*.ko' -exec cat {{}} + > /dev/null
PYTHONPATH={PACKAGES} python3 -c 'import pytest_asyncio, pytest_timeout'
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the lab keeps what it made: `home` has kernels and images, `cache` everything else."""

    home: Home
    cache: Path

    @classmethod
    def of_tree(cls) -> Place:
        return cls(Home.find(), ROOT / "build" / "lab" / "cache")


@dataclass(frozen=True, slots=True)
class Lab:
    """A running lab. `ground` is where its tests find things."""

    machine: Machine
    ground: Ground

    @property
    def environment(self) -> dict[str, str]:
        """Of a program in it that imports the tree under test."""
        paths = f"{PROJECT}/src:{PROJECT}:{PACKAGES}"
        return {**_EMULATED, **self.ground.environment(), "PYTHONPATH": paths, "HOME": "/root"}


@asynccontextmanager
async def restored(place: Place, say: Callable[[str], None]) -> AsyncIterator[Lab]:
    """A fresh lab, for as long as the context. `say` is told what takes long."""
    place.cache.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        async with hold_lock(place.cache / "lock"):  # until it is restored: from then on it has its files open
            spec, ground = await _specification(place, say)
            template = await _template(place, spec, say)
            host = await stack.enter_async_context(
                machine.restore(template, home=place.home.root, hostname="lab", deadline=_DEADLINE_S)
            )
        nudging = asyncio.create_task(_nudge(host), name="lab-nudge")
        stack.push_async_callback(end_tasks, nudging)
        yield Lab(host, ground_inside(ground))


async def _nudge(host: Machine) -> None:
    """An emulated processor that emulates virtualisation may halt and miss its timer's interrupt: any other one wakes it."""
    with contextlib.suppress(GuestError, MachineError, OSError):
        while True:
            await asyncio.sleep(_NUDGE_S)
            await host.agent.ping()


class _Told(Silent):
    """The stages of what takes long, one line each."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def stage(self, text: str, *, total: float | None = None) -> None:  # noqa: ARG002 - of the protocol
        self._say(f"{text} ...")


async def _specification(place: Place, say: Callable[[str], None]) -> tuple[MachineSpec, Ground]:
    store, told = ImageStore(place.home), _Told(say)
    kernel, image = await store.ensure_kernel(progress=told), await store.ensure_image(_IMAGE, progress=told)
    assert kernel.modules is not None, "Debian's kernel comes with its modules"
    ground = await ensure_ground(place.home, place.cache, told)
    packages = await ensure_packages(place.cache, wanted_packages(ROOT / "pyproject.toml"))
    spec = MachineSpec(
        kernel=kernel.path,
        initrd=kernel.initrd,
        root=image.path,
        kernel_args=(*kernel.args, *_KERNEL_ARGS),
        vcpus=_VCPUS,
        memory_mib=_MEMORY_MIB,
        scratch_mib=_SCRATCH_MIB,
        nested=True,
        hostname="lab",
        drives=(
            Drive(name="modules", path=kernel.modules),
            await packages_drive(packages, place.cache),
            await ground_drive(ground, place.cache),
            await home_drive(ground, place.cache),
        ),
    )
    return spec, ground


async def _template(place: Place, spec: MachineSpec, say: Callable[[str], None]) -> Snapshot:
    """The prepared host, made where there is none for this specification, or none that this host can restore."""
    path = place.cache / f"host-{_key(spec)}"
    if path.is_dir():
        with contextlib.suppress(MachineError):
            found = Snapshot.load(path)
            found.check(await machine.Qemu(place.home.cache).facts(spec))
            return found
    _forget_old(place.cache, spec)
    say("Preparing the lab's host, once ...")
    async with machine.launch(spec, "qemu", home=place.home.root, deadline=_DEADLINE_S) as host:
        await host.run(["sh", "-c", _PREPARE], check=True)
        await _start_python(host)
        return await host.snapshot(path)


async def _start_python(host: Machine) -> None:
    """The Python that waits for test runs: see `lab.inside`."""
    await host.files.write("/opt/inside.py", _INSIDE.read_bytes())
    argv = ["python3", "/opt/inside.py", PYTHON_SOCKET]
    async with host.exec(argv, env={**_EMULATED, "PYTHONPATH": str(PACKAGES)}, detach=True, merge=True) as process:
        said = b""
        while not said.endswith(b"ready\n"):
            chunk = await process.stdout.read()
            said += chunk
            if not chunk:
                raise MachineError(f"the lab's Python did not start: {said.decode(errors='replace')}")


def _forget_old(cache: Path, spec: MachineSpec) -> None:
    """Hosts saved before, and the disks only they had."""
    for host in cache.glob("host-*"):
        shutil.rmtree(host)
    for disk in set(cache.glob("*.squashfs")) - {drive.path for drive in spec.drives}:
        disk.unlink()


def _key(spec: MachineSpec) -> str:
    """Also of files that were made again under the same name."""
    line = kernel_command_line(spec, Accelerator.TCG, 1)
    disks = [(drive.path.stat().st_size, drive.path.stat().st_mtime_ns) for drive in spec.drives]
    return hashlib.sha256(f"{spec}{disks}{line}{_PREPARE}{_EMULATED}".encode() + _INSIDE.read_bytes()).hexdigest()[:16]
