"""What the tests in the lab share. They run where `tools/lab` has put them: in the emulated host, or with `--here` on one with KVM."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import bare_firecracker as bare
from lab.ground import Ground, lay_home

_LARGEST = 4 << 20
_KEPT = ("*.txt", "*.log", "*.json")
_REPORTS = pytest.StashKey[list[pytest.TestReport]]()


@pytest.fixture(scope="session")
def ground() -> Ground:
    """Where Firecracker, its jailer, kernel, initramfs and root image are."""
    return Ground.find()


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty scratch disk, to be copied."""
    path = tmp_path_factory.mktemp("scratch") / "empty.img"
    bare.make_scratch(path)
    return path


@pytest.fixture(scope="session")
def setup(ground: Ground, scratch: Path) -> bare.Setup:
    """What bare machines start from."""
    return bare.Setup(
        firecracker=ground.firecracker,
        kernel=ground.kernel,
        initrd=ground.initrd,
        root=ground.root,
        scratch=scratch,
        kernel_args=ground.kernel_args,
    )


@pytest.fixture(scope="session")
def users_home(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home directory of somebody who uses `firebrick`: `.firebrick` in it has the kernel and the image `base`. Shared, with its templates, by
    the tests that start `firebrick`: a boot takes long in the lab."""
    home = tmp_path_factory.mktemp("user")
    lay_home(ground, home / ".firebrick")
    return home


class Evidence:
    """What to keep of a test if it fails, besides its own small files and the kernel's log."""

    def __init__(self) -> None:
        self._sources: dict[str, Callable[[], str]] = {}

    def add(self, name: str, source: Callable[[], str]) -> None:
        """`source` is asked when the test is over, e.g. `evidence.add("console.txt", machine.console)`."""
        self._sources[name] = source

    def write(self, target: Path, directory: Path | None) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for name, source in self._sources.items():
            with contextlib.suppress(Exception):
                (target / name).write_text(source())
        for file in [found for pattern in _KEPT if directory for found in directory.rglob(pattern)]:
            if file.is_file() and file.stat().st_size <= _LARGEST:
                (target / str(file.relative_to(directory)).replace("/", "_")).write_bytes(file.read_bytes())
        log = subprocess.run(["dmesg"], capture_output=True, check=False)
        (target / "dmesg.txt").write_bytes(log.stdout)


@pytest.fixture(autouse=True)
def evidence(request: pytest.FixtureRequest) -> Iterator[Evidence]:
    kept = Evidence()
    yield kept
    folder = os.environ.get("FIREBRICK_LAB_EVIDENCE")
    if folder and any(report.failed for report in request.node.stash.get(_REPORTS, [])):
        directory = request.node.funcargs.get("tmp_path")
        kept.write(Path(folder) / re.sub(r"[^\w.-]+", "_", request.node.nodeid), directory)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    item.stash.setdefault(_REPORTS, []).append(report)
    return report
