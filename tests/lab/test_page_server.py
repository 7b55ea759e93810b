"""The page server against the real Firecracker: a guest of a hundred bytes whose memory says itself whether it is right."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from firebrick import process
from firebrick.machine.pager import SOCKET, is_list, serving

MEMORY_MIB = 64
HUGE_POOL = Path("/proc/sys/vm/nr_hugepages")
# Each page from 16 to 32 MiB gets its own address. Then for ever: count at 32 MiB, look at all those pages, say "." or, if one is wrong, "!".
GUEST = bytes.fromhex(
    "66baf803 48c7c700000001 48893f 4881c700100000 4881ff00000002 72ed"
    "48ff042500000002 48c7c700000001 b02e 48393f 7402 b021 4881c700100000 4881ff00000002 72e9 ee b00a ee"
    "48c7c1204e0000 48ffc9 75fb ebc6"
)


def write_guest(path: Path) -> None:
    """An ELF file of one segment at 1 MiB."""
    base, head = 0x100000, 64 + 56
    size = head + len(GUEST)
    path.write_bytes(
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + head, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        + struct.pack("<IIQQQQQQ", 1, 7, 0, base, base, size, size, 4096)
        + GUEST
    )


class Bare:
    """A Firecracker in `root`, spoken to as its API says and nothing more."""

    def __init__(self, root: Path, running: process.Process) -> None:
        self._root = root
        self._running = running

    async def ask(self, method: str, path: str, **body: Any) -> None:
        reader, writer = await self._connected()
        data = json.dumps(body).encode()
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        async with asyncio.timeout(30):
            status = await reader.readline()
            assert b" 20" in status, (path, status, await reader.read(1000))
        writer.close()
        await writer.wait_closed()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(20):
            while True:
                try:
                    return await asyncio.open_unix_connection(str(self._root / "api.sock"))
                except (FileNotFoundError, ConnectionRefusedError):
                    assert not self._running.ended
                    await asyncio.sleep(0.005)

    async def rounds(self, count: int, *, cut: bool = False) -> None:
        """Wait until the guest has looked at all its memory so many times. `cut`: the guest may have been saved in the middle of a line."""
        assert self._running.stdout is not None
        async with asyncio.timeout(60):
            for number in range(count):
                line = await self._running.stdout.readline()
                assert line == b".\n" or (cut and number == 0 and line == b"\n")

    def kill(self) -> None:
        self._running.signal(9)


@asynccontextmanager
async def firecracker(program: Path, root: Path) -> AsyncIterator[Bare]:
    socket = root / "api.sock"
    socket.unlink(missing_ok=True)
    argv = [program, "--api-sock", socket.name, "--id", "tiny", "--level", "Error"]
    async with process.spawn(argv, cwd=root, stdout=process.PIPE, grace=0) as running:
        yield Bare(root, running)


@pytest.fixture(params=["None", "2M"])
def pages(request):
    """The size of the guest's pages; the host keeps enough of them as long as the test lasts."""
    before = HUGE_POOL.read_text()
    if request.param == "2M":
        HUGE_POOL.write_text(str(MEMORY_MIB // 2 + 4))
    yield request.param
    HUGE_POOL.write_text(before)


@asynccontextmanager
async def snapshots(program: Path, root: Path, pages: str) -> AsyncIterator[None]:
    """A full one, in s and m, and one of what changed after it, in s2 and m2."""
    write_guest(root / "guest")
    async with firecracker(program, root) as bare:
        await bare.ask("PUT", "/boot-source", kernel_image_path="guest", boot_args="console=ttyS0")
        await bare.ask(
            "PUT", "/machine-config", vcpu_count=1, mem_size_mib=MEMORY_MIB, track_dirty_pages=True, huge_pages=pages
        )
        await bare.ask("PUT", "/actions", action_type="InstanceStart")
        for kind, number in (("Full", ""), ("Diff", "2")):
            await bare.rounds(2)
            await bare.ask("PATCH", "/vm", state="Paused")
            await bare.ask(
                "PUT", "/snapshot/create", snapshot_type=kind, snapshot_path=f"s{number}", mem_file_path=f"m{number}"
            )
            await bare.ask("PATCH", "/vm", state="Resumed")
    yield


async def restored(program: Path, root: Path, state: str, **options: Any) -> None:
    """Restore, let the guest look at its memory twice, kill it: the page server ends with it."""
    async with serving(root, memory=root / "m", **options) as pager, firecracker(program, root) as bare:
        backend = {"backend_type": "Uffd", "backend_path": SOCKET}
        await bare.ask("PUT", "/snapshot/load", snapshot_path=state, mem_backend=backend, resume_vm=True)
        await bare.rounds(3, cut=True)
        if "record" in options:
            assert is_list((await pager.recorded()).read_bytes())
        assert not pager.ended.done()
        bare.kill()
        assert await asyncio.wait_for(pager.ended, 10) is None


async def test_a_guest_restored_through_the_page_server_finds_its_memory(ground, tmp_path, pages):
    async with snapshots(ground.firecracker, tmp_path, pages):
        assert (tmp_path / "m2").stat().st_blocks * 512 < (tmp_path / "m").stat().st_blocks * 512 / 4
        await restored(ground.firecracker, tmp_path, "s")
        await restored(ground.firecracker, tmp_path, "s2", layers=[tmp_path / "m2"])
        await restored(ground.firecracker, tmp_path, "s", record=tmp_path / "prefetch")
        await restored(ground.firecracker, tmp_path, "s", prefetch=tmp_path / "prefetch")
