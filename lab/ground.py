"""What tests with Firecracker stand on: files, the same in the lab and on a host with KVM, found through the environment.

Imported by every test there: it imports nothing that takes long."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PREFIX: Final = "FIREBRICK_LAB_"


class NoGroundError(Exception):
    """The environment does not say where things are: this is no lab."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """`kernel` is the ELF Firecracker starts, `initrd` has the agent as /init, `root` is a squashfs for the machines; `kernel_args` belong on
    the kernel's command line."""

    firecracker: Path
    jailer: Path
    kernel: Path
    initrd: Path
    root: Path
    kernel_args: tuple[str, ...] = ()

    def environment(self) -> dict[str, str]:
        files = {_PREFIX + name.upper(): str(getattr(self, name)) for name in _FILES}
        return {**files, _PREFIX + "KERNEL_ARGS": " ".join(self.kernel_args)}

    @classmethod
    def find(cls, environment: Mapping[str, str] = os.environ) -> Ground:
        """As the environment says. Raises NoGroundError."""
        try:
            files = {name: Path(environment[_PREFIX + name.upper()]) for name in _FILES}
        except KeyError as error:
            raise NoGroundError(f"{error.args[0]} is not set: start these tests with `tools/lab`") from None
        return cls(**files, kernel_args=tuple(environment.get(_PREFIX + "KERNEL_ARGS", "").split()))


_FILES: Final = ("firecracker", "jailer", "kernel", "initrd", "root")
