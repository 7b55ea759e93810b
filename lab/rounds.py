"""All tests of the lab: each file in a host nobody has used, two hosts at a time, and again where the emulated host itself was lost. Some files of the
corpus share a host, and with it the machine all of them begin with.

An emulated processor that emulates virtualisation is not as steady as one made of silicon: its kernel may fall over. That says nothing of the
tests, so their file is run again, and the last lines say how often that was. A test that fails is never run again.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from firebrick.machine import MachineError
from lab.host import Place
from lab.session import LOST, TESTS, Session, paths_among, run_session

# On two processors three hosts are no faster.
TOGETHER: Final = 2
ATTEMPTS: Final = 3
# What takes longest begins first, so that nobody waits for it at the end.
_LONG: Final = (
    *("test_many", "test_exec", "test_files", "test_kill_points", "test_adoption", "test_hostile", "test_life"),
    *("test_differences", "test_node", "test_firecracker_network", "test_production_host"),
)
# Together none of them takes longer than the longest file.
_SHARING: Final = (
    ("test_exec.py", "test_files.py"),
    ("test_adoption.py", "test_hostile.py"),
    ("test_differences.py", "test_faults.py", "test_listen.py", "test_process.py", "test_standby.py"),
)
_NO_TESTS: Final = 5


@dataclass(frozen=True, slots=True)
class Round:
    """A file, or those that share a host: how it ended, in how many hosts, after how many seconds of the last."""

    name: str
    status: int
    hosts: int
    seconds: float

    @property
    def verdict(self) -> str:
        said = {0: "passed", LOST: "HOST LOST", _NO_TESTS: "has no tests here"}.get(
            self.status, f"FAILED ({self.status})"
        )
        return f"  {self.name:44} {said:18} {self.seconds:5.0f} s" + (
            f", in host {self.hosts}" if self.hosts > 1 else ""
        )


def test_files(project: Path, named: Sequence[str]) -> list[str]:
    """The files of the lab's tests in `project`: those `named`, by themselves or by their folder, else all. What takes longest comes first."""
    found: set[str] = set()
    for name in paths_among(project, named or TESTS):
        inside = (project / name).glob("test_*.py")
        found |= {str(file.relative_to(project)) for file in inside} if (project / name).is_dir() else {name}
    return sorted(sorted(found), key=lambda name: next((n for n, long in enumerate(_LONG) if long in name), len(_LONG)))


def shared(files: Sequence[str]) -> list[tuple[str, ...]]:
    """Those of each host, in the order of the first of each. What was asked for in particular, a test in a file, has a host of its own."""
    hosts: dict[object, list[str]] = {}
    for file in files:
        hosts.setdefault(next((names for names in _SHARING if Path(file).name in names), file), []).append(file)
    return [tuple(found) for found in hosts.values()]


async def run_rounds(session: Session, place: Place) -> int:
    """Run every file that `session` names, or all, with its other arguments. Returns 0, or 1 where one of them did not pass."""
    turns = asyncio.Semaphore(TOGETHER)
    named = paths_among(session.project, session.tests)
    session = replace(session, tests=[word for word in session.tests if word not in named])

    async def run(files: tuple[str, ...]) -> Round:
        async with turns:
            return await _run_files(session, place, files)

    async with asyncio.TaskGroup() as group:
        hosts = shared(test_files(session.project, named))
        tasks = [group.create_task(run(files), name=f"lab-{files[0]}") for files in hosts]
    rounds = [task.result() for task in tasks]
    failed = [one for one in rounds if one.status not in (0, _NO_TESTS)]
    lost = sum(one.hosts - 1 for one in rounds)
    head = "\nThe lab, file by file" + (f"; {lost} times the emulated host was lost and replaced" if lost else "")
    _write("\n".join([head, *(one.verdict for one in rounds), ""]).encode())
    return 1 if failed else 0


async def _run_files(session: Session, place: Place, files: tuple[str, ...]) -> Round:
    stem = Path(files[0]).stem
    name = files[0] + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    own = replace(session, tests=(*session.tests, *files), evidence=session.evidence / stem)
    host = 1
    while (done := await _run_once(own, place, name, host)).status == LOST and host < ATTEMPTS:
        # What was lost is of interest too: each host's evidence is kept.
        own = replace(own, evidence=own.evidence.with_name(f"{stem}-{host + 1}"))
        host += 1
    return done


async def _run_once(session: Session, place: Place, name: str, host: int) -> Round:
    said = bytearray()
    began = time.monotonic()
    try:
        status = await run_session(session, place, said.extend)
    except MachineError as error:  # it did not even come up
        said += f"{error}\n".encode()
        status = LOST
    done = Round(name, status, host, time.monotonic() - began)
    _write(f"\n---- {name}\n".encode() + bytes(said) + f"\n{done.verdict}\n".encode())
    return done


def _write(text: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(text)
    sys.stdout.flush()
