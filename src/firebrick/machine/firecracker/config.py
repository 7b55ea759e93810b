"""A machine as the requests that make it, in their order. Pure.

Every name of a file is relative to the room the VMM is in: the devices of a snapshot remember the names they were made with, and each of its clones finds its
own files by them. The resources are named alike in all machines for the same reason."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from firebrick.machine.errors import SpecError
from firebrick.machine.firecracker import wishes
from firebrick.machine.firecracker.version import Feature, Version
from firebrick.machine.owner import process_name
from firebrick.machine.spec import Balloon, Cache, Drive, IoEngine, MachineSpec, Network, RateLimit

API_SOCKET: Final = "api.sock"
VSOCK_SOCKET: Final = "v.sock"
CONSOLE: Final = "console.fifo"
COMPLAINTS: Final = "errors.fifo"
LOG: Final = "log.fifo"
METRICS: Final = "metrics.fifo"
KERNEL: Final = "vmlinux"
INITRD: Final = "initrd"
ROOT: Final = "root.img"
SCRATCH: Final = "scratch.img"
STATE: Final = "state"
MEMORY: Final = "memory"

IFACE: Final = "eth0"
TAP: Final = "tap0"
GUEST_MAC: Final = "52:54:00:12:34:56"
GUEST_CID: Final = 3
METADATA_ADDRESS: Final = "169.254.169.254"
MOST_METADATA: Final = 51_200

# No `acpi=off`: devices and the generation that tells a guest it was restored are described there. Everything a keyboard controller is asked for at
# boot but the one reset takes time.
_KERNEL_ARGS: Final = (
    *("console=ttyS0", "quiet", "reboot=k", "panic=-1", "swiotlb=noforce"),
    *("i8042.noaux", "i8042.nomux", "i8042.dumbkbd"),
)
_REFILL_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    body: Mapping[str, Any]


class Backend(StrEnum):
    """Where the memory of a restored machine comes from: a private mapping of the file, or a server that is asked for each page."""

    FILE = "File"
    UFFD = "Uffd"


class SnapshotType(StrEnum):
    FULL = "Full"
    DIFF = "Diff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How a snapshot is loaded. `memory` is the file, or the page server's socket. What is None is as it was when the snapshot was taken."""

    backend: Backend = Backend.FILE
    memory: str = MEMORY
    resume: bool = True
    track_dirty_pages: bool = False
    taps: Mapping[str, str] | None = None
    vsock_socket: str | None = None
    clock_realtime: bool | None = None


def arguments() -> list[str]:
    """The VMM's, without the program and without `--id`, which is the room's to give. Log and metrics are on from the first moment."""
    return [
        *("--api-sock", API_SOCKET),
        *("--log-path", LOG, "--level", "Info", "--show-level"),
        *("--metrics-path", METRICS),
    ]


def instance_id(machine: str) -> str:
    """What Firecracker is told it is called: letters, digits and hyphens, 64 at most. So that `reap` finds it, as it finds every VMM."""
    name = process_name("".join(c if c.isascii() and c.isalnum() else "-" for c in machine))
    return name if len(name) <= 64 else name[:31] + "-" + hashlib.sha256(machine.encode()).hexdigest()[:32]


def check(spec: MachineSpec, version: Version) -> None:
    """Raises SpecError for what Firecracker of this version cannot be asked."""
    wishes.check(spec, version, command_line(spec))
    if spec.metadata is not None:
        metadata(spec.metadata)


def boot(spec: MachineSpec, version: Version, *, track_dirty_pages: bool = False) -> list[Request]:
    """Everything from nothing to a running machine. Raises SpecError."""
    check(spec, version)
    return [
        _machine(spec, track_dirty_pages),
        *([Request("PUT", "/cpu-config", spec.cpu_template)] if spec.cpu_template is not None else []),
        _boot_source(spec),
        *(_drive(drive_id, name, drive) for drive_id, name, drive in _disks(spec)),
        *_network(spec),
        Request("PUT", "/vsock", {"guest_cid": GUEST_CID, "uds_path": VSOCK_SOCKET}),
        Request("PUT", "/entropy", {}),
        *([_balloon(spec.balloon)] if spec.balloon is not None else []),
        *([metadata_config(), metadata(spec.metadata)] if spec.metadata is not None else []),
        action("InstanceStart"),
    ]


