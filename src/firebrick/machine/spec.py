"""What a machine is to be: a frozen, validated record every driver starts from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from firebrick.machine.errors import SpecError
from firebrick.machine.network.policy import NOTHING_ALLOWED, Forward, NetworkPolicy


class Network(StrEnum):
    """`NONE`: no device at all. `USER`: outgoing connections through the VMM's user-mode stack, no privileges needed; among what they
    reach, as 10.0.2.2, is all that listens on the host's loopback. `NAMESPACE`: a network namespace of the machine's own, with the spec's
    `policy` between it and everything else; needs root."""

    NONE = "none"
    USER = "user"
    NAMESPACE = "namespace"


class IoEngine(StrEnum):
    """How a VMM reads and writes a disk: `ASYNC` is io_uring."""

    SYNC = "sync"
    ASYNC = "async"


class Cache(StrEnum):
    """What a guest's flush means: `UNSAFE` nothing, `WRITEBACK` that what was written survives the host's power."""

    UNSAFE = "unsafe"
    WRITEBACK = "writeback"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """A token bucket of each kind; None does not limit. A burst may be used once, at the start, beyond the rate."""

    bytes_per_s: int | None = None
    burst_bytes: int = 0
    operations_per_s: int | None = None
    burst_operations: int = 0

    def __post_init__(self) -> None:
        for value in (self.bytes_per_s, self.operations_per_s):
            if value is not None and value < 1:
                raise SpecError(f"cannot limit a rate to {value}", hint="Say at least 1, or None for no limit.")
        if self.burst_bytes < 0 or self.burst_operations < 0:
            raise SpecError("a burst cannot be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Balloon:
    """Memory the guest gives back: `mib` of it from the start. `statistics_s` is how often, in seconds, the guest reports on its memory (0: never)."""

    mib: int = 0
    deflate_on_oom: bool = True
    statistics_s: int = 0
    free_page_reporting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """An extra block device. `format` is raw or qcow2; the guest sees it as a virtio disk with `serial` = `name`."""

    name: str
    path: Path
    format: str = "raw"
    read_only: bool = True
    rate: RateLimit | None = None
    io_engine: IoEngine = IoEngine.SYNC
    cache: Cache = Cache.UNSAFE

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", self.path.absolute())


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """Specification of one machine.

    Sizes are MiB. `kernel`, `initrd` and `root` are files; `root` is a read-only file system image (squashfs, erofs or ext4) shared by
    all machines, over which the guest lays a scratch disk of `scratch_mib`. Without `root` the machine has only the agent's initramfs.

    `policy` counts where `network` is `NAMESPACE`; `network_rate` limits each direction. `cpu_template` is Firecracker's custom template,
    `metadata` what the machine finds at 169.254.169.254. A driver that cannot give what is asked raises SpecError when it is to start the machine.
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
    policy: NetworkPolicy = NOTHING_ALLOWED
    network_rate: RateLimit | None = None
    scratch_rate: RateLimit | None = None
    balloon: Balloon | None = None
    huge_pages: bool = False
    cpu_template: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None
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

    def with_forwards(self, forwards: Iterable[Forward]) -> MachineSpec:
        """With these ports of the host, and no others: each has one machine at a time. Raises SpecError where there is no namespace to forward to."""
        wanted = tuple(forwards)
        if wanted and self.network is not Network.NAMESPACE:
            raise SpecError(
                f"cannot forward port {wanted[0].port} to the machine: it has no network of its own",
                hint="Ask for the network `namespace` when it is launched.",
            )
        return replace(self, policy=replace(self.policy, forwards=wanted))
