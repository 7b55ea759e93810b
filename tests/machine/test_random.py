"""Random numbers that follow from a seed, in real machines."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from firebrick.home import Home
from firebrick.image.squashfs import read_modules
from firebrick.image.store import ImageStore
from firebrick.machine import Machine, launch
from tests.place import environment, make_home
from tests.workshop import Workshop

pytestmark = pytest.mark.machine

PATIENCE_S = 300.0
ALL_OF_THEM = r"""
on: push
jobs:
  build:
    runs-on: toolchain
    steps:
      - run: |
          mkdir out
          head -c 32 /dev/urandom | base64 > out/urandom
          head -c 32 /dev/random | base64 > out/random
          dd if=/dev/urandom bs=300K count=1 2>/dev/null | sha256sum > out/large
          cat /proc/sys/kernel/random/uuid > out/uuid
          python3 -c 'import os, secrets, uuid; print(os.urandom(40).hex(), uuid.uuid4(), secrets.token_hex())' > out/python
          for i in 1 2 3; do mktemp -u; done > out/names
          head -c 32 /dev/urandom | base64 > out/left & head -c 32 /dev/urandom | base64 > out/right &
          (mktemp -u > out/left-name) & (mktemp -u > out/right-name) &
          wait
          cmp out/left out/right || cmp out/left-name out/right-name || echo "all of them differ"
          sudo -u nobody head -c 16 /dev/urandom | base64 > out/sudo
      - run: head -c 32 /dev/urandom | base64 > out/later
      - uses: actions/upload-artifact@v4
        with: {name: out, path: out}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_home(tmp_path_factory.mktemp("random") / "home")


async def firebrick_run(home: Home, directory: Path, *more: str) -> tuple[int, list[str], list[str]]:
    """Status, what was printed, and the artifacts of the run or, where it was verified, of both."""
    artifacts = directory / f"artifacts-{len(list(directory.iterdir()))}"
    argv = ["-m", "firebrick.cli.main", "run", "all.yml", "--memory", "512", "--artifacts", str(artifacts), *more]
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, *argv],
        capture_output=True,
        text=True,
        cwd=directory,
        env=environment(home),
        timeout=PATIENCE_S,
    )
    found = sorted(path for path in artifacts.rglob("*") if path.is_file())
    return done.returncode, done.stdout.splitlines(), [path.read_text() for path in found]


async def test_a_run_that_is_verified_reads_the_same_and_another_does_not(home: Home, tmp_path: Path) -> None:
    (tmp_path / "all.yml").write_text(ALL_OF_THEM)
    status, lines, texts = await firebrick_run(home, tmp_path, "--verify-reproducible")
    assert status == 0, lines
    assert lines[-1] == "Reproducible: 12 files, the same in both runs."
    assert any("all of them differ" in line for line in lines)
    assert not any("will differ" in line for line in lines)
    assert len(set(texts)) == 12, "two sources gave the same"
    status, lines, others = await firebrick_run(home, tmp_path)
    assert status == 0, lines
    assert len(others) == 12
    assert not set(others) & set(texts)
    assert list(home.machines.iterdir()) == []


@pytest.fixture
async def seeded(workshop: Workshop) -> AsyncIterator[Machine]:
    async with launch(await workshop.spec(), home=workshop.home) as machine:
        await seed(machine, b"seed")
        yield machine


async def seed(machine: Machine, seed: bytes) -> None:
    kernel = await ImageStore(Home.find()).ensure_kernel("debian")
    assert kernel.modules is not None
    paths = []
    for name, content in (await read_modules(kernel.modules, ("fs/fuse/fuse", "fs/fuse/cuse"))).items():
        paths.append(f"/run/modules/{Path(name).name}.ko")
        await machine.files.write(paths[-1], content, parents=True)
    await machine.agent.seed(seed, paths)


async def said(machine: Machine, script: str, user: str | None = None) -> str:
    return (await machine.run(["sh", "-c", script], check=True, user=user)).stdout.decode()


DRAW = "head -c 16 /dev/urandom | base64; mktemp -u"
OPEN = "ls /proc/1/fd | wc -l"


async def test_what_is_killed_leaves_nothing(seeded: Machine) -> None:
    await said(seeded, DRAW)
    before = int(await said(seeded, OPEN))
    busy = "for i in 1 2 3 4; do (while :; do mktemp -u; head -c 100000 /dev/urandom; done >/dev/null) & done; wait"
    for _ in range(3):
        done = await seeded.run(["sh", "-c", busy], timeout=1.0)
        assert done.status.timed_out
    assert len((await said(seeded, DRAW)).split()) == 2
    async with asyncio.timeout(
        PATIENCE_S
    ):  # what is left of a filter goes when the agent hears that nobody has it any more
        while int(await said(seeded, OPEN)) > before:
            await asyncio.sleep(0.1)
    assert "sh -c for" not in await said(seeded, "cat /proc/*/cmdline | tr '\\0' ' '")


async def test_what_outlives_its_exec_is_answered(seeded: Machine) -> None:
    daemon = "until [ -e /run/go ]; do sleep 0.05; done; mktemp -u > /run/draft; mv /run/draft /run/drawn"
    async with seeded.exec(["sh", "-c", daemon], detach=True):
        pass
    waiting = "touch /run/go; until [ -e /run/drawn ]; do sleep 0.05; done; cat /run/drawn"
    async with asyncio.timeout(PATIENCE_S):
        assert (await said(seeded, waiting)).startswith("/tmp/tmp.")


async def test_whoever_asks_is_answered_as_the_kernel_would(seeded: Machine) -> None:
    assert len(await said(seeded, DRAW, user="65534")) > 20
    assert (
        await said(seeded, "test -c /dev/urandom && echo noise > /dev/random && echo taken", user="65534") == "taken\n"
    )
    assert await said(seeded, "dd if=/dev/urandom bs=500K count=1 2>/dev/null | wc -c") == "512000\n"
    assert len((await said(seeded, "cat /proc/sys/kernel/random/uuid")).strip()) == 36


async def test_a_copy_has_random_numbers_of_its_own(seeded: Machine, workshop: Workshop) -> None:
    async with seeded.forks(2) as copies:
        drawn = [await said(copy, DRAW) for copy in copies]
    drawn.append(await said(seeded, DRAW))
    assert len({line for text in drawn for line in text.split()}) == 6
    async with launch(await workshop.spec(), home=workshop.home) as other:
        await seed(other, b"seed")
        assert await said(other, DRAW) == drawn[-1]
