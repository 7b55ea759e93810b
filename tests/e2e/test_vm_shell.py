"""`firebrick vm shell` on a real terminal, in a real machine: keys, window size, exit status, and the terminal as it was."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from firebrick.home import Home
from firebrick.machine import Qemu
from firebrick.node.guest import Loan
from firebrick.node.order import Resources
from firebrick.node.pool.pool import Pool
from firebrick.node.settings import NodeSettings
from firebrick.node.socket.door import open_door
from tests.place import environment, make_home

pytestmark = pytest.mark.machine
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_home(tmp_path_factory.mktemp("shell") / "home")


@pytest.fixture
async def loan(home: Home) -> AsyncIterator[Loan]:
    pool = Pool(home, Qemu(home.cache), NodeSettings(), capacity=1)
    resources = Resources(vcpus=1, memory_mib=256, scratch_mib=256)
    async with (
        open_door(home.nodes, pool.roster),
        pool.lend("base", resources, purpose="test", say=lambda _: None) as loan,
    ):
        yield loan


class Terminal:
    """A program on a pseudo-terminal of its own."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(24, 80)
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self._said = ""
        os.set_blocking(self._ours, False)
        # setsid makes the terminal the controlling one, without which no key is a signal and no size a change.
        argv = ["setsid", "--ctty", *argv]
        self.process = subprocess.Popen(argv, env=env, stdin=theirs, stdout=theirs, stderr=theirs)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    async def expect(self, pattern: str) -> re.Match[str]:
        """Wait until it has said this, and forget all up to there."""
        deadline = time.monotonic() + PATIENCE_S
        while (match := re.search(pattern, self._said)) is None:
            assert time.monotonic() < deadline, f"no {pattern!r} in {self._said!r}"
            try:
                self._said += os.read(self._ours, 4096).decode(errors="replace")
            except BlockingIOError:
                await asyncio.sleep(0.01)
        self._said = self._said[match.end() :]
        return match

    async def status(self) -> int:
        return await asyncio.wait_for(asyncio.to_thread(self.process.wait), PATIENCE_S)

    @property
    def settings(self) -> list[object]:
        return termios.tcgetattr(self._theirs)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def terminal(home: Home, loan: Loan) -> Iterator[Terminal]:
    env = environment(home, TERM="xterm")
    terminal = Terminal([sys.executable, "-m", "firebrick.cli.main", "vm", "shell", loan.machine[:6]], env)
    yield terminal
    terminal.close()


async def test_a_shell_is_as_if_one_sat_there(terminal: Terminal) -> None:
    await terminal.expect(r"[#$] ")
    terminal.type("stty size; echo answer-$((6 * 7))\r")
    await terminal.expect(r"24 80\r\n")
    await terminal.expect(r"answer-42\r\n")
    # Not before the program itself has spoken: a key that comes while bash still starts it finds bash between two
    # foreground groups, and may end the shell.
    terminal.type("sh -c 'echo be''gun; exec sleep 1000'\r")
    await terminal.expect(r"begun\r\n")
    terminal.type("\x03")  # a key for the guest: the shell there goes on
    await terminal.expect(r"[#$] ")
    terminal.resize(50, 132)
    terminal.type("until stty size | grep 132; do :; done\r")
    await terminal.expect(r"50 132\r\n")
    terminal.type("exit 3\r")
    assert await terminal.status() == 3
    assert terminal.settings == terminal.before


async def test_the_terminal_is_restored_when_the_machine_goes(terminal: Terminal, loan: Loan) -> None:
    await terminal.expect(r"[#$] ")
    terminal.type("kill -9 $$\r")
    assert await terminal.status() == 128 + signal.SIGKILL
    assert terminal.settings == terminal.before


async def test_exec_passes_words_after_two_dashes(home: Home, loan: Loan, tmp_path: Path) -> None:
    argv = [
        sys.executable,
        "-m",
        "firebrick.cli.main",
        "vm",
        "exec",
        loan.machine,
        "--",
        "sh",
        "-c",
        "cat; echo -e >&2; exit 5",
    ]
    done = await asyncio.to_thread(
        subprocess.run, argv, input=b"hello\n", capture_output=True, env=environment(home), timeout=PATIENCE_S
    )
    assert (done.returncode, done.stdout) == (5, b"hello\n")
    assert done.stderr == b"-e\n"
