"""What holds for every test: none is skipped unnoticed, unit tests touch nothing outside the process, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.guard import sealed
from tests.lanes import place_of, share_of
from tests.leak import Belongings, adopt_orphans, end_with_parent
from tests.skip import is_allowed

# Tests that start processes: they shall be gone, with their files, when the test is over.
_STARTS_PROCESSES = ("agent", "conformance", "image", "machine", "e2e", "lab", "network", "pager", "scenarios", "docs")


def pytest_configure(config: pytest.Config) -> None:
    adopt_orphans()
    if _is_lane(config):
        end_with_parent()


def _is_lane(config: pytest.Config) -> bool:
    """Whether this process was started by another one that shares the tests out."""
    return hasattr(config, "workerinput")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`, whatever `--dist` says: see `tests.lanes`."""
    from xdist.scheduler import LoadScopeScheduling  # the lab has none

    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return share_of(nodeid)

    config.option.loadscopereorder = False
    return Lanes(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a lane the order is that of `tests.lanes`."""
    if _is_lane(config):
        items.sort(key=lambda item: place_of(item.nodeid))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes that are no text are named by where they stand: lanes must give a test one name, and a time may be packed in them."""
    return argname if isinstance(val, bytes) and not val.isascii() else None


def _part(item: pytest.Item) -> str:
    """The folder of tests/ the test is in."""
    return item.path.relative_to(item.config.rootpath / "tests").parts[0]


@pytest.fixture(autouse=True)
def nothing_outside(request: pytest.FixtureRequest) -> Generator[None]:
    """Unit tests start no process and open no connection."""
    if _part(request.node) != "unit":
        yield
        return
    with sealed():
        yield


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """A test that starts processes ends them, closes its files and sockets, and leaves no mount and nothing of a network."""
    if _part(request.node) not in _STARTS_PROCESSES:
        yield
        return
    before = Belongings.now()
    yield
    left = Belongings.settled_since(before)
    if left:
        pytest.fail(f"the test left behind: {left}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip nobody has allowed is a failure: a test that did not run proves nothing."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and not is_allowed(item.nodeid):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped ({reason}), and FIREBRICK_ALLOW_SKIPS does not name it"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole file that skips itself."""
    report = yield
    if report.skipped and not is_allowed(collector.nodeid):
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} skipped itself, and FIREBRICK_ALLOW_SKIPS does not name it"
    return report
