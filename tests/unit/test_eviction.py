"""What goes where there is not room for all."""

from __future__ import annotations

import os
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from firebrick.eviction import Limit, last_use, surplus, touch

_THINGS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 4)), max_size=12)


def _size(thing: tuple[int, int]) -> int:
    return thing[0]


def _content(thing: tuple[int, int]) -> int:
    return thing[1]


@given(_THINGS, st.integers(0, 100), st.integers(0, 12))
def test_no_more_goes_than_has_to(things: list[tuple[int, int]], most_bytes: int, most: int) -> None:
    def is_within(left: list[tuple[int, int]]) -> bool:
        return len(left) <= most and sum(map(_size, left)) <= most_bytes

    gone = surplus(things, Limit(most, most_bytes), size=_size)
    count = len(gone)
    assert gone == things[:count]
    assert is_within(things[count:])
    assert not gone or not is_within(things[count - 1 :])


@given(_THINGS, st.integers(0, 100))
def test_what_is_shared_counts_once_until_the_last_one_goes(things: list[tuple[int, int]], most_bytes: int) -> None:
    sizes = dict[int, int]()
    things = [(sizes.setdefault(content, size), content) for size, content in things]

    def taken(left: list[tuple[int, int]]) -> int:
        return sum(sizes[content] for content in set(map(_content, left)))

    count = len(surplus(things, Limit(bytes=most_bytes), size=_size, content=_content))
    assert taken(things[count:]) <= most_bytes
    assert count == 0 or taken(things[count - 1 :]) > most_bytes


def test_a_touch_is_a_use(tmp_path: Path) -> None:
    path, began = tmp_path / "file", time.time() - 1
    path.touch()
    os.utime(path, (0, 0))
    assert last_use(path) == 0
    touch(path)
    assert last_use(path) > began
    touch(tmp_path / "none")
    assert last_use(tmp_path / "none") > began, "what is just going counts as used now"
