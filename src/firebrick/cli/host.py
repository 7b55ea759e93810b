"""What a host needs to run machines, one check each: what was found, and what to do where it is not enough. Nothing is changed here."""

from __future__ import annotations

import os
import platform
import pwd
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Final

from firebrick.home import Home
from firebrick.image.errors import HostLacksError
from firebrick.image.sandbox import require_subordinate_ids
from firebrick.image.store import ImageStore
from firebrick.machine.accel import Acceleration, Accelerator, Choice, probe
from firebrick.machine.errors import HostError
from firebrick.machine.host import qemu_version
from firebrick.process import find_program

_MEMORY_WANTED: Final = 4 << 30
_DISK_WANTED: Final = 8 << 30

# Program: the Debian package it is in, and what cannot be done without it.
_IMAGE_TOOLS: Final = {
    "mmdebstrap": ("mmdebstrap", "images from Debian packages"),
    "mksquashfs": ("squashfs-tools", "images"),
    "depmod": ("kmod", "kernels"),
    "lz4": ("lz4", "kernels"),
    "unshare": ("util-linux", "images"),
}
_FOREIGN_IMAGE_TOOLS: Final = {
    "buildah": ("buildah", "images from a Dockerfile"),
    "skopeo": ("skopeo", "images from an OCI registry or layout"),
    "umoci": ("umoci", "images from an OCI layout"),
}
_NETWORK_TOOLS: Final = {
    "ip": ("iproute2", "network namespaces"),
    "nft": ("nftables", "network policies"),
    "dnsmasq": ("dnsmasq-base", "names in network policies"),
}


