"""Seats: one machine each, free again when it is gone, and not before."""

import pytest

from firebrick.machine.errors import HostError
from firebrick.machine.seat import Hold, Seats, kept


@pytest.fixture
def seats(tmp_path):
    return Seats(tmp_path / "seats", first_id=5000, most=3)


def test_everything_of_a_seat_follows_from_its_number(seats, tmp_path):
    with seats.take(tmp_path / "a") as a, seats.take(tmp_path / "b") as b:
        assert [(s.number, s.uid, s.gid, s.name) for s in (a, b)] == [(0, 5000, 5000, "fb0"), (1, 5001, 5001, "fb1")]
        assert a.file == tmp_path / "seats" / "0"
        assert a.file.read_text() == str(tmp_path / "a")
        assert (tmp_path / "seats").stat().st_mode & 0o077 == 0


def test_a_seat_is_free_again_when_it_is_left(seats, tmp_path):
    for _ in range(5):
        with seats.take(tmp_path / "gone") as seat:
            assert seat.number == 0


def test_when_all_are_taken_it_is_said(seats, tmp_path):
    with (
        seats.take(tmp_path / "a"),
        seats.take(tmp_path / "b"),
        seats.take(tmp_path / "c"),
        pytest.raises(HostError, match="all 3 seats of this host are taken"),
        seats.take(tmp_path / "d"),
    ):
        pass


def test_a_seat_is_not_given_away_as_long_as_its_occupants_directory_is_there(seats, tmp_path):
    occupant = tmp_path / "machine"
    occupant.mkdir()
    with seats.take(occupant) as seat:
        text = seat.file.read_text()
    seat.file.write_text(text)  # as a killed owner leaves it
    with seats.take(tmp_path / "other") as other:
        assert other.number == 1
    occupant.rmdir()
    with seats.take(tmp_path / "other") as other:
        assert other.number == 0


def test_what_a_dead_owner_left_is_ended_while_its_seat_is_kept(seats, tmp_path):
    occupant = tmp_path / "machine"
    occupant.mkdir()
    with seats.take(occupant) as seat:
        with kept(seat.file, occupant) as hold:
            assert hold is Hold.BUSY, "its owner is alive"
        text = seat.file.read_text()
    seat.file.write_text(text)
    with kept(seat.file, occupant) as hold:
        assert hold is Hold.KEPT
        occupant.rmdir()
        with seats.take(tmp_path / "other") as other:
            assert other.number == 1, "it was given away while it was kept"
    with seats.take(tmp_path / "other"), kept(seat.file, occupant) as hold:
        assert hold is Hold.BUSY
    for file in (seat.file, tmp_path / "seats" / "99"):
        with kept(file, occupant) as hold:
            assert hold is Hold.LOST


def test_where_seats_cannot_be_kept_it_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="cannot keep seats"), Seats(tmp_path / "file").take(tmp_path):
        pass


def test_a_machine_that_lives_on_keeps_its_seat_until_it_is_taken_over(tmp_path):
    seats = Seats(tmp_path / "seats")
    occupant = tmp_path / "machine"
    occupant.mkdir()
    with seats.take(occupant) as seat:
        with seats.take_over(seat, occupant) as hold:
            assert hold is Hold.BUSY
        seats.leave(seat)
        with seats.take_over(seat, occupant) as hold, seats.take_over(seat, occupant) as second:
            assert (hold, second) == (Hold.KEPT, Hold.BUSY)
            seats.leave(seat)
        with seats.take_over(seat, tmp_path / "other") as hold:
            assert hold is Hold.LOST
        with Seats(tmp_path / "seats").take_over(seat, occupant) as hold:
            assert hold is Hold.KEPT
            seats.leave(seat)
    assert seat.file.read_text() == str(occupant)
    with seats.take(tmp_path / "other") as other:
        assert other.number != seat.number
    occupant.rmdir()
    with seats.take(tmp_path / "other") as other:
        assert other.number == seat.number
