"""The records this part hands out. They are what the store has on disk as `manifest.json`, plus where it lies."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One Debian package inside an image, as dpkg knows it."""

    name: str
    version: str
    architecture: str


class ImageManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an image for ever: its files never change, so neither does this.

    `digest` is the SHA-256 of the file system image, `definition` that of what it was made from, `size` is in bytes, `created` in seconds
    since 1970. `tools` are the programs that made it, with their versions."""

    digest: str
    definition: str
    kind: str
    size: int
    created: float
    description: str = ""
    packages: tuple[Package, ...] = ()
    tools: dict[str, str] = {}


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A root image: `path` is a read-only file system that any number of machines may share. Never write to it."""

    name: str
    path: Path
    manifest: ImageManifest

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def size(self) -> int:
        return self.manifest.size


class KernelManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a kernel for ever. `digest` is the SHA-256 of the bzImage, `elf_digest` of the unpacked ELF.

    `modules` are the files in `modules/` that an initramfs loads, in load order; `devices` has the numbers of the virtio devices some of them are
    for, without one of which they are not loaded; `args` is what this kernel needs on its command line."""

    digest: str
    elf_digest: str
    version: str
    package: str
    definition: str
    created: float
    modules: tuple[str, ...] = ()
    devices: dict[str, tuple[int, ...]] = {}
    args: tuple[str, ...] = ()

    def module_lines(self) -> list[str]:
        """The modules as an initramfs lists them: file name, then numbers of devices."""
        return [" ".join((name, *map(str, self.devices.get(name, ())))) for name in self.modules]


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel and the initramfs that goes with it.

    `path` is the bzImage (QEMU), `elf` the unpacked ELF (Firecracker), `initrd` the initramfs with the agent as /init and the modules the
    kernel needs. `digest` names kernel and initramfs together: two kernels with the same digest boot the same bytes. `args` belong on the
    kernel command line; `acpi=off` among them also means that devices must be described there (microvm without ACPI). `modules` is a
    squashfs of all modules of this kernel, for machines that want more of them, or None where there are none."""

    name: str
    path: Path
    elf: Path
    initrd: Path
    digest: str
    manifest: KernelManifest
    modules: Path | None = None

    @property
    def args(self) -> tuple[str, ...]:
        return self.manifest.args

    @property
    def version(self) -> str:
        return self.manifest.version
