"""What a test process owns: its descendants, its open files, the mounts and the network it sees. Compared before and after, it says what a test left behind.

Orphans come back to this process (it is their subreaper), so a program that lost its parent still shows.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SETTLE_S = 5.0
_NAMESPACES = Path("/run/netns")
_SEATS = Path("/run/firebrick/seats")
_NETWORK_LOCK = Path("/run/firebrick/network.lock")
_OWN_TABLE = "table inet firebrick"
# What the interpreter and its event loop keep for themselves, and drop when they like.
_OWN_FILES = ("anon_inode:[eventpoll]", "/dev/null", "/dev/urandom", "/proc/", "pipe:")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent() -> None:
    """A lane is interrupted, and cleans up after itself, when whoever reads its results is killed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Belongings:
    """`processes` by number with their names, `files` by descriptor with what they are, `mounts` by mount point; `network` is namespaces with
    a name, links, and tables of the firewall."""

    processes: dict[int, str]
    files: dict[int, str]
    mounts: frozenset[str]
    network: frozenset[str]

    @classmethod
    def now(cls) -> Belongings:
        return cls(processes=_descendants(), files=_open_files(), mounts=_mounts(), network=_network())

    @classmethod
    def settled_since(cls, before: Belongings) -> str:
        """What is here and was not before, in words; empty if nothing. Waits a little for what is on its way out."""
        deadline = time.monotonic() + _SETTLE_S
        while (left := cls.now()._without(before)) and time.monotonic() < deadline:
            gc.collect()
            _reap_orphans()
            time.sleep(0.02)
        return left

    def _without(self, before: Belongings) -> str:
        processes = [f"process {pid} ({name})" for pid, name in self.processes.items() if pid not in before.processes]
        files = [f"file {number} ({what})" for number, what in self.files.items() if before.files.get(number) != what]
        mounts = [f"mount {point}" for point in sorted(self.mounts - before.mounts)]
        return ", ".join(processes + files + mounts + sorted(self.network - before.network))


def _descendants() -> dict[int, str]:
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                parents[int(entry.name)] = (int(rest.split()[1]), name)
    own = os.getpid()
    return {pid: name for pid, (_, name) in parents.items() if _descends(pid, own, parents)}


def _descends(pid: int, ancestor: int, parents: dict[int, tuple[int, str]]) -> bool:
    while pid in parents:
        pid = parents[pid][0]
        if pid == ancestor:
            return True
    return False


def _open_files() -> dict[int, str]:
    files: dict[int, str] = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(entry.readlink())
            if not target.startswith(_OWN_FILES):
                files[int(entry.name)] = target
    return files


def _mounts() -> frozenset[str]:
    every = frozenset(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return frozenset(point for point in every if not point.startswith(str(_NAMESPACES)))  # told as namespaces


def _network() -> frozenset[str]:
    """What others use is theirs: slots whose seat somebody holds (were it this process, its file would be open), the table while somebody holds its
    lock, and the networks of other tests."""
    namespaces = {path.name for path in _NAMESPACES.iterdir()} if _NAMESPACES.is_dir() else set()
    links = {name for _, name in socket.if_nameindex()}
    tables = _tables()
    held = _locked_files()  # last: what was let go of after it was looked at is looked at again
    found = [f"namespace {name}" for name in namespaces if not _is_of_others(name, held)]
    found += [f"link {name}" for name in links if not _is_of_others(name, held)]
    found += [table for table in tables if table != _OWN_TABLE or _inode(_NETWORK_LOCK) not in held]
    return frozenset(found)


def _is_of_others(name: str, held: frozenset[int]) -> bool:
    if test := re.fullmatch(r"test-\w+-(\d+)-\d+", name):
        return int(test[1]) != os.getpid()
    return re.fullmatch(r"fb\d+", name) is not None and _inode(_SEATS / name[2:]) in held


def _locked_files() -> frozenset[int]:
    """The inodes of the files that somebody has locked. The kernel's list is read, and no lock tried: a try is a lock, for a moment, and others would see it.
    Devices are left out: where a file system has many, the list has another one than the file."""
    listed = re.findall(r" FLOCK .*:(\d+) \d+ \w+$", Path("/proc/locks").read_text(), re.MULTILINE)
    return frozenset(int(inode) for inode in listed)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _tables() -> list[str]:
    """Asked of the kernel through nft, where it is and may ask."""
    if os.geteuid() != 0 or (nft := shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")) is None:
        return []
    listed = subprocess.run([nft, "list", "tables"], capture_output=True, text=True, check=False)
    return listed.stdout.splitlines()


def _reap_orphans() -> None:
    """Take the exit status of ended orphans. Children of this process that somebody still waits for are not touched: they are zombies for
    a moment only, and asyncio or subprocess reap them long before this is called."""
    for pid in _descendants():
        with contextlib.suppress(OSError, ValueError):
            state = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":
                os.waitpid(pid, os.WNOHANG)
