"""Machines for the tests here: one corpus, every driver, however the machine came to be.

A way is a driver and an origin: `fresh` is booted, `restored` from a snapshot, `forked` from a restored one that runs. Tests take the fixture `m`,
or `way` where they make their machines themselves. Every test runs on the fake and on restored machines of QEMU; those marked `every_way` on
all ways there are, as root in a jail too. The environment says which drivers there are instead, for all tests: FIREBRICK_WAYS=jailed, say, or in
the lab FIREBRICK_WAYS=firecracker,firecracker-jailed.
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
from firebrick.machine import Driver, Machine, MachineSpec, Snapshot
from tests.conformance.drivers import ALWAYS, DETACHES, SOMETIMES, driver_of, kind_of
from tests.workshop import Workshop, template, workshop

__all__ = ["template", "workshop"]

ASKED = tuple(name for name in os.environ.get("FIREBRICK_WAYS", "").split(",") if name)
ORIGINS = ("fresh", "restored", "forked")
DEADLINE_S = 120.0
_USUAL = {"fake": ("fresh", "restored")}


@dataclass
class Way:
    """How machines are had: `driver` and `origin`, with `home` for their directories."""

    driver: str
    origin: str
    home: Path
    spec: MachineSpec
    request: pytest.FixtureRequest
    made: Driver = field(init=False)

    def __post_init__(self) -> None:
        self.made = driver_of(self.driver, self.home)

    def template(self) -> Snapshot:
        """A booted machine, saved; real drivers have one for all tests."""
        kind = kind_of(self.driver)
        if kind == "fake":
            path = self.home / "template"
            return Snapshot.load(path) if path.exists() else _saved(self.spec, self.made, self.home, path)
        if kind == "qemu":
            taken: Snapshot = self.request.getfixturevalue("template")
            return taken
        templates: dict[str, Snapshot] = self.request.getfixturevalue("templates")
        if kind not in templates:
            templates[kind] = _saved(self.spec, self.made, self.home, self.home / f"template-{kind}")
        return templates[kind]

    @asynccontextmanager
    async def start(self, *, detached: bool = False) -> AsyncIterator[Machine]:
        """A machine of this way."""
        async with AsyncExitStack() as stack:
            how = {"home": self.home, "deadline": DEADLINE_S, "detached": detached}
            if self.origin == "fresh":
                making = machine.launch(self.spec, self.made, **how)
            else:
                making = machine.restore(self.template(), self.made, **how)
            made = await stack.enter_async_context(making)
            yield await stack.enter_async_context(made.fork()) if self.origin == "forked" else made


def _saved(spec: MachineSpec, driver: Driver, home: Path, path: Path) -> Snapshot:
    """In a thread with an event loop of its own: tests have theirs."""

    async def make() -> Snapshot:
        async with machine.launch(spec, driver, home=home, deadline=DEADLINE_S) as m:
            return await m.snapshot(path)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, make()).result()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_way: for m and way: fresh, restored and forked machines of every driver")
    config.addinivalue_line("markers", "real: for m and way: real machines only; the fake has no kernel")
    config.addinivalue_line("markers", "once: for way: restored machines only, of each driver")
    config.addinivalue_line("markers", "detaching: for m and way: drivers whose machines can outlive their process")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" not in metafunc.fixturenames:
        return
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    params = [
        pytest.param((driver, origin), id=f"{driver}-{origin}", marks=[] if driver == "fake" else [pytest.mark.machine])
        for driver in _drivers(marks)
        for origin in _origins(driver, marks)
    ]
    metafunc.parametrize("way", params, indirect=True)


def _drivers(marks: set[str]) -> list[str]:
    names = ASKED or ALWAYS + (SOMETIMES if "every_way" in marks else ())
    without = {"fake"} if "real" in marks else set()
    return [name for name in names if name not in without and ("detaching" not in marks or name in DETACHES)]


def _origins(driver: str, marks: set[str]) -> tuple[str, ...]:
    if "every_way" in marks:
        return ORIGINS
    return ("restored",) if "once" in marks else _USUAL.get(driver, ("restored",))


@pytest.fixture(scope="session")
def templates() -> dict[str, Snapshot]:
    """Of the drivers but QEMU, by kind; made on first use."""
    return {}


@pytest.fixture
async def way(request: pytest.FixtureRequest, workshop: Workshop, tmp_path: Path) -> AsyncIterator[Way]:
    driver, origin = request.param
    home = tmp_path / "home" if driver == "fake" else workshop.home
    yield Way(driver, origin, home, await _spec(driver, workshop, tmp_path), request)
    left = list((home / "machines").glob("*")) + list((home / "machines").glob(".*"))
    assert left == [], "a machine's directory outlived it"


async def _spec(driver: str, workshop: Workshop, tmp_path: Path) -> MachineSpec:
    kind = kind_of(driver)
    if kind == "fake":
        return MachineSpec(kernel=tmp_path / "kernel", initrd=tmp_path / "initrd")
    return workshop.firecracker_spec() if kind == "firecracker" else await workshop.spec()


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
