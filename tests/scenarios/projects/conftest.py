"""What the project scenarios share: repositories made at test time, `firebrick run` and `firebrick serve` as a user starts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firebrick.home import Home
from tests.place import make_home
from tests.scenarios.projects.programs import Runner, Server, serving
from tools import project


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_home(tmp_path_factory.mktemp("projects") / "home")


@pytest.fixture(scope="package")
def example(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The git repository of an example project, by name."""
    directory = tmp_path_factory.mktemp("repositories")

    def make(name: str) -> Path:
        target = directory / name
        if not target.exists():
            project.make(name, target)
        return target

    return make


@pytest.fixture
def repository(tmp_path: Path) -> Callable[..., Path]:
    """A git repository of the files given: path to content."""

    def make(**files: str) -> Path:
        target = tmp_path / "repository"
        for name, content in files.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        project.commit(target, "Start")
        return target

    return make


@pytest.fixture
def runner(home: Home) -> Runner:
    return Runner(home)


@pytest.fixture(scope="package")
def server(home: Home) -> Iterator[Server]:
    """A server that lives as long as the tests of this folder."""
    with serving(home) as running:
        yield running


@pytest.fixture(autouse=True, scope="package")
def no_machine_left(home: Home) -> Iterator[None]:
    """When all is over no directory of a machine is left."""
    yield
    assert not list(home.machines.glob("*"))
