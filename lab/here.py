"""The lab tests on this very host: for one with a KVM that works, and root."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from firebrick.image.progress import SILENT
from firebrick.machine.accel import Accelerator, probe
from firebrick.process import spawn
from lab.host import ROOT, Place
from lab.session import pytest_arguments, pytest_environment
from lab.supply import ensure_ground


class HostError(Exception):
    """What the message names is not on this host, and the lab tests need it."""


async def run_here(arguments: Sequence[str], evidence: Path) -> int:
    """Run pytest on this host, output straight to where ours goes. Returns its status. Raises HostError."""
    if os.geteuid() != 0:
        raise HostError("the lab tests make network namespaces, control groups and jails: run this as root")
    await _prove_kvm()
    place = Place.of_tree()
    place.cache.mkdir(parents=True, exist_ok=True)
    ground = await ensure_ground(place.home, place.cache, SILENT)
    evidence.mkdir(parents=True, exist_ok=True)
    environment = {
        **ground.environment(),
        **pytest_environment(str(evidence)),
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
    }
    argv = [sys.executable, "-m", "pytest", *pytest_arguments(ROOT, arguments)]
    out, err = sys.stdout.fileno(), sys.stderr.fileno()
    async with spawn(argv, cwd=ROOT, env=environment, stdout=out, stderr=err) as process:
        return await process.wait()


async def _prove_kvm() -> None:
    """That /dev/kvm opens says little: some run nothing but kernels made for them."""
    choice = await probe()
    if choice.accelerator is not Accelerator.KVM:
        raise HostError(f"this host cannot run the lab tests: {choice.reason}")
