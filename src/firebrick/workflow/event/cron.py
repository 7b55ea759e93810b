"""Schedules: five fields of cron in a time zone, and when they are next due. Pure: the moment is given.

A field is `*` or a list of numbers, ranges (`1-5`) and names (`JAN`, `MON`), each with a step (`*/15`, `1-30/5`, `20/15`). As in POSIX, where both
the day of the month and the day of the week are restricted a day needs to fit one of them; a field that begins with `*` restricts nothing.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_INVALID = "Invalid cron expression. Expected format: '* * * * *' (minute hour day month weekday)"
_PART = re.compile(
    r"(?P<star>\*)(?:/(?P<star_step>[0-9]{1,4}))?"
    r"|(?P<low>[0-9]{1,4}|[A-Z]{3})(?:-(?P<high>[0-9]{1,4}|[A-Z]{3}))?(?:/(?P<step>[0-9]{1,4}))?"
)
_MAX_TEXT = 256
# February 29 of a given weekday comes back after at most forty years.
_HORIZON_DAYS = 366 * 41


class CronError(ValueError):
    """A schedule that cannot be read. `expected` says what would have been right."""

    def __init__(self, expected: str, message: str = _INVALID) -> None:
        super().__init__(message)
        self.expected = expected


@dataclass(frozen=True, slots=True)
class _Field:
    what: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 6, _DAYS),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed schedule. Weekdays count from Sunday, which is 0. `any_day` and `any_weekday` say that the field restricts nothing."""

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool
    zone: str = "UTC"

    def next_after(self, moment: datetime) -> datetime | None:
        """The first time after `moment` (which knows its zone) that is due, in UTC; None where no day ever fits.

        A time the clocks skip is due when they go on; one they show twice is due the first time."""
        zone = _find_zone(self.zone)
        first = moment.astimezone(zone).date()
        # The day before: what its skipped times became may still be to come.
        for offset in range(-1, _HORIZON_DAYS):
            day = _later(first, offset)
            if day is None:
                return None
            if self._fits(day):
                due = min((at for at in self._times(day, zone) if at > moment), default=None)
                if due is not None:
                    return due
        return None

    def _fits(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_date = day.day in self.days
        by_weekday = day.isoweekday() % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return by_date and by_weekday
        return by_date or by_weekday

    def _times(self, day: date, zone: tzinfo) -> Iterator[datetime]:
        for hour in self.hours:
            for minute in self.minutes:
                yield _instant(datetime.combine(day, time(hour, minute)), zone)

    @property
    def is_possible(self) -> bool:
        """Whether any day fits: February 30 never comes."""
        if not self.any_weekday:
            return True
        return any(min(self.days) <= _LONGEST[month] for month in self.months)


_LONGEST = {month: calendar.monthrange(2024, month)[1] for month in range(1, 13)}


def _later(day: date, days: int) -> date | None:
    try:
        return day + timedelta(days=days)
    except OverflowError:
        return None


def _instant(wall: datetime, zone: tzinfo) -> datetime:
    local = wall.replace(tzinfo=zone, fold=0)
    at = local.astimezone(UTC)
    if at.astimezone(zone).replace(tzinfo=None) == wall:
        return at
    # The clocks skip this time. Seen with the offset from after the gap it lies before it: look for the gap's end in between.
    low, high = local.replace(fold=1).astimezone(UTC), at
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(zone).replace(tzinfo=None) < wall:
            low = middle
        else:
            high = middle
    return (high + timedelta(milliseconds=500)).replace(microsecond=0)


def parse_cron(text: str, zone: str = "UTC") -> Cron:
    """Raises CronError: also for a zone that is not known, and days that never come."""
    fields = text.split()
    if len(text) > _MAX_TEXT or len(fields) != len(_FIELDS):
        raise CronError("five fields: minute, hour, day of the month, month, day of the week")
    minutes, hours, days, months, weekdays = (
        _parse_field(words.upper(), field) for words, field in zip(fields, _FIELDS, strict=True)
    )
    _find_zone(zone)
    cron = Cron(
        text=text,
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=days,
        months=months,
        weekdays=weekdays,
        any_day=fields[2].startswith("*"),
        any_weekday=fields[4].startswith("*"),
        zone=zone,
    )
    if not cron.is_possible:
        raise CronError("a day that its months have")
    return cron


def _parse_field(words: str, field: _Field) -> frozenset[int]:
    found: set[int] = set()
    for word in words.split(","):
        match = _PART.fullmatch(word)
        if match is None:
            raise CronError(f"'*', numbers, ranges and steps as the {field.what}, not '{word}'")
        found.update(_numbers(match, field))
    return frozenset(found)


def _numbers(match: re.Match[str], field: _Field) -> range:
    if match["star"]:
        return range(field.low, field.high + 1, _step(match["star_step"], field))
    low = _number(match["low"], field)
    high = _number(match["high"], field) if match["high"] else (field.high if match["step"] else low)
    if low > high:
        raise CronError(f"a range of the {field.what} that begins with its lower end, not '{match[0]}'")
    return range(low, high + 1, _step(match["step"], field))


def _step(text: str | None, field: _Field) -> int:
    step = int(text) if text else 1
    if step < 1:
        raise CronError(f"a step of the {field.what} above 0")
    return step


def _number(word: str, field: _Field) -> int:
    number = field.names.index(word) + field.low if word in field.names else int(word) if word.isdecimal() else -1
    if not field.low <= number <= field.high:
        raise CronError(f"{field.low} to {field.high} as the {field.what}, not '{word}'")
    return number


def _find_zone(name: str) -> tzinfo:
    if name == "UTC":  # known also where the host has no time zone database
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        message = f"Invalid timezone '{name[:_MAX_TEXT]}'"
        raise CronError("a name of the IANA time zone database, as Europe/Berlin", message) from None
