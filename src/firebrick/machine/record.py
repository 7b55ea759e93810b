"""What a process must know of a machine it has not started: `machine.json`, in the directory of each machine that may outlive its owner.

The file appears when the machine has got its identity, and says what that is: whoever adopts the machine gives it the same names again. A machine
that was being started when its owner died has no such file, is nobody's and nobody's to adopt, and is reaped.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from firebrick.guest.client import Identity
from firebrick.machine import atomic
from firebrick.machine.errors import AdoptionError
from firebrick.machine.manifest import decode, encode
from firebrick.machine.owner import ADOPTABLE
from firebrick.machine.spec import MachineSpec


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`origin` is the snapshot the machine was restored from, where that was kept."""

    driver: str
    spec: MachineSpec
    hostname: str
    machine_id: str
    origin: Path | None

    def identity(self) -> Identity:
        """The names it has, with new entropy and the time of now."""
        return Identity.fresh(self.hostname, machine_id=self.machine_id)


def write(directory: Path, record: Record) -> None:
    """In one step: it is there as a whole, or as it was before. Raises HostError."""
    atomic.write(directory / ADOPTABLE, msgspec.json.encode(record, enc_hook=encode))


def read(directory: Path) -> Record:
    """Raises AdoptionError where the machine was not made to be adopted."""
    try:
        return msgspec.json.decode((directory / ADOPTABLE).read_bytes(), type=Record, dec_hook=decode)
    except FileNotFoundError as error:
        raise AdoptionError(
            f"cannot take over the machine in {directory}: it was not made to outlive its process",
            hint="Start machines that shall with `detached=True`.",
        ) from error
    except (OSError, msgspec.MsgspecError) as error:
        raise AdoptionError(
            f"cannot take over the machine in {directory}: {ADOPTABLE} is damaged: {error}", hint="Reap it."
        ) from error
