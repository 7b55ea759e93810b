"""Machines for the tests here: one corpus, every driver, however the machine came to be.

A way is a driver and an origin: `fresh` is booted, `restored` from a snapshot, `forked` from a restored one that runs. Tests take the fixture `m`,
or `way` where they make their machines themselves. Every test runs on the fake and on restored machines of the real drivers; those marked
`every_way` on all ways there are. Which drivers there are the environment says: FIREBRICK_WAYS=firecracker, say; without, fake and qemu.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import Driver, Fake, Machine, MachineSpec, Snapshot
from tests.workshop import Workshop, template, workshop

__all__ = ["template", "workshop"]

DRIVERS = tuple(os.environ.get("FIREBRICK_WAYS", "fake,qemu").split(","))
ORIGINS = ("fresh", "restored", "forked")
_USUAL = {"fake": ("fresh", "restored")}


@dataclass
class Way:
    """How machines are had: `driver` and `origin`, with `home` for their directories."""

    driver: str
    origin: str
    home: Path
    spec: MachineSpec
    request: pytest.FixtureRequest
    made: Driver | str = field(init=False)

    def __post_init__(self) -> None:
        self.made = Fake() if self.driver == "fake" else self.driver

    def template(self) -> Snapshot:
        """A booted machine, saved; real drivers have one for all tests."""
        if self.driver == "fake":
            path = self.home / "template"
            return Snapshot.load(path) if path.exists() else _saved(self.spec, self.made, self.home, path)
        if self.driver == "qemu":
            taken: Snapshot = self.request.getfixturevalue("template")
            return taken
        templates: dict[str, Snapshot] = self.request.getfixturevalue("templates")
        if self.driver not in templates:
            path = self.home / f"template-{self.driver}"
            templates[self.driver] = _saved(self.spec, self.made, self.home, path)
        return templates[self.driver]

    @asynccontextmanager
    async def start(self, *, detached: bool = False) -> AsyncIterator[Machine]:
        """A machine of this way."""
        async with AsyncExitStack() as stack:
            if self.origin == "fresh":
                making = machine.launch(self.spec, self.made, home=self.home, detached=detached)
            else:
                making = machine.restore(self.template(), self.made, home=self.home, detached=detached)
            made = await stack.enter_async_context(making)
            yield await stack.enter_async_context(made.fork()) if self.origin == "forked" else made


def _saved(spec: MachineSpec, driver: Driver | str, home: Path, path: Path) -> Snapshot:
    """In a thread with an event loop of its own: tests have theirs."""

    async def make() -> Snapshot:
        async with machine.launch(spec, driver, home=home) as m:
            return await m.snapshot(path)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, make()).result()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_way: for m and way: fresh, restored and forked machines of every driver")
    config.addinivalue_line("markers", "real: for m and way: real machines only; the fake has no kernel")
    config.addinivalue_line("markers", "once: for way: restored machines only, of each driver")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" not in metafunc.fixturenames:
        return
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    params = [
        pytest.param((driver, origin), id=f"{driver}-{origin}", marks=[] if driver == "fake" else [pytest.mark.machine])
        for driver in DRIVERS
        for origin in _origins(driver, marks)
        if driver != "fake" or "real" not in marks
    ]
    metafunc.parametrize("way", params, indirect=True)


def _origins(driver: str, marks: set[str]) -> tuple[str, ...]:
    if "every_way" in marks:
        return ORIGINS
    return ("restored",) if "once" in marks else _USUAL.get(driver, ("restored",))


@pytest.fixture(scope="session")
def templates() -> dict[str, Snapshot]:
    """Of the real drivers, by name; made on first use."""
    return {}


@pytest.fixture
async def way(request: pytest.FixtureRequest, workshop: Workshop, tmp_path: Path) -> AsyncIterator[Way]:
    driver, origin = request.param
    if driver == "fake":
        home, spec = tmp_path / "home", MachineSpec(kernel=tmp_path / "kernel", initrd=tmp_path / "initrd")
    else:
        home, spec = workshop.home, await workshop.spec()
    yield Way(driver, origin, home, spec, request)
    left = list((home / "machines").glob("*")) + list((home / "machines").glob(".*"))
    assert left == [], "a machine's directory outlived it"


@pytest.fixture
async def m(way: Way) -> AsyncIterator[Machine]:
    async with way.start() as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """What a machine said on its console is the evidence of a test that failed."""
    report = yield
    made = getattr(item, "funcargs", {}).get("m")
    if report.when == "call" and report.failed and isinstance(made, Machine):
        report.sections.append((f"console of machine {made.id} ({made.state})", made.console()))
    return report
