"""Machines for the tests here: one corpus, every driver, however the machine came to be.

A way is a driver and an origin: see `tests/conformance/ways.py`, which says what runs on which. Tests take the fixture `m`, or `way` where they make
their machines themselves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import Driver, Machine, MachineSpec, Snapshot
from tests.conformance.drivers import driver_of, is_firecracker, kind_of, spec_for
from tests.conformance.ways import MARKS, NAMED, not_run, others, ways
from tests.workshop import Workshop, template, workshop

__all__ = ["template", "workshop"]

DEADLINE_S = 120.0
_LEFT = pytest.StashKey[list[str]]()


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
    for mark, meaning in MARKS.items():
        config.addinivalue_line("markers", f"{mark}: {meaning}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" not in metafunc.fixturenames:
        return
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    params = [
        pytest.param((driver, origin), id=f"{driver}-{origin}", marks=[] if driver == "fake" else [pytest.mark.machine])
        for driver, origin in ways(marks)
    ]
    metafunc.parametrize("way", params, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test for which there is no way here is left out, and where drivers are named so is what makes no machine of them. Both are counted."""
    left = [item for item in items if _is_of_corpus(item) and not _has_way(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    config.stash[_LEFT] = [item.nodeid for item in left]


def _is_of_corpus(item: pytest.Item) -> bool:
    return item.path.is_relative_to(Path(__file__).parent)


def _has_way(item: pytest.Item) -> bool:
    if "way" not in getattr(item, "fixturenames", ()):
        return not NAMED
    return isinstance(item.callspec.params["way"], tuple)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What of the corpus was not run, and why."""
    alone = Counter(nodeid.split("::")[0] for nodeid in config.stash.get(_LEFT, []) if "[" not in nodeid)
    lines = [f"{driver}: {count} tests: {reason}" for driver, count, reason in not_run()]
    lines += [f"{file}: {count} tests have no machine of these drivers: `make test`" for file, count in alone.items()]
    if NAMED and lines:
        terminalreporter.section("of the conformance corpus, not run here")
        terminalreporter.write_line(
            f"{', '.join(others())}: all tests: `make test` and `make test-lab` have these drivers"
        )
        for line in lines:
            terminalreporter.write_line(line)


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
    return spec_for(driver, workshop.firecracker_spec() if is_firecracker(driver) else await workshop.spec())


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