def command_line(spec: MachineSpec) -> str:
    """The guest's. Disks of Firecracker have no names a guest could read: they are told in their order."""
    names = [*(["root"] if spec.root is not None else []), "scratch", *(drive.name for drive in spec.drives)]
    return " ".join((*_KERNEL_ARGS, f"firebrick.disks={','.join(names)}", *spec.kernel_args))


def drive_id(spec: MachineSpec, name: str) -> str:
    """What Firecracker calls the drive `name`. Raises SpecError where the machine has none of that name."""
    known = {"scratch": "scratch"} | ({"root": "root"} if spec.root is not None else {})
    known |= {drive.name: f"drive{index}" for index, drive in enumerate(spec.drives)}
    if name not in known:
        raise SpecError(f"the machine has no drive {name!r}")
    return known[name]


def drive_file(drive_id: str) -> str:
    """The name of a drive's file in the room."""
    return f"{drive_id}.img"


def update_drive(drive_id: str, *, file: str | None = None, rate: RateLimit | None = None) -> Request:
    """Point a drive of a running machine to another file, or its limits to others: a limit that is None is taken away."""
    body: dict[str, Any] = {"drive_id": drive_id}
    if file is not None:
        body["path_on_host"] = file
    if rate is not None:
        body["rate_limiter"] = _limiter(rate, whole=True)
    return Request("PATCH", f"/drives/{drive_id}", body)


def update_network(rate: RateLimit) -> Request:
    limiter = _limiter(rate, whole=True)
    body = {"iface_id": IFACE, "rx_rate_limiter": limiter, "tx_rate_limiter": limiter}
    return Request("PATCH", f"/network-interfaces/{IFACE}", body)


def metadata_config() -> Request:
    body = {"version": "V2", "network_interfaces": [IFACE], "ipv4_address": METADATA_ADDRESS}
    return Request("PUT", "/mmds/config", body)


def metadata(data: Mapping[str, Any]) -> Request:
    """Raises SpecError for what is more than Firecracker takes."""
    if len(msgspec.json.encode(data)) > MOST_METADATA:
        raise SpecError(f"cannot give the machine more than {MOST_METADATA} bytes of metadata")
    return Request("PUT", "/mmds", data)


def serial(path: str, version: Version, *, rate: RateLimit | None = None) -> Request:
    """Send the serial console to a file of the room instead of standard output. Raises SpecError where the version cannot."""
    version.require(Feature.SERIAL_PATH)
    body: dict[str, Any] = {"serial_out_path": path}
    if rate is not None and rate.bytes_per_s is not None:
        version.require(Feature.SERIAL_RATE)
        body["rate_limiter"] = _bucket(rate.bytes_per_s, rate.burst_bytes)
    return Request("PUT", "/serial", body)


def action(name: str) -> Request:
    return Request("PUT", "/actions", {"action_type": name})


def vm_state(*, paused: bool) -> Request:
    return Request("PATCH", "/vm", {"state": "Paused" if paused else "Resumed"})


def create_snapshot(kind: SnapshotType, directory: str) -> Request:
    body = {
        "snapshot_type": kind.value,
        "snapshot_path": f"{directory}/{STATE}",
        "mem_file_path": f"{directory}/{MEMORY}",
    }
    return Request("PUT", "/snapshot/create", body)


def load_snapshot(load: Load, version: Version) -> Request:
    """Raises SpecError for what this version cannot load a snapshot with."""
    body: dict[str, Any] = {
        "snapshot_path": STATE,
        "mem_backend": {"backend_type": load.backend.value, "backend_path": load.memory},
        "resume_vm": load.resume,
    }
    if load.track_dirty_pages:
        body["track_dirty_pages" if version.has(Feature.TRACK_ON_LOAD) else "enable_diff_snapshots"] = True
    if load.taps:
        version.require(Feature.NETWORK_OVERRIDES)
        body["network_overrides"] = [{"iface_id": iface, "host_dev_name": tap} for iface, tap in load.taps.items()]
    if load.vsock_socket is not None:
        version.require(Feature.VSOCK_OVERRIDE)
        body["vsock_override"] = {"uds_path": load.vsock_socket}
    if load.clock_realtime is not None:
        version.require(Feature.CLOCK_REALTIME)
        body["clock_realtime"] = load.clock_realtime
    return Request("PUT", "/snapshot/load", body)


