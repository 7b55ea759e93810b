from __future__ import annotations

import pytest

from firebrick.results.cache import Entry
from firebrick.results.errors import DeniedError, InvalidError, MissingError, QuotaError, TakenError
from firebrick.results.parts import Parts
from firebrick.results.token import Grant
from tests.unit.results.conftest import MAIN, PULL, SIDE, VERSION, World, body, grant


async def save(parts: Parts, by: Grant, key: str, data: bytes = b"data", version: str = VERSION) -> Entry:
    await parts.uploads.put_whole(await parts.cache.reserve(by, key, version), body(data))
    return await parts.cache.finalize(by, key, version, len(data))


async def found(parts: Parts, by: Grant, *keys: str, version: str = VERSION) -> str | None:
    entry = await parts.cache.lookup(by, keys, version)
    return None if entry is None else f"{entry.scope} {entry.key}"


async def test_exact_first_then_how_keys_begin_newest_first(parts: Parts):
    for key in ("deps-1", "deps-10", "deps-2", "tools-1"):
        await save(parts, grant(), key)
    assert await found(parts, grant(), "deps-1") == f"{MAIN} deps-1"
    assert await found(parts, grant(), "none", "deps-1") == f"{MAIN} deps-1"
    assert await found(parts, grant(), "none", "deps-") == f"{MAIN} deps-2"
    assert await found(parts, grant(), "none", "too", "deps-") == f"{MAIN} tools-1"
    assert await found(parts, grant(), "dep") == f"{MAIN} deps-2"
    assert await found(parts, grant(), "eps", "_eps", "d%") is None


async def test_keys_are_the_same_in_any_case_and_answered_as_they_were_written(parts: Parts):
    await save(parts, grant(), "Linux-Deps")
    assert await found(parts, grant(), "linux-DEPS") == f"{MAIN} Linux-Deps"
    assert await found(parts, grant(), "x", "LINUX") == f"{MAIN} Linux-Deps"
    with pytest.raises(TakenError):
        await parts.cache.reserve(grant(), "linux-deps", VERSION)


async def test_versions_and_repositories_do_not_mix(parts: Parts):
    await save(parts, grant(), "k")
    assert await found(parts, grant(), "k", version="b" * 64) is None
    assert await found(parts, grant(repository="acme/other"), "k") is None
    await save(parts, grant(), "k", version="b" * 64)


async def test_own_ref_comes_before_base_and_default_branch(parts: Parts):
    pull = grant(ref=PULL, read=(PULL, SIDE, MAIN))
    await save(parts, grant(), "k-1")
    assert await found(parts, pull, "k-1") == f"{MAIN} k-1"
    await save(parts, grant(ref=SIDE), "k-2")
    assert await found(parts, pull, "k-1", "k-") == f"{SIDE} k-2", "a beginning in a nearer scope wins"
    await save(parts, pull, "k-1")
    assert await found(parts, pull, "k-1") == f"{PULL} k-1"


async def test_no_branch_and_no_other_pull_request_reads_what_a_pull_request_wrote(parts: Parts):
    await save(parts, grant(ref=PULL), "k")
    assert await found(parts, grant(ref=MAIN), "k") is None
    assert await found(parts, grant(ref=SIDE), "k") is None
    assert await found(parts, grant(ref="refs/pull/8/merge"), "k") is None
    await save(parts, grant(ref=MAIN), "k")


async def test_a_run_that_may_not_write_is_told_in_words_clients_know(parts: Parts):
    with pytest.raises(DeniedError, match="^cache write denied:"):
        await parts.cache.reserve(grant(write=None), "k", VERSION)


async def test_a_reservation_is_one_jobs_until_it_is_too_old(parts: Parts, world: World):
    await parts.cache.reserve(grant(job="a"), "k", VERSION)
    with pytest.raises(TakenError):
        await parts.cache.reserve(grant(job="b"), "K", VERSION)
    assert await parts.cache.reserve(grant(job="a"), "k", VERSION), "the same job may begin anew"
    assert await parts.cache.reserve(grant(job="b", ref=SIDE), "k", VERSION), "another scope is another key"
    world.time.days(0.5)
    assert await parts.cache.reserve(grant(job="b"), "k", VERSION)


async def test_only_what_was_uploaded_in_full_becomes_an_entry(parts: Parts):
    with pytest.raises(MissingError):
        await parts.cache.finalize(grant(), "k", VERSION, 4)
    number = await parts.cache.reserve(grant(), "k", VERSION)
    with pytest.raises(InvalidError):
        await parts.cache.finalize(grant(), "k", VERSION, 0)
    await parts.uploads.put_whole(number, body(b"data"))
    with pytest.raises(InvalidError, match="not 5"):
        await parts.cache.finalize(grant(), "k", VERSION, 5)
    with pytest.raises(MissingError):
        await parts.cache.finalize(grant(job="other"), "k", VERSION, 4)
    assert await found(parts, grant(), "k") is None
    await parts.cache.finalize(grant(), "k", VERSION, 4)


@pytest.mark.parametrize("key", ["", "a,b", "x" * 513, "\ud800"])
async def test_keys_are_held_to_the_rules(parts: Parts, key: str):
    with pytest.raises(InvalidError, match="Key Validation Error"):
        await parts.cache.reserve(grant(), key, VERSION)
    with pytest.raises(InvalidError, match="Key Validation Error"):
        await parts.cache.lookup(grant(), ["good", key], VERSION)


async def test_ten_keys_and_no_more(parts: Parts):
    assert await found(parts, grant(), *(str(n) for n in range(10))) is None
    with pytest.raises(InvalidError, match="10"):
        await found(parts, grant(), *(str(n) for n in range(11)))
    assert await found(parts, grant(), "x" * 512) is None


async def test_the_least_recently_used_makes_room(world: World):
    size = 300 << 10
    async with world.open(cache_mib=1) as parts:
        for key in "abc":
            await save(parts, grant(), key, key.encode() * size)
        assert await found(parts, grant(), "a")
        await save(parts, grant(), "d", b"d" * size)
        assert [await found(parts, grant(), key) is not None for key in "abcd"] == [True, False, True, True]
        assert len(world.contents()) == 3
        with pytest.raises(QuotaError):
            await parts.cache.reserve(grant(), "e", VERSION, size=2 << 20)
        with pytest.raises(QuotaError):
            await save(parts, grant(), "e", b"e" * ((1 << 20) + 1))


async def test_a_pull_request_pushes_nothing_of_a_branch_out(world: World):
    size, pull = 300 << 10, grant(ref=PULL)
    async with world.open(cache_mib=1) as parts:
        await save(parts, grant(), "a", b"a" * size)
        await save(parts, grant(), "b", b"b" * size)
        await save(parts, pull, "p", b"p" * size)
        await save(parts, pull, "q", b"q" * size)
        assert await found(parts, pull, "p") is None
        assert await found(parts, pull, "q")
        await save(parts, grant(), "c", b"c" * size)
        assert [await found(parts, grant(), key) is not None for key in "abc"] == [True] * 3
        with pytest.raises(QuotaError, match="full of what its branches keep"):
            await save(parts, pull, "r", b"r" * size)
        assert await found(parts, pull, "r") is None


async def test_what_nobody_reads_for_a_week_goes(parts: Parts, world: World):
    await save(parts, grant(), "read")
    await save(parts, grant(), "unread")
    world.time.days(4)
    await found(parts, grant(), "read")
    world.time.days(4)
    await parts.uploads._database.transact(parts.cache.drop_unread)
    assert await found(parts, grant(), "unread") is None
    assert await found(parts, grant(), "read")
