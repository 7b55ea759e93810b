"""What Firecracker, or the release at hand, cannot give a machine: each a sentence. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from firebrick.machine.errors import SpecError
from firebrick.machine.firecracker.settings import MOST_VCPUS
from firebrick.machine.firecracker.version import Feature, Version
from firebrick.machine.spec import Balloon, Drive, MachineSpec, Network

_MOST_COMMAND_LINE: Final = 2048
_PER_DEVICE: Final = 40  # what Firecracker itself may add for each
_DEVICES: Final = 6
_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def check(spec: MachineSpec, version: Version, command_line: str) -> None:
    """Raises SpecError for what Firecracker of this version cannot be asked."""
    version.require(Feature.OLDEST)
    _check_size(spec)
    _check_drives(spec.drives)
    _check_network(spec)
    if spec.nested:
        raise SpecError("cannot make the machine: Firecracker has no nested virtualisation", hint="QEMU has it.")
    if spec.balloon is not None:
        _check_balloon(spec, spec.balloon, version)
    room = _MOST_COMMAND_LINE - _PER_DEVICE * (_DEVICES + len(spec.drives))
    if len(command_line) > room:
        raise SpecError(f"cannot make the machine: its kernel's command line has more than {room} bytes")


def _check_size(spec: MachineSpec) -> None:
    if spec.vcpus > MOST_VCPUS:
        raise SpecError(
            f"cannot make a machine with {spec.vcpus} vcpus under Firecracker", hint=f"Ask for 1 to {MOST_VCPUS}."
        )
    if spec.huge_pages and spec.memory_mib % 2:
        raise SpecError(f"cannot make {spec.memory_mib} MiB of memory of huge pages", hint="Ask for an even number.")


def _check_drives(drives: Sequence[Drive]) -> None:
    names = ["root", "scratch", *(drive.name for drive in drives)]
    if len(set(names)) != len(names):
        raise SpecError(
            "cannot make the machine: two drives have the same name", hint="`root` and `scratch` are taken."
        )
    for drive in drives:
        if not drive.name or not set(drive.name) <= _LETTERS:
            raise SpecError(f"cannot name a drive {drive.name!r}", hint="Use letters, digits, `.`, `_` and `-`.")
        if drive.format != "raw":
            raise SpecError(
                f"cannot give the machine the drive {drive.name}: Firecracker reads raw images, not {drive.format}",
                hint="Convert it: qemu-img convert -O raw.",
            )


def _check_network(spec: MachineSpec) -> None:
    if spec.network is Network.USER:
        raise SpecError(
            "cannot give the machine a user-mode network: Firecracker has none",
            hint="Say Network.NAMESPACE, which needs root, or Network.NONE.",
        )
    if spec.network is Network.NONE and spec.metadata is not None:
        raise SpecError(
            "cannot give metadata to a machine without a network: it is read over one", hint="Say Network.NAMESPACE."
        )


def _check_balloon(spec: MachineSpec, balloon: Balloon, version: Version) -> None:
    if spec.huge_pages:
        raise SpecError("cannot give a machine of huge pages a balloon: it gives nothing back")
    if not 0 <= balloon.mib <= spec.memory_mib:
        raise SpecError(f"cannot make a balloon of {balloon.mib} MiB in a machine of {spec.memory_mib} MiB")
    if balloon.free_page_reporting:
        version.require(Feature.FREE_PAGE_REPORTING)
