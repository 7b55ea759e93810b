"""What each release of Firecracker can do, and where it is known to go wrong. Pure.

Its API promises that what a release takes later ones of the same major number take too, so a feature has a first release and no last one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from firebrick.machine.errors import HostError, SpecError

_PATTERN: Final = re.compile(r"v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})(-[0-9A-Za-z.-]{1,40})?")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A release. `suffix` is that of a build between releases (`-dev`), and counts for nothing."""

    major: int
    minor: int
    patch: int = 0
    suffix: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> Version:
        """Of `1.12.1` or `v1.12.1`. Raises HostError."""
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise HostError(f"cannot tell the version of Firecracker from {text[:80]!r}")
        return cls(int(match[1]), int(match[2]), int(match[3]), match[4] or "")

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}{self.suffix}"

    def has(self, feature: Feature) -> bool:
        return self >= feature.since

    def require(self, feature: Feature) -> None:
        """Raises SpecError, which names the release that is needed, where this one is older."""
        if not self.has(feature):
            needed = f"{feature.since.major}.{feature.since.minor}"
            raise SpecError(
                f"cannot give the machine {feature.words}: Firecracker {self} does not have it, {needed} is the first that does",
                hint=f"Install Firecracker {needed} or newer, or do without.",
            )

    def goes_wrong(self, fault: Fault) -> bool:
        return fault.since <= self < fault.until

    @property
    def snapshot_format(self) -> int | None:
        """The major number of the snapshots it writes, the only ones it reads; None where it is not known here."""
        return _FORMATS.get((self.major, self.minor))


class Feature(Enum):
    """What a spec or a caller may wish for that not every release has: the first release, and the wish in words."""

    OLDEST = (Version(1, 12), "any machine")
    NETWORK_OVERRIDES = (Version(1, 12), "another tap than its snapshot had")
    TRACK_ON_LOAD = (Version(1, 13), "dirty page tracking under its new name")
    UNTRACKED_DIFF = (Version(1, 13), "a diff snapshot without dirty page tracking")
    IMDS_COMPATIBLE = (Version(1, 13), "a metadata service as EC2 has it")
    PCI = (Version(1, 13), "devices on PCI")
    SERIAL_PATH = (Version(1, 14), "a file for its serial console")
    FREE_PAGE_REPORTING = (Version(1, 14), "a balloon with free page reporting")
    FREE_PAGE_HINTING = (Version(1, 14), "a balloon with free page hinting")
    PMEM = (Version(1, 14), "persistent memory")
    MEMORY_HOTPLUG = (Version(1, 14), "memory that can be plugged in")
    VSOCK_OVERRIDE = (Version(1, 16), "another vsock socket than its snapshot had")
    CLOCK_REALTIME = (Version(1, 16), "a clock that goes on from its snapshot by the time that has passed")
    SERIAL_RATE = (Version(1, 16), "a rate limit on its serial console")
    MTU = (Version(1, 16), "an MTU of its own")

    @property
    def since(self) -> Version:
        return self.value[0]

    @property
    def words(self) -> str:
        return self.value[1]


class Fault(Enum):
    """What is known to be broken: the first release that has it, the first that does not, and what happens."""

    LOST_FIRST_CONNECTION = (Version(1, 0), Version(1, 16), "the first connection after a restore may be lost")
    DAMAGED_LARGE_DIFF = (Version(1, 0), Version(1, 15), "diff snapshots of more than 3 GiB of memory are damaged")
    DEAF_AFTER_PAUSE = (Version(1, 16), Version(1, 16, 2), "nothing reaches the guest after a pause without a snapshot")
    LOG_MUST_EXIST = (Version(1, 0), Version(1, 14), "files for log and metrics are not made")

    @property
    def since(self) -> Version:
        return self.value[0]

    @property
    def until(self) -> Version:
        return self.value[1]

    @property
    def words(self) -> str:
        return self.value[2]


_FORMATS: Final = {(1, 12): 6, (1, 13): 8, (1, 14): 8, (1, 15): 9, (1, 16): 10, (1, 17): 11}
