"""What whoever takes over a machine must know of it beside its spec: `firecracker.json` in the machine's directory."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from firebrick.machine import atomic
from firebrick.machine.errors import HostError
from firebrick.machine.firecracker.disks import Placed

FILE: Final = "firecracker.json"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`tracked`: Firecracker knows which pages it has written. `saves` counts the attempts to save it, `swaps` the images put into its drives."""

    disks: dict[str, Placed]
    tracked: bool
    saves: int = 0
    swaps: int = 0

    def write(self, directory: Path) -> None:
        """In one step: it is there as a whole, or as it was before. Raises HostError."""
        atomic.write(directory / FILE, msgspec.json.encode(self))


def read(directory: Path) -> Record:
    """Raises HostError."""
    try:
        return msgspec.json.decode((directory / FILE).read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError) as error:
        raise HostError(
            f"cannot take over the machine in {directory}: {FILE} is damaged: {error}", hint="Reap it."
        ) from error
