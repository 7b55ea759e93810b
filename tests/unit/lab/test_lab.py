"""The lab's pure parts: what it runs, where things are, and that only what is known comes in."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebrick.home import Home
from lab import rounds
from lab.__main__ import _split
from lab.binaries import BinaryError, _checked
from lab.drives import ground_inside
from lab.ground import Ground, NoGroundError
from lab.host import Place
from lab.packages import wanted_packages
from lab.project import _update
from lab.session import Session, paths_among, pytest_arguments
from tests.place import ROOT

GROUND = Ground(
    firecracker=Path("/a/firecracker"),
    jailer=Path("/a/jailer"),
    kernel=Path("/h/kernels/objects/b/vmlinux"),
    initrd=Path("/h/kernels/initramfs/0123.cpio"),
    root=Path("/h/images/objects/d/root.squashfs"),
    home=Path("/h"),
    kernel_args=("one", "two=2"),
)


def test_tests_find_the_ground_through_the_environment() -> None:
    assert Ground.find(GROUND.environment()) == GROUND


def test_without_a_lab_the_tests_say_what_to_start() -> None:
    with pytest.raises(NoGroundError, match="tools/lab"):
        Ground.find({"FIREBRICK_LAB_JAILER": "/x"})


def test_the_ground_has_other_paths_inside() -> None:
    inside = ground_inside(GROUND)
    assert inside.jailer == Path("/opt/ground/jailer")
    assert inside.initrd == Path("/opt/home/kernels/initramfs/0123.cpio")
    assert inside.kernel_args == GROUND.kernel_args


def test_a_program_that_is_not_the_known_one_is_refused() -> None:
    with pytest.raises(BinaryError, match=r"the jailer in .* should have 86622337"):
        _checked("jailer", b"something else")


@pytest.mark.parametrize(
    ("arguments", "last"),
    [
        ([], ["tests/lab", "tests/conformance"]),
        (["-k", "vsock"], ["-k", "vsock", "tests/lab", "tests/conformance"]),
        (["tests/lab/test_boot.py::test_x", "-x"], ["tests/lab/test_boot.py::test_x", "-x"]),
    ],
)
def test_all_lab_tests_are_run_where_none_is_named(arguments: list[str], last: list[str]) -> None:
    assert pytest_arguments(ROOT, arguments)[-len(last) :] == last


def test_a_command_comes_after_two_dashes() -> None:
    assert _split(["--project", "x", "--", "ls", "--", "-l"]) == (["--project", "x"], ["ls", "--", "-l"])
    assert _split(["-x"]) == (["-x"], [])


def test_packages_are_those_of_the_product_and_of_running_tests() -> None:
    names = {line.split(">")[0] for line in wanted_packages(ROOT / "pyproject.toml")}
    assert {"msgspec", "httpx", "pytest", "pytest-asyncio", "pytest-timeout"} <= names
    assert not {"mypy", "ruff", "pre-commit"} & names


def test_a_staged_tree_follows_the_tree(tmp_path: Path) -> None:
    project, stage = tmp_path / "project", tmp_path / "stage"
    (project / "src").mkdir(parents=True)
    for name in ("kept", "removed"):
        (project / "src" / name).write_text(name)
    _update(project, stage, [Path("src/kept"), Path("src/removed")])
    (project / "src/kept").write_text("changed")
    _update(project, stage, [Path("src/kept")])
    assert {file.name: file.read_text() for file in (stage / "src").iterdir()} == {"kept": "changed"}


def test_files_are_found_by_name_or_folder_and_the_long_ones_begin(tmp_path):
    for name in (
        "tests/lab/test_a.py",
        "tests/lab/test_node.py",
        "tests/lab/conftest.py",
        "tests/conformance/test_kill_points.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    everything = ["tests/conformance/test_kill_points.py", "tests/lab/test_node.py", "tests/lab/test_a.py"]
    assert rounds.test_files(tmp_path, []) == everything
    assert rounds.test_files(tmp_path, ["tests/lab"]) == everything[1:]
    assert rounds.test_files(tmp_path, ["tests/lab/test_a.py"]) == everything[2:]
    assert rounds.test_files(tmp_path, ["tests/lab/test_a.py::test_b"]) == ["tests/lab/test_a.py::test_b"]
    assert paths_among(tmp_path, ["-x", "tests/lab/test_a.py::test_b", "other"]) == ["tests/lab/test_a.py::test_b"]


def test_some_files_share_a_host():
    lab, listen, standby, one, exec_ = files = [
        "tests/lab/test_node.py",
        *("tests/conformance/test_listen.py", "tests/conformance/test_standby.py"),
        *("tests/conformance/test_listen.py::test_one", "tests/conformance/test_exec.py"),
    ]
    assert rounds.shared(files) == [(lab,), (listen, standby), (one,), (exec_,)]
    assert rounds.shared([lab]) == [(lab,)]


@pytest.mark.parametrize(("statuses", "result", "hosts"), [([0], 0, 1), ([1], 1, 1), ([70, 0], 0, 2), ([70] * 3, 1, 3)])
async def test_a_lost_host_is_replaced_and_a_failed_test_is_not_run_again(
    monkeypatch, tmp_path, capfd, statuses, result, hosts
):
    (tmp_path / "tests/lab").mkdir(parents=True)
    (tmp_path / "tests/lab/test_a.py").touch()
    left = list(statuses)

    async def run(session, place, hear):
        hear(b"what it said")
        return left.pop(0)

    monkeypatch.setattr(rounds, "run_session", run)
    session = Session(project=tmp_path, evidence=tmp_path / "evidence", tests=["-x"])
    assert await rounds.run_rounds(session, Place(Home(tmp_path), tmp_path)) == result
    assert left == []
    said = capfd.readouterr().out
    assert said.count("what it said") == hosts
    assert ("HOST LOST" in said.splitlines()[-1]) is (len(statuses) == 3)
