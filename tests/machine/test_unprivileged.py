"""A user with no privileges at all: boots, forks, saves, and leaves nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workshop import Workshop

pytestmark = pytest.mark.machine

NOBODY = 65534

# Everything is imported before privileges go: the interpreter itself may lie where nobody may read.
PROGRAM = """
import asyncio, concurrent.futures.thread, ctypes, encodings.idna, os, sys
from pathlib import Path
from firebrick import machine
from firebrick.machine import owner, qemu  # now: a Python of root alone has nothing to import later
home, kernel, initrd, root = map(Path, sys.argv[1:5])
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as a process that was started by this user would be
    os.environ.update(HOME=str(home), USER="nobody")
async def main():
    assert os.geteuid() != 0
    spec = machine.MachineSpec(kernel=kernel, initrd=initrd, root=root, kernel_args=tuple(sys.argv[5:]))
    async with machine.launch(spec, home=home) as m:
        assert Path(f"/proc/{m.pid}").stat().st_uid == os.geteuid()
        assert (await m.run(["id", "-u"], check=True)).stdout == b"0\\n"
        await m.files.write("/x", b"1")
        taken = await m.snapshot(home / "snapshot")
        async with machine.restore(taken, home=home) as copy, copy.fork() as again:
            assert await again.files.read("/x") == b"1"
        assert (await m.stop()).cause is machine.ExitCause.POWEROFF
    assert not any((home / "machines").iterdir())
    print("done")
asyncio.run(main())
"""


@pytest.fixture
def open_home():
    """A place nobody may use: pytest's own are closed to others."""
    home = Path("/tmp") / f"firebrick-test-{os.getpid()}"
    home.mkdir()
    if os.geteuid() == 0:
        os.chown(home, NOBODY, NOBODY)
    yield home
    shutil.rmtree(home)


async def test_everything_without_root(workshop: Workshop, open_home):
    spec = await workshop.spec()
    files = []
    for path in (spec.kernel, spec.initrd, spec.root):
        copy = open_home / path.name
        shutil.copy(path, copy)
        copy.chmod(0o444)
        files.append(copy)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, open_home, *files, *spec.kernel_args],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    assert done.stdout == "done\n", done.stderr
