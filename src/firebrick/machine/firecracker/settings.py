"""Where Firecracker is, and what machines get whose maker says nothing else.

| variable | meaning | default |
|---|---|---|
| `MICROVM_FIRECRACKER_BIN` | the VMM: a path, or a name to look for | `firecracker` |
| `MICROVM_FIRECRACKER_KERNEL` | the kernel of `spec`: an ELF file | none |
| `MICROVM_FIRECRACKER_ROOTFS` | the root image of `spec` | none |
| `MICROVM_FIRECRACKER_SOCKET_DIR` | a directory that gets a link `ID.sock` to the API socket of each running machine | none |
| `MICROVM_FIRECRACKER_STATE_DIR` | the home: machines and caches are below it | Firebrick's home |
| `MICROVM_FIRECRACKER_VCPU` | processors of `spec`, 1 to 32 | 1 |
| `MICROVM_FIRECRACKER_MEM_MIB` | memory of `spec` in MiB, at least 64 | 256 |
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from firebrick.machine.errors import SpecError
from firebrick.machine.spec import MachineSpec

PREFIX: Final = "MICROVM_FIRECRACKER_"
MOST_VCPUS: Final = 32
LEAST_MIB: Final = 64
MOST_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FirecrackerSettings:
    """`binary` and `jailer` are paths, or names to look for; the jailer is looked for beside the binary first. `kernel`, `rootfs`, `vcpus` and
    `memory_mib` are what `spec` starts from."""

    binary: str = "firecracker"
    jailer: str = "jailer"
    kernel: Path | None = None
    rootfs: Path | None = None
    socket_dir: Path | None = None
    state_dir: Path | None = None
    vcpus: int = 1
    memory_mib: int = 256

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> FirecrackerSettings:
        """What the variables above say; an empty one is as if it were not there. Raises SpecError that names the variable."""
        given = os.environ if environment is None else environment
        values = {
            name.removeprefix(PREFIX): value for name, value in given.items() if name.startswith(PREFIX) and value
        }
        binary = values.get("BIN", "firecracker")
        beside = Path(binary).with_name("jailer")
        return cls(
            binary=binary,
            jailer=str(beside) if "/" in binary and beside.exists() else "jailer",
            kernel=_file(values, "KERNEL"),
            rootfs=_file(values, "ROOTFS"),
            socket_dir=_directory(values, "SOCKET_DIR"),
            state_dir=_directory(values, "STATE_DIR"),
            vcpus=_number(values, "VCPU", 1, 1, MOST_VCPUS),
            memory_mib=_number(values, "MEM_MIB", 256, LEAST_MIB, MOST_MIB),
        )

    def spec(self, initrd: Path, **changes: Any) -> MachineSpec:
        """A spec with these settings and `changes`. `initrd` is the agent's initramfs for the kernel. Raises SpecError without a kernel."""
        given: dict[str, Any] = {"kernel": self.kernel, "root": self.rootfs, "vcpus": self.vcpus}
        given |= {"memory_mib": self.memory_mib, "initrd": initrd} | changes
        if given["kernel"] is None:
            raise SpecError("cannot make a machine without a kernel", hint=f"Set {PREFIX}KERNEL to an ELF kernel.")
        return MachineSpec(**given)


def _file(values: Mapping[str, str], name: str) -> Path | None:
    if name not in values:
        return None
    path = Path(values[name]).absolute()
    if not path.is_file():
        raise SpecError(f"{PREFIX}{name} names {path}, and there is no such file", hint="Name a file that exists.")
    return path


def _directory(values: Mapping[str, str], name: str) -> Path | None:
    if name not in values:
        return None
    path = Path(values[name])
    if not path.is_absolute() or (path.exists() and not path.is_dir()):
        raise SpecError(
            f"{PREFIX}{name} is {values[name]!r}, which cannot be a directory",
            hint="Name a directory by its whole path; it is made where it is missing.",
        )
    return path


def _number(values: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = values.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
        raise SpecError(f"{PREFIX}{name} is {text!r}", hint=f"Say a whole number from {least} to {most}.")
    return int(text)