class Verdict(StrEnum):
    """`NOTE`: works without, but something is slower or cannot be done. `MISSING`: machines do not run without it."""

    OK = "ok"
    NOTE = "note"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """`found` is a fact, `advice` the next step, empty where there is none to take."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    return Finding("python", Verdict.OK, found)


def processor() -> Finding:
    machine, cores = platform.machine(), len(os.sched_getaffinity(0))
    if machine != "x86_64":
        return Finding("processor", Verdict.MISSING, f"{machine}, {cores} cores", "Firebrick runs on x86-64 hosts.")
    return Finding("processor", Verdict.OK, f"{machine}, {cores} cores")


def memory() -> Finding:
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(fields[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))
    found = f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB of it available"
    if free < _MEMORY_WANTED:
        return Finding(
            "memory",
            Verdict.NOTE,
            found,
            "A job's machine has 2 GiB by default; ask for less with --memory, or run fewer jobs at once.",
        )
    return Finding("memory", Verdict.OK, found)


def home_directory(home: Home) -> Finding:
    existing = next(path for path in (home.root, *home.root.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            "home", Verdict.MISSING, f"{home.root} cannot be written", "Set FIREBRICK_HOME to a directory of yours."
        )
    free = shutil.disk_usage(existing).free
    found = f"{home.root}, {free / 2**30:.0f} GiB free"
    if free < _DISK_WANTED:
        return Finding(
            "home", Verdict.NOTE, found, "Images and builds take a few GiB; set FIREBRICK_HOME to a larger disk."
        )
    return Finding("home", Verdict.OK, found)


async def virtual_machines(home: Home) -> list[Finding]:
    """QEMU, and whether KVM is used: asks the processor if this host has not been asked before."""
    try:
        version = await qemu_version(home.cache)
        choice = await Acceleration(home.cache, version).choose()
    except HostError as error:
        return [Finding("qemu", Verdict.MISSING, str(error), error.hint), _kvm(await probe())]
    except OSError as error:
        return [
            Finding(
                "qemu",
                Verdict.MISSING,
                f"cannot keep what is found: {error}",
                "Set FIREBRICK_HOME to a directory of yours.",
            )
        ]
    return [Finding("qemu", Verdict.OK, version), _kvm(choice)]


def _kvm(choice: Choice) -> Finding:
    if choice.accelerator is Accelerator.KVM:
        return Finding("kvm", Verdict.OK, choice.reason)
    return Finding(
        "kvm", Verdict.NOTE, choice.reason, "Nothing has to be done: programs in machines run slower, forks do not."
    )


def stored(home: Home) -> list[Finding]:
    """The kernels and images that are there already."""
    store = ImageStore(home)
    kernels = [f"{name} {manifest.version}" for name, manifest in store.list_kernels().items()]
    images = [f"{image.name} ({image.size / 2**20:.0f} MiB)" for image in store.list_images()]
    return [
        Finding("kernels", Verdict.OK, ", ".join(kernels))
        if kernels
        else Finding(
            "kernels", Verdict.NOTE, "none yet", "The first machine makes one; or now: firebrick kernel build"
        ),
        Finding("images", Verdict.OK, ", ".join(images))
        if images
        else Finding("images", Verdict.NOTE, "none yet", "firebrick image build base toolchain"),
    ]


def _tools(name: str, tools: dict[str, tuple[str, str]], verdict: Verdict) -> Finding:
    missing = {tool: why for tool, why in tools.items() if find_program(tool) is None}
    if not missing:
        return Finding(name, Verdict.OK, ", ".join(tools))
    found = "; ".join(f"no {tool} ({purpose})" for tool, (_, purpose) in missing.items())
    packages = " ".join(sorted({package for package, _ in missing.values()}))
    return Finding(name, verdict, found, f"As root: apt-get install --no-install-recommends {packages}")


def scratch_tool() -> Finding:
    return _tools(
        "scratch disks",
        {"mkfs.ext4": ("e2fsprogs", "scratch disks")},
        Verdict.MISSING,
    )


def image_tools() -> Finding:
    return _tools("image tools", _IMAGE_TOOLS, Verdict.NOTE)


def foreign_image_tools() -> Finding:
    return _tools("oci tools", _FOREIGN_IMAGE_TOOLS, Verdict.NOTE)


def network_tools() -> Finding:
    return _tools("network tools", _NETWORK_TOOLS, Verdict.NOTE)


def git() -> Finding:
    return _tools("git", {"git": ("git", "checking repositories out")}, Verdict.MISSING)


def setpriv() -> Finding:
    """Without the tether it is also what ties programs to their owner."""
    return _tools("setpriv", {"setpriv": ("util-linux", "jails and networks of machines")}, Verdict.MISSING)


def user_namespaces() -> Finding:
    """Needed to make images without root, and for nothing else."""
    name, user = "namespaces", pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:
        return Finding(name, Verdict.OK, "not needed: this is root")
    switch = Path("/proc/sys/kernel/unprivileged_userns_clone")
    if switch.exists() and switch.read_text().strip() == "0":
        return Finding(
            name,
            Verdict.NOTE,
            "switched off for users",
            "To make images as root: sysctl kernel.unprivileged_userns_clone=1",
        )
    try:
        require_subordinate_ids()
    except HostLacksError as error:
        return Finding(name, Verdict.NOTE, str(error), error.hint)
    return Finding(name, Verdict.OK, f"{user} has subordinate ids")


def vsock() -> Finding:
    if os.access("/dev/vhost-vsock", os.R_OK | os.W_OK):
        return Finding("vsock", Verdict.OK, "/dev/vhost-vsock")
    return Finding(
        "vsock",
        Verdict.OK,
        "no /dev/vhost-vsock for this user: the agent is reached over virtio-serial, which every QEMU has",
    )


def control_groups() -> Finding:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return Finding("cgroups", Verdict.OK, "version 2")
    return Finding(
        "cgroups",
        Verdict.NOTE,
        "no cgroup version 2",
        "Machines are bounded by QEMU alone; boot with systemd.unified_cgroup_hierarchy=1 for more.",
    )


def agent() -> Finding:
    path = Path(str(files("firebrick.guest") / "bin" / "firebrick-agent"))
    if not path.is_file():
        return Finding(
            "agent",
            Verdict.MISSING,
            f"{path} is not there",
            "In the source tree: make agent. Else install the wheel again.",
        )
    return Finding("agent", Verdict.OK, f"{path}, {path.stat().st_size / 1024:.0f} KiB")


LOCAL: Final[Sequence[Callable[[], Finding]]] = (
    python, processor, memory, control_groups, vsock, setpriv, scratch_tool, git, agent, image_tools, foreign_image_tools, network_tools,
    user_namespaces,
)  # fmt: skip