def template_digest(spec: MachineSpec) -> str:
    """Of the CPU template, or `none`."""
    if spec.cpu_template is None:
        return "none"
    return hashlib.sha256(msgspec.json.encode(spec.cpu_template, order="deterministic")).hexdigest()[:16]


# --- the parts ---


def _machine(spec: MachineSpec, track_dirty_pages: bool) -> Request:
    body = {
        "vcpu_count": spec.vcpus,
        "mem_size_mib": spec.memory_mib,
        "smt": False,
        "track_dirty_pages": track_dirty_pages,
        "huge_pages": "2M" if spec.huge_pages else "None",
    }
    return Request("PUT", "/machine-config", body)


def _boot_source(spec: MachineSpec) -> Request:
    body = {"kernel_image_path": KERNEL, "initrd_path": INITRD, "boot_args": command_line(spec)}
    return Request("PUT", "/boot-source", body)


def _disks(spec: MachineSpec) -> list[tuple[str, str, Drive]]:
    """In the order the guest finds them in: id, file in the room, properties."""
    disks = [Drive(name="scratch", path=spec.kernel, read_only=False, rate=spec.scratch_rate), *spec.drives]
    if spec.root is not None:
        disks.insert(0, Drive(name="root", path=spec.root))
    ids = [drive_id(spec, disk.name) for disk in disks]
    return [(id, drive_file(id), disk) for id, disk in zip(ids, disks, strict=True)]  # noqa: A001


def _drive(id: str, file: str, drive: Drive) -> Request:  # noqa: A002 - the API's word
    body: dict[str, Any] = {
        "drive_id": id,
        "path_on_host": file,
        "is_root_device": False,
        "is_read_only": drive.read_only,
        "cache_type": "Writeback" if drive.cache is Cache.WRITEBACK else "Unsafe",
        "io_engine": "Async" if drive.io_engine is IoEngine.ASYNC else "Sync",
    }
    if drive.rate is not None:
        body["rate_limiter"] = _limiter(drive.rate)
    return Request("PUT", f"/drives/{id}", body)


def _network(spec: MachineSpec) -> list[Request]:
    if spec.network is Network.NONE:
        return []
    body: dict[str, Any] = {"iface_id": IFACE, "host_dev_name": TAP, "guest_mac": GUEST_MAC}
    if spec.network_rate is not None:
        limiter = _limiter(spec.network_rate)
        body |= {"rx_rate_limiter": limiter, "tx_rate_limiter": limiter}
    return [Request("PUT", f"/network-interfaces/{IFACE}", body)]


def _balloon(balloon: Balloon) -> Request:
    body: dict[str, Any] = {
        "amount_mib": balloon.mib,
        "deflate_on_oom": balloon.deflate_on_oom,
        "stats_polling_interval_s": balloon.statistics_s,
    }
    if balloon.free_page_reporting:
        body["free_page_reporting"] = True
    return Request("PUT", "/balloon", body)


def _limiter(rate: RateLimit, *, whole: bool = False) -> dict[str, Any]:
    """`whole`: also say what is not limited, as a bucket of size 0; without, an update leaves it as it was."""
    limiter = {}
    if rate.bytes_per_s is not None or whole:
        limiter["bandwidth"] = _bucket(rate.bytes_per_s, rate.burst_bytes)
    if rate.operations_per_s is not None or whole:
        limiter["ops"] = _bucket(rate.operations_per_s, rate.burst_operations)
    return limiter


def _bucket(per_s: int | None, burst: int) -> dict[str, int]:
    if per_s is None:
        return {"size": 0, "refill_time": 0}
    bucket = {"size": per_s, "refill_time": _REFILL_MS}
    return bucket | ({"one_time_burst": burst} if burst else {})
