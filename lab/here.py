"""The lab tests on this very host: for one with a KVM that works, and root."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from firebrick.machine import countdown
from firebrick.process import ProcessError, run
from lab.ground import prepare_ground
from lab.host import ROOT, Place
from lab.session import test_command, test_environment

# Each instruction emulated takes more than 10 ms for all rounds, real hardware well below one.
_LONGEST_US: Final = 10_000
_PATIENCE_S: Final = 10.0


class HostError(Exception):
    """What the message names is not on this host, and the lab tests need it."""


async def run_here(arguments: Sequence[str], evidence: Path) -> int:
    """Run pytest on this host, output straight to where ours goes. Returns its status. Raises HostError."""
    if os.geteuid() != 0:
        raise HostError("the lab tests make network namespaces, control groups and jails: run this as root")
    await _prove_kvm()
    place = Place.of_tree()
    place.cache.mkdir(parents=True, exist_ok=True)
    ground = await prepare_ground(place.home, place.cache)
    evidence.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **test_environment(ground, str(evidence)), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    argv = [sys.executable, *test_command(ROOT, arguments)[1:]]
    process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, env=environment)
    return await process.wait()


async def _prove_kvm() -> None:
    """That /dev/kvm opens says little: some run nothing but kernels made for them. A guest that counts down tells."""
    if not Path("/dev/kvm").exists():
        raise HostError("there is no /dev/kvm: this host has no virtualisation, or its kernel module is not loaded")
    try:
        done = await run([sys.executable, countdown.__file__], timeout=_PATIENCE_S)
    except ProcessError as error:
        raise HostError(f"/dev/kvm does not run a guest: {error}") from error
    took_us = int(done.text)
    if took_us > _LONGEST_US:
        raise HostError(
            f"/dev/kvm takes {took_us} us for {countdown.ROUNDS} rounds of counting down: it emulates, and runs no ordinary kernel"
        )
