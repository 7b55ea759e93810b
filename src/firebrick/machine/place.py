"""Where a machine is, and what runs it: what every way to one begins with."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.guest.client import Identity
from firebrick.home import Home
from firebrick.machine import owner
from firebrick.machine.driver import Driver
from firebrick.machine.errors import MachineError, SpecError
from firebrick.machine.spec import MachineSpec

_LONGEST_NAME: Final = 64
_LONGEST_ID: Final = 40  # of a directory somebody has named
_NOT_OF_NAMES: Final = re.compile(r"[^A-Za-z0-9.-]")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a machine is: its driver, the home, its own directory; whether it outlives this process."""

    driver: Driver
    home: Path
    directory: Path
    detached: bool

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    def fresh_identity(self, spec: MachineSpec, hostname: str | None) -> Identity:
        """With this host name; without one, that of the specification and the machine's id. Raises SpecError for a name the agent would refuse."""
        own = _NOT_OF_NAMES.sub("-", self.directory.name)[-_LONGEST_ID:]
        return Identity.fresh(checked_name(hostname or f"{spec.hostname}-{own}"))


def checked_name(hostname: str) -> str:
    """The host name. Raises SpecError for one the agent would refuse, and hang up."""
    if hostname and len(hostname) <= _LONGEST_NAME and not _NOT_OF_NAMES.search(hostname):
        return hostname
    raise SpecError(
        f"cannot call a machine {hostname!r}",
        hint=f"A host name is letters, digits, - and ., at most {_LONGEST_NAME}; that of a specification has its machine's id behind it.",
    )


def choose(driver: str | Driver, home: Path | None) -> tuple[Driver, Path]:
    """The driver of this name, and where it keeps its things. Raises MachineError for a name nobody has."""
    if driver == "firecracker":
        from firebrick.machine.firecracker import Firecracker, FirecrackerSettings  # no driver waits for the others

        settings = FirecrackerSettings.from_environment()
        home = home or settings.state_dir or Home.find().root
        return Firecracker(home / "cache", settings), home
    home = home or Home.find().root
    if not isinstance(driver, str):
        return driver, home
    if driver in ("auto", "qemu"):
        from firebrick.machine.qemu import Qemu

        return Qemu(home / "cache"), home
    if driver == "fake":
        from firebrick.machine.fake import Fake

        return Fake(), home
    raise MachineError(f"there is no driver {driver!r}", hint="Say auto, qemu, firecracker or fake.")


def own_directory(directory: Path | None, home: Path) -> AbstractContextManager[Path]:
    """A machine's directory as long as the context: this one, which must not exist, or one with a new id in the home."""
    id = owner.new_id() if directory is None else directory.name  # noqa: A001
    return owner.claimed(directory or home / "machines" / id, id)
