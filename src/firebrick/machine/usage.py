"""What a process costs the host."""

from __future__ import annotations

import os
from pathlib import Path

from firebrick.machine.driver import HostUsage


def host_usage(pid: int) -> HostUsage:
    """Zeros where the process has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        sizes = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    except (OSError, ValueError):
        return HostUsage(0.0, 0, 0)
    kib = {name: int(value.split()[0]) for name, value in sizes.items()}
    ticks = int(fields[11]) + int(fields[12])
    return HostUsage(
        cpu_s=ticks / os.sysconf("SC_CLK_TCK"),
        resident_bytes=kib["Rss"] << 10,
        private_bytes=(kib["Private_Clean"] + kib["Private_Dirty"]) << 10,
    )
