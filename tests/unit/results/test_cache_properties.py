"""What is found, against the rule written down once more, without a database."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firebrick.results.blob_api import read_block_list
from firebrick.results.errors import InvalidError, TakenError
from tests.unit.results.conftest import VERSION, World, body, grant

COUNT = itertools.count()
REFS = ("refs/heads/main", "refs/heads/side", "refs/pull/7/merge")
# Few characters, so that keys begin like others; letters of both cases, and what some databases give a meaning.
KEYS = st.text("aAb-%_é", min_size=1, max_size=4)
SAVES = st.lists(st.tuples(st.sampled_from(REFS), KEYS), max_size=12)


def expected(saved: list[tuple[str, str]], scopes: tuple[str, ...], keys: list[str]) -> str | None:
    for scope in scopes:
        there = [key for ref, key in saved if ref == scope]
        for key in keys:
            if exact := [each for each in there if each.casefold() == key.casefold()]:
                return f"{scope} {exact[0]}"
            if begun := [each for each in there if each.casefold().startswith(key.casefold())]:
                return f"{scope} {begun[-1]}"
    return None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(saves=SAVES, scopes=st.permutations(REFS), keys=st.lists(KEYS, min_size=1, max_size=4))
def test_the_first_scope_and_key_that_has_one_wins(tmp_path: Path, saves, scopes, keys):
    async def run() -> None:
        async with World(tmp_path / str(next(COUNT))).open() as parts:
            saved: list[tuple[str, str]] = []
            for ref, key in saves:
                try:
                    upload = await parts.cache.reserve(grant(ref=ref), key, VERSION)
                except TakenError:
                    assert (ref, key.casefold()) in {(scope, there.casefold()) for scope, there in saved}
                    continue
                await parts.uploads.put_whole(upload, body(b"x"))
                await parts.cache.finalize(grant(ref=ref), key, VERSION, 1)
                saved.append((ref, key))
            entry = await parts.cache.lookup(grant(read=tuple(scopes)), keys, VERSION)
            found = None if entry is None else f"{entry.scope} {entry.key}"
            assert found == expected(saved, tuple(scopes), keys)

    asyncio.run(run())


@given(st.one_of(st.binary(max_size=200), st.text("<>/BlockList Latest&;!x", max_size=200).map(str.encode)))
def test_any_bytes_are_a_block_list_or_refused(data: bytes):
    with contextlib.suppress(InvalidError):
        assert all(isinstance(each, str) for each in read_block_list(data))
