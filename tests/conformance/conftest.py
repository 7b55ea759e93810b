"""Machines for the tests here: one corpus, every driver, however the machine came to be.

A way is a driver and an origin: `fresh` is booted, `restored` from a snapshot, `forked` from a restored one that runs. Tests take the fixture `m`.
Every test runs on the fake and on restored QEMU machines; those marked `every_way` on all there are. QEMU in a jail is a driver more where the
tests run as root: only root can make jails.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import Fake, Machine, MachineSpec, Qemu
from firebrick.machine.jail.bubble import Bubble
from tests.workshop import Workshop, template, workshop

__all__ = ["template", "workshop"]

USUAL = ("fake-fresh", "fake-restored", "qemu-restored")
EVERY = ("fake-fresh", "fake-restored", "fake-forked", "qemu-fresh", "qemu-restored", "qemu-forked")
JAILED = ("jailed-fresh", "jailed-restored", "jailed-forked") if os.geteuid() == 0 else ()
REAL = ("qemu", "jailed")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "every_way: for the fixture m: fresh, restored and forked machines of every driver"
    )
    config.addinivalue_line("markers", "real: for the fixture m: real machines only; the fake has no kernel")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "m" not in metafunc.fixturenames:
        return
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    ways = EVERY + JAILED if "every_way" in marks else USUAL
    if "real" in marks:
        ways = tuple(way for way in ways if way.startswith(REAL))
    params = [pytest.param(way, marks=[pytest.mark.machine] if way.startswith(REAL) else []) for way in ways]
    metafunc.parametrize("m", params, indirect=True)


@pytest.fixture
async def m(request: pytest.FixtureRequest, workshop: Workshop, tmp_path: Path) -> AsyncIterator[Machine]:
    driver, _, origin = request.param.partition("-")
    making = _fake(origin, tmp_path) if driver == "fake" else _qemu(driver, origin, workshop, request)
    async with making as made:
        yield made
    assert list((workshop.home / "machines").glob("*")) == [], "a machine's directory outlived it"


@asynccontextmanager
async def _fake(origin: str, tmp_path: Path) -> AsyncIterator[Machine]:
    spec = MachineSpec(kernel=tmp_path / "kernel", initrd=tmp_path / "initrd")
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(machine.launch(spec, Fake(), home=tmp_path))
        if origin != "fresh":
            taken = await made.snapshot(tmp_path / "snapshot")
            made = await stack.enter_async_context(machine.restore(taken, Fake(), home=tmp_path))
        if origin == "forked":
            made = await stack.enter_async_context(made.fork())
        yield made


@asynccontextmanager
async def _qemu(kind: str, origin: str, workshop: Workshop, request: pytest.FixtureRequest) -> AsyncIterator[Machine]:
    driver = Qemu(workshop.home / "cache", rooms=Bubble() if kind == "jailed" else None)
    if origin == "fresh":
        async with machine.launch(await workshop.spec(), driver, home=workshop.home) as made:
            yield made
        return
    async with machine.restore(request.getfixturevalue("template"), driver, home=workshop.home) as made:
        if origin == "restored":
            yield made
            return
        async with made.fork() as fork:
            yield fork


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """What a machine said on its console is the evidence of a test that failed."""
    report = yield
    made = getattr(item, "funcargs", {}).get("m")
    if report.when == "call" and report.failed and isinstance(made, Machine):
        report.sections.append((f"console of machine {made.id} ({made.state})", made.console()))
    return report
