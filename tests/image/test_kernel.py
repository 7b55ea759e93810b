"""The kernels of this host (`make setup` has made one): what is in the store, and that it boots and finds what a machine has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from firebrick.home import Home
from firebrick.image import ImageStore, Kernel
from firebrick.image.initramfs import AGENT
from firebrick.machine.tsc import rate_khz
from firebrick.process import run
from tests.place import make_home

KERNELS = sorted(ImageStore(Home.find()).list_kernels()) or ["debian"]
BOOT_LIMIT_S = 60


@pytest.fixture
def full(tmp_path: Path) -> Home:
    return make_home(tmp_path / "full")


@pytest.fixture(params=KERNELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_bzimage_elf_and_modules_belong_together(full: Home, name: str):
    kernel = await ImageStore(full).ensure_kernel(name)
    manifest = kernel.manifest
    assert b"HdrS" in kernel.path.read_bytes()[:0x210]
    elf = kernel.elf.read_bytes()
    assert elf.startswith(b"\x7fELF")
    assert f"Linux version {manifest.version} ".encode() in elf
    modules = kernel.path.parent / "modules"
    loaded: set[str] = set()
    for module in manifest.modules:
        info = (await run(["modinfo", "-F", "depends", modules / module])).text.strip()
        needs = {need for need in info.split(",") if need}
        assert needs <= loaded
        devices = set(manifest.devices.get(module, ()))
        for need in needs:  # where a module is loaded, what it needs is
            of_need = set(manifest.devices.get(f"{need}.ko", ()))
            assert not of_need or (devices and devices <= of_need)
        assert (await run(["modinfo", "-F", "vermagic", modules / module])).text.startswith(manifest.version)
        loaded.add(module.removesuffix(".ko").replace("-", "_"))
    listing = json.loads((kernel.path.parent / "manifest.json").read_text())
    assert listing["package"].startswith("linux-")


async def test_the_initramfs_is_a_cpio_archive_with_the_agent(full: Home):
    kernel = await ImageStore(full).ensure_kernel()
    listing = (
        await run(["cpio", "--list", "--verbose", "--numeric-uid-gid", "--quiet"], input=kernel.initrd.read_bytes())
    ).text
    rows = {line.split()[-1]: line.split() for line in listing.splitlines()}
    assert rows["init"][0] == "-rwxr-xr-x"
    assert int(rows["init"][4]) == AGENT.stat().st_size
    assert set(rows) >= {"dev", "proc", "sys", "root", "scratch", "modules", "lib/virtio_blk.ko", "lib/squashfs.ko"}
    assert all(row[2:4] == ["0", "0"] for row in rows.values())


async def test_all_modules_are_there_for_who_wants_more(full: Home):
    kernel = await ImageStore(full).ensure_kernel()
    assert kernel.modules is not None
    listing = (await run(["unsquashfs", "-l", kernel.modules], limit=1 << 20)).text
    for module in ("fuse", "nf_tables", "erofs", "kvm-amd"):
        assert f"/{module}.ko" in listing
    assert f"squashfs-root/{kernel.version}/modules.dep" in listing


@pytest.mark.machine
async def test_it_boots_and_finds_disk_root_and_network(full: Home, name: str, tmp_path: Path):
    program = tmp_path / "init"
    source = Path(__file__).with_name("init.c")
    await run(["gcc", "-static", "-Os", "-Wall", "-Werror", "-o", program, source])
    kernel = await ImageStore(full, agent=program).ensure_kernel(name)
    said = await boot(kernel, full.images / "names" / "base" / "root.squashfs")
    assert "failed" not in said
    assert f"kernel: {kernel.version}" in said
    assert 'root: PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"' in said
    assert "serial: root" in said
    assert "net: eth0" in said


async def boot(kernel: Kernel, root: Path) -> str:
    """Run a machine under emulation until it ends; what it wrote to its console."""
    machine = "microvm,acpi=off" if "acpi=off" in kernel.args else "microvm"
    argv = [
        "qemu-system-x86_64", "-M", machine, "-accel", "tcg", "-cpu", "max", "-m", "256", "-nodefaults", "-no-user-config",
        "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", kernel.path, "-initrd", kernel.initrd,
        "-append", " ".join(["console=ttyS0 quiet reboot=t panic=-1", f"tsc_early_khz={rate_khz()}", *kernel.args]),
        "-drive", f"if=none,id=root,file={root},format=raw,readonly=on", "-device", "virtio-blk-device,drive=root,serial=root",
        "-netdev", "user,id=net,restrict=on", "-device", "virtio-net-device,netdev=net",
    ]  # fmt: skip
    return (await run(argv, timeout=BOOT_LIMIT_S)).text
