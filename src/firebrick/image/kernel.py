"""Debian's cloud kernel: fetched by apt, unpacked, and with the few modules a machine needs picked out of it.

vmlinuz         bzImage                 vmlinux             the ELF in it
config          what it was built with  modules/            what the initramfs carries
modules.squashfs                        all modules of this kernel, to be mounted on /lib/modules where more of them are wanted
"""

from __future__ import annotations

import lzma
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from firebrick.image.apt import Apt, debian_sources
from firebrick.image.bzimage import unpack_elf
from firebrick.image.errors import BuildError
from firebrick.image.model import KernelManifest
from firebrick.image.progress import Progress
from firebrick.image.shelf import digest_of
from firebrick.image.squashfs import squash_archive
from firebrick.process import run

# 6.1 reaches user space under emulation 0.8 s before 6.12 does.
_SUITE: Final = "bookworm"
_PACKAGE: Final = "linux-image-cloud-amd64"
# What a machine needs to find its disks and the root image: loaded always, about 10 ms of boot each under emulation.
NEEDED: Final = ("virtio_mmio", "virtio_blk", "squashfs", "overlay")
# What it needs for a virtio device, by the device's number: loaded where it has one.
DRIVERS: Final = {
    "virtio_console": 3,  # the agent's channel under QEMU
    "vmw_vsock_virtio_transport": 19,  # and under Firecracker
    "virtio_net": 1,
    "virtio_rng": 4,
    "virtio_balloon": 5,
}
# Debian's kernel tests its own cryptography at every boot: 0.25 s of 2 under emulation.
_ARGUMENTS: Final = ("cryptomgr.notests",)
# Raise it when what is made out of a package changes.
_RECIPE: Final = 2

Dependencies = Mapping[str, tuple[str, ...]]


def debian_definition() -> str:
    """What decides what `build_debian_kernel` makes, apart from the version Debian has."""
    return f"debian {_RECIPE} {_SUITE} {_PACKAGE} {' '.join(NEEDED + tuple(DRIVERS) + _ARGUMENTS)}"


async def build_debian_kernel(staging: Path, cache: Path, progress: Progress) -> KernelManifest:
    """Fill the empty directory `staging` with the kernel Debian has now. `cache` keeps apt's lists."""
    apt = await Apt.open(cache / "apt" / _SUITE, await debian_sources(_SUITE, ("main",)), progress)
    package, version = _image_package(await apt.show(_PACKAGE))
    work = staging / "work"
    work.mkdir()
    progress.stage(f"Fetching {package}")
    archive = await apt.download(f"{package}={version}", work)
    progress.stage("Unpacking the kernel")
    tree = work / "tree"
    await run(["dpkg-deb", "--extract", archive, tree], timeout=120)
    manifest = await _take(tree, staging, f"{package} {version}")
    progress.stage("Packing its modules")
    await squash_archive(_modules_directory(tree).parent, staging / "modules.squashfs")
    return manifest


def _image_package(fields: Mapping[str, str]) -> tuple[str, str]:
    """The package with the kernel itself, and its version, out of what the one that always names the newest depends on."""
    match = re.search(r"\b(linux-image-[\w.+-]+) \(= ([\w.+:~-]+)\)", fields.get("Depends", ""))
    if match is None:
        raise BuildError(f"the package {_PACKAGE} does not say which kernel it stands for")
    return match[1], match[2]


async def _take(tree: Path, staging: Path, package: str) -> KernelManifest:
    directory = _modules_directory(tree)
    version = directory.name
    (tree / "boot" / f"vmlinuz-{version}").rename(staging / "vmlinuz")
    (tree / "boot" / f"config-{version}").rename(staging / "config")
    (staging / "vmlinux").write_bytes(await unpack_elf(staging / "vmlinuz"))
    await run(["depmod", "-b", tree, version], timeout=120, hint="Install the Debian package kmod.")
    wanted = Wanted(NEEDED, DRIVERS)
    chosen = load_order(wanted, read_dependencies((directory / "modules.dep").read_text()), _built_in(directory))
    (staging / "modules").mkdir()
    for module in chosen:
        name, content = _uncompressed(directory / module)
        (staging / "modules" / name).write_bytes(content)
    return KernelManifest(
        digest=digest_of(staging / "vmlinuz"),
        elf_digest=digest_of(staging / "vmlinux"),
        version=version,
        package=package,
        definition=debian_definition(),
        created=time.time(),
        modules=tuple(_uncompressed_name(module) for module in chosen),
        devices={_uncompressed_name(module): devices for module, devices in chosen.items() if devices},
        args=_ARGUMENTS,
    )


def _modules_directory(tree: Path) -> Path:
    for root in (tree / "lib/modules", tree / "usr/lib/modules"):
        found = list(root.iterdir()) if root.is_dir() else []
        if len(found) == 1:
            return found[0]
    raise BuildError("the kernel package does not have the modules of exactly one kernel")


def read_dependencies(text: str) -> Dependencies:
    """modules.dep: which file needs which others, in the order the file has them (the last is loaded first)."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {module.strip(): tuple(needs.split()) for module, needs in pairs}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Names of modules: those loaded `always`, and `drivers` with the number of the virtio device each is for."""

    always: Sequence[str]
    drivers: Mapping[str, int] = field(default_factory=dict)


def load_order(wanted: Wanted, dependencies: Dependencies, built_in: Iterable[str] = ()) -> dict[str, tuple[int, ...]]:
    """The files to load for the modules `wanted`, each after what it depends on, with the numbers of the devices it is loaded for; no number
    means always. What is built in needs no file.

    Raises BuildError for a module this kernel does not have."""
    files = {_module_name(file): file for file in dependencies}
    order: dict[str, set[int]] = {}
    always: set[str] = set()
    for name in (*wanted.always, *wanted.drivers):
        if name in files:
            chain = (*reversed(dependencies[files[name]]), files[name])
            for file in chain:
                order.setdefault(file, set()).update({wanted.drivers[name]} if name in wanted.drivers else ())
            always.update(chain if name in wanted.always else ())
        elif name not in built_in:
            raise BuildError(f"this kernel has no module {name}", hint="Use the kernel of another Debian release.")
    return {file: () if file in always else tuple(sorted(devices)) for file, devices in order.items()}


def _module_name(file: str) -> str:
    return Path(file).name.split(".ko", 1)[0].replace("-", "_")


def _built_in(directory: Path) -> set[str]:
    return {_module_name(line) for line in (directory / "modules.builtin").read_text().splitlines()}


def _uncompressed_name(file: str) -> str:
    return Path(file).name.split(".ko", 1)[0] + ".ko"


def _uncompressed(file: Path) -> tuple[str, bytes]:
    content = file.read_bytes()
    return _uncompressed_name(file.name), lzma.decompress(content) if file.suffix == ".xz" else content
