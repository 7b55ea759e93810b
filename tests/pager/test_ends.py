"""Whatever the other side says or whoever is killed: it ends, with a sentence, and nothing hangs or is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from firebrick.machine.errors import HostError, SnapshotError
from firebrick.machine.pager import PROGRAM, SOCKET, serving
from firebrick.machine.seat import Seat
from tests.pager.player import PAGE, machine, near
from tests.pager.test_serving import digests, served


def mapping(**changes):
    fields = {"base_host_virt_addr": 1 << 40, "size": 16 * PAGE, "offset": 0, "page_size": PAGE, "page_size_kib": PAGE}
    return fields | changes


BAD = {
    "garbage": ("\x00\xff nonsense", "not a list of mappings"),
    "not a list": (json.dumps(mapping()), "not a list of mappings"),
    "nothing in it": ("[]", "0 mappings"),
    "beyond the file": (json.dumps([mapping(size=257 * PAGE)]), "beyond the memory file"),
    "offset beyond": (json.dumps([mapping(offset=1 << 62)]), "beyond the memory file"),
    "wraps around": (json.dumps([mapping(base_host_virt_addr=(1 << 64) - PAGE)]), "where no program has memory"),
    "huge size": (json.dumps([mapping(size=(1 << 64) - PAGE)]), "beyond the memory file"),
    "no number": (json.dumps([mapping(size=1 << 70)]), "not a list of mappings"),
    "odd page size": (json.dumps([mapping(page_size=12345)]), "pages of 12345 bytes"),
    "overlap": (json.dumps([mapping(), mapping(offset=16 * PAGE)]), "overlap in Firecracker"),
    "overlap in the file": (
        json.dumps([mapping(), mapping(base_host_virt_addr=1 << 41)]),
        "overlap in the memory file",
    ),
    "too long": ("[" + " " * (200 << 10), "too large"),
    "closed at once": ("", "without a word"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_message_ends_it_with_a_sentence(root, memory, name):
    message, sentence = BAD[name]
    async with serving(root, memory=memory) as pager, machine(16) as player:
        with near(root / SOCKET) as path:
            await player.shake(path=path, message=message)
        error = await asyncio.wait_for(pager.ended, 10)
    assert isinstance(error, HostError) and "status 3" in str(error) and sentence in str(error), error
    assert "kill the machine" in error.hint


@pytest.mark.parametrize(
    ("fds", "other", "sentence"),
    [
        (0, False, "no descriptor"),
        (2, False, "more than one descriptor"),
        (1, True, "no userfaultfd"),
        (8, False, "too large"),
    ],
)
async def test_descriptors_that_are_not_one_userfaultfd_end_it(root, memory, fds, other, sentence):
    async with serving(root, memory=memory) as pager, machine(16) as player:
        with near(root / SOCKET) as path:
            await player.shake(path=path, fds=fds, other=other)
        error = await asyncio.wait_for(pager.ended, 10)
    assert "status 3" in str(error) and sentence in str(error)


async def test_silence_after_connecting_ends_it_in_ten_seconds(root, memory):
    async with serving(root, memory=memory) as pager:
        with near(root / SOCKET) as path, socket.socket(socket.AF_UNIX) as silent:
            silent.connect(path)
            error = await asyncio.wait_for(pager.ended, 15)
    assert "nothing was said" in str(error)


async def test_a_page_outside_the_handshake_ends_it(root, memory):
    async with serving(root, memory=memory) as pager, machine(16) as player:
        with near(root / SOCKET) as path:
            await player.shake(path=path, message=json.dumps([mapping()]))
        touching = asyncio.create_task(player.digests(pages=[0]))
        error = await asyncio.wait_for(pager.ended, 10)
        player.kill()
        await asyncio.gather(touching, return_exceptions=True)
    assert "status 5" in str(error) and "no mapping of the handshake" in str(error)


async def test_a_memory_file_that_was_cut_short_ends_it_with_a_sentence(root, memory):
    async with served(root, memory=memory, around=PAGE) as (pager, player):
        await player.digests(pages=[0])
        os.truncate(memory, PAGE)
        touching = asyncio.create_task(player.digests(pages=[100]))
        error = await asyncio.wait_for(pager.ended, 10)
        player.kill()
        await asyncio.gather(touching, return_exceptions=True)
    assert "status 5" in str(error) and "shorter than it was" in str(error)


async def test_a_killed_page_server_is_noticed_at_once(root, memory):
    async with served(root, memory=memory) as (pager, player):
        os.kill(pager.pid, signal.SIGKILL)
        error = await asyncio.wait_for(pager.ended, 5)
        assert "killed by signal 9" in str(error)
        player.kill()


async def test_a_killed_machine_ends_its_page_server(root, memory):
    async with served(root, memory=memory) as (pager, player):
        await player.digests(pages=[1])
        player.kill()
        assert await asyncio.wait_for(pager.ended, 5) is None


async def test_a_machine_killed_in_the_middle_of_a_replay_ends_it_too(root, tmp_path):
    memory, wanted = tmp_path / "large", tmp_path / "prefetch"
    with memory.open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20))
    wanted.write_text(f"firebrick-prefetch 1\n0 {64 << 8}\nend 1\n")
    async with served(root, 64 << 8, memory=memory, prefetch=wanted) as (pager, player):
        player.kill()
        assert await asyncio.wait_for(pager.ended, 5) is None


async def test_leaving_ends_it_and_removes_the_socket(root, memory):
    async with serving(root, memory=memory) as pager:
        socket_file = root / SOCKET
        assert stat.S_ISSOCK(socket_file.stat().st_mode) and stat.S_IMODE(socket_file.stat().st_mode) == 0o600
    assert pager.ended.result() is None or "signal 15" in str(pager.ended.result())
    assert not socket_file.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pager.pid, 0)


async def test_a_stale_socket_is_replaced(root, memory):
    (root / SOCKET).write_text("left by a killed owner")
    async with served(root, memory=memory) as (_, player):
        assert await player.digests(pages=[3]) == [digests(memory.read_bytes())[3]]


@pytest.mark.parametrize("name", ["missing", "a directory", "odd", "empty", "larger than its layer"])
async def test_memory_that_cannot_be_served_is_an_error(root, memory, tmp_path, name):
    path, layers = tmp_path / name, []
    if name == "a directory":
        path.mkdir()
    elif name != "missing":
        path.write_bytes(b"x" * {"odd": 5000, "empty": 0, "larger than its layer": 257 * PAGE}[name])
    if name == "larger than its layer":
        layers = [memory]
    if name == "missing":
        with pytest.raises(SnapshotError, match="cannot open"):
            async with serving(root, memory=path):
                pass
        return
    async with serving(root, memory=path, layers=layers) as pager:
        assert "status 4" in str(await asyncio.wait_for(pager.ended, 10))


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
async def test_it_becomes_the_user_of_the_seat_and_serves_nobody_else(root, memory):
    memory.chmod(0o600)
    async with (
        serving(root, memory=memory, seat=Seat(number=3, uid=2_000_003, gid=2_000_003)) as pager,
        machine(16) as player,
    ):
        with near(root / SOCKET) as path, contextlib.suppress(OSError):
            await player.shake(path=path)  # as root: it may be hung up on before it has said all
        touching = asyncio.create_task(player.digests(pages=[0]))
        async with asyncio.timeout(20):
            while (fields := status_of(pager.pid))["Name"] != "firebrick-pager" or fields["CapEff"] != "0" * 16:
                await asyncio.sleep(0.01)
        done, _ = await asyncio.wait([touching, pager.ended], timeout=0.5)
        assert not done, "a process of another user was served"
        assert set(fields["Uid"].split()) == set(fields["Gid"].split()) == {"2000003"}
        assert fields["NoNewPrivs"] == "1" and not fields["Groups"].strip()
        player.kill()
        await asyncio.gather(touching, return_exceptions=True)


def status_of(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


@pytest.mark.parametrize("user", [[], ["--user", "2000003"]] if os.geteuid() == 0 else [[]])
def test_it_dies_with_its_owner(memory, tmp_path, user):
    """Also when that is killed, and the page server runs as somebody else."""
    script = (
        "import asyncio, os, signal, sys; from pathlib import Path; from firebrick.machine.pager import serving\n"
        "from firebrick.machine.seat import Seat\n"
        "async def main():\n"
        f"    seat = Seat(3, 2000003, 2000003) if {bool(user)} else None\n"
        f"    async with serving(Path({str(tmp_path)!r}), memory=Path({str(memory)!r}), seat=seat) as pager:\n"
        "        status = Path(f'/proc/{pager.pid}/status')\n"
        "        while 'firebrick-pager' not in status.read_text() or (seat and '2000003' not in status.read_text()): await asyncio.sleep(0.01)\n"
        "        await asyncio.sleep(0.1)\n"
        "        print(pager.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())"
    )
    owner = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    pid = int(owner.stdout)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and is_running(pid):
        time.sleep(0.01)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_wrong_usage_has_its_own_status():
    done = subprocess.run([PROGRAM, "--listen", "70", "--memory", "71"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "descriptor 70 is not open" in done.stderr
    done = subprocess.run([PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "usage: firebrick-pager" in done.stderr
