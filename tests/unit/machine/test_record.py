"""A jail that cannot be ended: what went wrong first is told, and what is left is found again."""

import errno
from pathlib import Path

import pytest

from firebrick import machine
from firebrick.machine import Fake, HostError, MachineSpec, State, owner
from firebrick.machine.jail import record
from firebrick.machine.jail.record import Record, ended
from firebrick.machine.seat import Seats


@pytest.fixture
def seats(tmp_path) -> Seats:
    return Seats(tmp_path / "seats", first_id=3_000_000_000)  # users nobody has


@pytest.fixture
def stuck(monkeypatch) -> None:
    def end(_: Record) -> None:
        raise HostError("cannot end the processes [7] of a jail: they do not die")

    monkeypatch.setattr(Record, "_end_all", end)


async def lived(seats: Seats, directory: Path, error: Exception | None = None) -> None:
    """A jailed machine's whole life on the host; `error` ends it."""
    with owner.claimed(directory, directory.name), seats.take(directory) as seat:
        jailed = Record.of(seat, None)
        async with ended(jailed, directory, lambda: False):
            jailed.write(directory)
            (directory / owner.ADOPTABLE).touch()
            if error is not None:
                raise error


async def test_of_a_jail_that_was_ended_nothing_is_left(seats, tmp_path):
    await lived(seats, tmp_path / "machines" / "m")
    assert list((tmp_path / "machines").iterdir()) == []
    with seats.take() as seat:
        assert seat.number == 0


async def test_what_went_wrong_first_is_told(seats, tmp_path, stuck):
    with pytest.raises(KeyError, match="first") as told:
        await lived(seats, tmp_path / "machines" / "m", KeyError("first"))
    assert "they do not die" in told.value.__notes__[0]


async def test_what_could_not_be_ended_is_found_again(seats, tmp_path, monkeypatch, request):
    directory = tmp_path / "machines" / "m"
    request.getfixturevalue("stuck")
    with pytest.raises(HostError, match="do not die"):
        await lived(seats, directory)
    assert record.read(directory) is not None
    assert machine.adoptable(tmp_path / "machines") == []
    assert not (directory / owner.ADOPTABLE).exists()
    assert machine.reap(tmp_path / "machines") == []
    with seats.take() as seat:
        assert seat.number == 1
    monkeypatch.undo()
    assert machine.reap(tmp_path / "machines") == ["m"]
    assert not directory.exists()
    with seats.take() as seat:
        assert seat.number == 0


async def test_a_record_that_cannot_be_removed_counts_as_one_of_something_that_lives(seats, tmp_path, monkeypatch):
    directory = tmp_path / "machines" / "m"
    unlink = Path.unlink

    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        if path.name == record.FILE:
            raise OSError(errno.EIO, "Input/output error")
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as m:
        m.setattr(Path, "unlink", refuse)
        with pytest.raises(HostError, match="cannot remove .*jail.json: Input/output error"):
            await lived(seats, directory)
    assert machine.reap(tmp_path / "machines") == ["m"]


async def test_a_machine_whose_release_cannot_be_noted_goes_on(tmp_path, monkeypatch):
    spec = MachineSpec(kernel=tmp_path / "kernel", initrd=tmp_path / "initrd")
    async with machine.launch(spec, Fake(), home=tmp_path, detached=True) as m:
        with monkeypatch.context() as context:
            context.setattr(Path, "write_bytes", _full)
            with pytest.raises(HostError, match=r"owner\.json: No space left"):
                await m.release()
        assert m.state is State.RUNNING
        assert (await m.run(["true"])).status.ok
    assert list((tmp_path / "machines").iterdir()) == []


def _full(path: Path, _: bytes) -> int:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))
