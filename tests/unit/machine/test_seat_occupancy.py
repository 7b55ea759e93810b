"""Seats that are taken before their machine is known, and seats nobody has."""

from pathlib import Path

from firebrick.machine.seat import Seats


def test_a_seat_is_occupied_later(tmp_path: Path):
    seats, machine = Seats(tmp_path / "seats"), tmp_path / "machine"
    with seats.take() as seat:
        assert (tmp_path / "seats/0").read_bytes() == b""
        seats.occupy(seat, tmp_path / "a much longer name than the next one")
        seats.occupy(seat, machine)
        assert (tmp_path / "seats/0").read_text() == str(machine)


def test_a_seat_is_vacant_when_nobody_has_it_and_its_machine_has_gone(tmp_path: Path):
    seats, machine = Seats(tmp_path / "seats"), tmp_path / "machine"
    with seats.vacant(0) as none:
        assert none is None
    with seats.take(machine) as seat, seats.vacant(0) as none:
        assert seat.number == 0 and none is None
    (tmp_path / "seats/0").write_text(str(machine))
    with seats.vacant(0) as left:
        assert left == seat
        with seats.take() as other:
            assert other.number == 1
    machine.mkdir()
    with seats.vacant(0) as none:
        assert none is None
