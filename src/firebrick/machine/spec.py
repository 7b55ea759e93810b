"""What a machine is to be: a frozen, validated record every driver starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from firebrick.machine.errors import SpecError


class Network(StrEnum):
    """`NONE`: no device at all. `USER`: outgoing connections through the VMM's user-mode stack, no privileges needed; among what they
    reach, as 10.0.2.2, is all that listens on the host's loopback."""

    NONE = "none"
    USER = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """An extra block device. `format` is raw or qcow2; the guest sees it as a virtio disk with `serial` = `name`."""

    name: str
    path: Path
    format: str = "raw"
    read_only: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", self.path.absolute())


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """Specification of one machine.

    Sizes are MiB. `kernel`, `initrd` and `root` are files; `root` is a read-only file system image (squashfs, erofs or ext4) shared by
    all machines, over which the guest lays a scratch disk of `scratch_mib`. Without `root` the machine has only the agent's initramfs.
    """

    kernel: Path
    initrd: Path
    root: Path | None = None
    vcpus: int = 1
    memory_mib: int = 256
    scratch_mib: int = 1024
    drives: tuple[Drive, ...] = ()
    kernel_args: tuple[str, ...] = ()
    network: Network = Network.NONE
    nested: bool = False
    hostname: str = "firebrick"
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.vcpus <= 64:
            raise SpecError(f"cannot make a machine with {self.vcpus} vcpus", hint="Ask for 1 to 64.")
        if not 64 <= self.memory_mib <= 1 << 20:
            raise SpecError(
                f"cannot make a machine with {self.memory_mib} MiB of memory", hint="Ask for 64 MiB to 1 TiB."
            )
        if not 16 <= self.scratch_mib <= 1 << 24:
            raise SpecError(f"cannot make a scratch disk of {self.scratch_mib} MiB", hint="Ask for 16 MiB to 16 TiB.")
        for name in ("kernel", "initrd", "root"):  # a snapshot keeps them, and is read from other directories
            path = getattr(self, name)
            object.__setattr__(self, name, path and path.absolute())
