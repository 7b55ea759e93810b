"""What a machine may take of the host. None is no limit of ours."""

from __future__ import annotations

from dataclasses import dataclass, field

from firebrick.machine.errors import SpecError
from firebrick.machine.spec import MachineSpec

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class IoLimit:
    """For one block device of the host, both directions each."""

    bytes_per_s: int | None = None
    operations_per_s: int | None = None

    def __post_init__(self) -> None:
        if any(value is not None and value < 1 for value in (self.bytes_per_s, self.operations_per_s)):
            raise SpecError("cannot limit a device to less than one byte or operation a second")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`cpus` are processors' worth of time; `memory_mib` is for the VMM with its guest, and by default what the spec says and what the VMM
    needs itself; `processes` counts threads; `io` is by device (`8:0`); `file_bytes` bounds each file the VMM writes, by default to
    what a full disk or a memory file of the spec takes; `open_files` its descriptors."""

    cpus: float | None = None
    memory_mib: int | None = None
    processes: int = 128
    io: dict[str, IoLimit] = field(default_factory=dict)
    file_bytes: int | None = None
    open_files: int = 2048

    def __post_init__(self) -> None:
        if self.cpus is not None and self.cpus <= 0:
            raise SpecError(f"cannot give a machine {self.cpus:g} processors", hint="Say more than 0, or None.")
        for name in ("memory_mib", "processes", "file_bytes", "open_files"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SpecError(f"cannot limit {name} to {value}", hint="Say at least 1.")

    def memory_bytes(self, spec: MachineSpec, overhead_mib: int) -> int:
        """For the VMM with its guest; `overhead_mib` is what the VMM itself needs at most."""
        mib = spec.memory_mib + overhead_mib if self.memory_mib is None else self.memory_mib
        return mib * _MIB

    def longest_file(self, spec: MachineSpec) -> int:
        """Bytes. A scratch disk has up to a sixteenth more in its format."""
        if self.file_bytes is not None:
            return self.file_bytes
        disks = [drive.path.stat().st_size for drive in spec.drives if not drive.read_only and drive.path.exists()]
        return max(spec.memory_mib * _MIB, spec.scratch_mib * _MIB * 17 // 16, *disks, 0) + 64 * _MIB
