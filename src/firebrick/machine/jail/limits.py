"""What a machine may take of the host. None is no limit of ours."""

from __future__ import annotations

from dataclasses import dataclass, field

from firebrick.machine.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class IoLimit:
    """For one block device of the host, both directions each."""

    bytes_per_s: int | None = None
    operations_per_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`cpus` are processors' worth of time; `memory_mib` is for the VMM with its guest, and by default what the spec says and `OVERHEAD_MIB` more;
    `processes` counts threads; `io` is by device (`8:0`); `file_bytes` bounds each file the VMM writes, `open_files` its descriptors."""

    cpus: float | None = None
    memory_mib: int | None = None
    processes: int = 128
    io: dict[str, IoLimit] = field(default_factory=dict)
    file_bytes: int | None = None
    open_files: int = 2048

    def __post_init__(self) -> None:
        if self.cpus is not None and self.cpus <= 0:
            raise SpecError(f"cannot give a machine {self.cpus:g} processors", hint="Say more than 0, or None.")
