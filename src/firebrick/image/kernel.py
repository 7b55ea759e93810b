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
# What QEMU's microvm needs to find its disks, the agent's channel, the root image and the network. Each costs about 10 ms of boot under
# emulation. The order is that of loading; what they depend on is put before them.
NEEDED: Final = ("virtio_mmio", "virtio_blk", "virtio_console", "squashfs", "overlay", "virtio_net")
# Debian's kernel tests its own cryptography at every boot: 0.25 s of 2 under emulation.
_ARGUMENTS: Final = ("cryptomgr.notests",)
# Raise it when what is made out of a package changes.
_RECIPE: Final = 1

Dependencies = Mapping[str, tuple[str, ...]]


def debian_definition() -> str:
    """What decides what `build_debian_kernel` makes, apart from the version Debian has."""
    return f"debian {_RECIPE} {_SUITE} {_PACKAGE} {' '.join(NEEDED + _ARGUMENTS)}"


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
    chosen = load_order(NEEDED, read_dependencies((directory / "modules.dep").read_text()), _built_in(directory))
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


def load_order(needed: Sequence[str], dependencies: Dependencies, built_in: Iterable[str] = ()) -> list[str]:
    """The files to load for the modules `needed`, each after what it depends on. What is built in needs no file.

    Raises BuildError for a module this kernel does not have."""
    files = {_module_name(file): file for file in dependencies}
    order: dict[str, None] = {}
    for name in needed:
        if name in files:
            order |= dict.fromkeys((*reversed(dependencies[files[name]]), files[name]))
        elif name not in built_in:
            raise BuildError(f"this kernel has no module {name}", hint="Use the kernel of another Debian release.")
    return list(order)


def _module_name(file: str) -> str:
    return Path(file).name.split(".ko", 1)[0].replace("-", "_")


def _built_in(directory: Path) -> set[str]:
    return {_module_name(line) for line in (directory / "modules.builtin").read_text().splitlines()}


def _uncompressed_name(file: str) -> str:
    return Path(file).name.split(".ko", 1)[0] + ".ko"


def _uncompressed(file: Path) -> tuple[str, bytes]:
    content = file.read_bytes()
    return _uncompressed_name(file.name), lzma.decompress(content) if file.suffix == ".xz" else content
