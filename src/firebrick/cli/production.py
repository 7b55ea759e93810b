"""What a host needs for jailed machines under Firecracker, one check each; nothing of it is needed for QEMU without a jail. What a node with its
settings cannot do without is `missing` where the host lacks it. How to bring a host there is in docs/how-to/production-host.md. Nothing is
changed here."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from firebrick.cli.host import Finding, Verdict
from firebrick.machine import Firecracker, FirecrackerSettings
from firebrick.machine.errors import MachineError
from firebrick.machine.pager import PROGRAM as PAGE_SERVER
from firebrick.node.settings import DriverName, NodeSettings
from firebrick.process import find_program

_GUIDE: Final = "See docs/how-to/production-host.md."
_CONTROLLERS: Final = ("cpu", "memory", "pids", "io")
_SYSTEM: Final = Path("/sys")
_PROC: Final = Path("/proc")


def required(settings: NodeSettings) -> frozenset[str]:
    """The findings a node with these settings cannot do without. Pure."""
    firecracker = settings.driver is DriverName.FIRECRACKER
    wanted = {
        "qemu": not firecracker,
        "kvm": firecracker,
        "firecracker": firecracker,
        "jailer": firecracker and settings.jailed,
        "jails": settings.jailed,
        "limits": firecracker and settings.jailed,
        "tap": settings.network and (firecracker or settings.jailed),
        "network tools": settings.network and (firecracker or settings.jailed),
        "page server": firecracker and settings.page_server,
    }
    return frozenset(name for name, is_wanted in wanted.items() if is_wanted)


def judge(finding: Finding, required: Container[str]) -> Finding:
    """The finding, as bad as it is for a node that needs what is `required`. Pure."""
    if finding.name == "qemu" and finding.name not in required and finding.verdict is Verdict.MISSING:
        return replace(finding, verdict=Verdict.NOTE)
    if finding.name not in required or finding.verdict is not Verdict.NOTE:
        return finding
    advice = "Firecracker runs on nothing but KVM." if finding.name == "kvm" else finding.advice
    return replace(finding, verdict=Verdict.MISSING, advice=advice)


async def firecracker() -> list[Finding]:
    """The VMM and its jailer."""
    try:
        settings = FirecrackerSettings.from_environment()
        version = await Firecracker(Path(), settings).version()
    except MachineError as error:
        return [Finding("firecracker", Verdict.NOTE, str(error), error.hint)]
    jailer = find_program(settings.jailer)
    found = f"{version} ({find_program(settings.binary)})"
    if jailer is None:
        return [
            Finding("firecracker", Verdict.OK, found),
            Finding("jailer", Verdict.NOTE, f"no {settings.jailer}", "Put the jailer of the same release beside it."),
        ]
    return [Finding("firecracker", Verdict.OK, found), Finding("jailer", Verdict.OK, jailer)]


def jails() -> Finding:
    """Who may make them, and what QEMU's are made with."""
    if os.geteuid() != 0:
        return Finding(
            "jails", Verdict.NOTE, "not for this user: only root can make jails and network namespaces", _GUIDE
        )
    if find_program("bwrap") is None:
        return Finding("jails", Verdict.NOTE, "no bwrap, which QEMU is jailed with", "apt-get install bubblewrap")
    return Finding("jails", Verdict.OK, "root, bwrap")


def controllers() -> Finding:
    try:
        there = (_SYSTEM / "fs/cgroup/cgroup.controllers").read_text().split()
    except OSError:
        return Finding(
            "limits",
            Verdict.NOTE,
            "no cgroup version 2 at /sys/fs/cgroup: Firecracker's machines are not started",
            _GUIDE,
        )
    missing = [name for name in _CONTROLLERS if name not in there]
    if missing:
        return Finding("limits", Verdict.NOTE, f"cgroup version 2 without {', '.join(missing)}", _GUIDE)
    return Finding("limits", Verdict.OK, f"cgroup version 2 with {', '.join(_CONTROLLERS)}")


def tap_devices() -> Finding:
    if os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return Finding("tap", Verdict.OK, "/dev/net/tun")
    return Finding(
        "tap", Verdict.NOTE, "no /dev/net/tun for this user: machines have no network namespaces", "modprobe tun"
    )


def forwarding() -> Finding:
    """What slots change for the whole host."""
    if _on(_PROC / "sys/net/ipv4/ip_forward", "1"):
        return Finding("forwarding", Verdict.OK, "net.ipv4.ip_forward is on")
    return Finding(
        "forwarding", Verdict.OK, "net.ipv4.ip_forward is off: on as long as machines have network namespaces, then off"
    )


def page_server() -> Finding:
    """Whether memory can be served page by page."""
    if not PAGE_SERVER.is_file():
        return Finding("page server", Verdict.NOTE, f"{PAGE_SERVER} is not there", "In the source tree: make agent.")
    switch = _PROC / "sys/vm/unprivileged_userfaultfd"
    if Path("/dev/userfaultfd").exists() or (switch.exists() and switch.read_text().strip() == "1"):
        return Finding("page server", Verdict.OK, f"{PAGE_SERVER.stat().st_size / 1024:.0f} KiB, userfaultfd")
    return Finding(
        "page server",
        Verdict.NOTE,
        "the kernel has no /dev/userfaultfd",
        "Use Linux 6.1 or newer, or set vm.unprivileged_userfaultfd=1.",
    )


def neighbours() -> Finding:
    """What lets one machine learn of another."""
    wrong = [
        (_on(_SYSTEM / "devices/system/cpu/smt/active", "1"), "SMT is on (nosmt on the kernel's command line)"),
        (_on(_SYSTEM / "kernel/mm/ksm/run", "1"), "KSM is on (echo 0 >/sys/kernel/mm/ksm/run)"),
        (len((_PROC / "swaps").read_text().splitlines()) > 1, "there is swap (swapoff -a)"),
    ]
    said = [text for is_so, text in wrong if is_so]
    if said:
        return Finding(
            "neighbours", Verdict.NOTE, "; ".join(said), "Between tenants that do not trust each other: turn them off."
        )
    return Finding("neighbours", Verdict.OK, "no SMT, no KSM, no swap")


def _on(path: Path, value: str) -> bool:
    try:
        return path.read_text().strip() == value
    except OSError:
        return False


LOCAL: Final[Sequence[Callable[[], Finding]]] = (jails, controllers, tap_devices, forwarding, page_server, neighbours)
