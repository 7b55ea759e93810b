from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from firebrick.results.artifact import Finished
from firebrick.results.errors import InvalidError, MissingError, QuotaError, TakenError
from firebrick.results.parts import Parts
from firebrick.results.record import Artifact, Offer
from firebrick.results.token import Grant
from tests.unit.results.conftest import World, body, grant


async def store(parts: Parts, by: Grant, name: str, data: bytes = b"data", **more) -> Artifact:
    number = await parts.artifacts.create(by, name, **more)
    await parts.uploads.put_whole(number, body(data))
    return await parts.artifacts.finalize(by, Finished(name=name, size=len(data), sha256=None))


async def test_an_artifact_belongs_to_its_run(parts: Parts):
    stored = await store(parts, grant("1"), "n")
    assert await parts.artifacts.find_all(grant("1", "another job")) == [stored]
    assert await parts.artifacts.find_all(grant("2")) == []
    assert await parts.artifacts.find_all(grant("1", repository="acme/other")) == []
    with pytest.raises(MissingError):
        await parts.artifacts.delete(grant("2"), "n")
    with pytest.raises(MissingError):
        await parts.artifacts.find(stored.number, tenant="host/acme/other")


async def test_the_newest_is_listed_first_and_a_filter_narrows(parts: Parts):
    one, two = await store(parts, grant(), "one"), await store(parts, grant(), "two")
    assert await parts.artifacts.find_all(grant()) == [two, one]
    assert await parts.artifacts.find_all(grant(), name="one") == [one]
    assert await parts.artifacts.find_all(grant(), number=two.number) == [two]
    assert await parts.artifacts.find_all(grant(), name="one", number=two.number) == []


async def test_a_name_is_taken_once_stored_and_while_another_job_uploads(parts: Parts):
    await store(parts, grant(), "n")
    with pytest.raises(TakenError, match="already exists on the workflow run"):
        await parts.artifacts.create(grant(), "n")
    await parts.artifacts.create(grant(job="a"), "m")
    with pytest.raises(TakenError):
        await parts.artifacts.create(grant(job="b"), "m")


async def test_a_job_that_tries_again_begins_anew(parts: Parts, world: World):
    first = await parts.artifacts.create(grant(), "n")
    await parts.uploads.put_block(first, "YQ==", body(b"half"))
    second = await parts.artifacts.create(grant(), "n")
    assert second != first
    assert world.staged() == set()
    with pytest.raises(MissingError):
        await parts.uploads.put_block(first, "YQ==", body(b"late"))


@pytest.mark.parametrize(
    ("size", "sha256", "words"),
    [(5, None, "4 bytes, not 5"), (4, "0" * 64, "SHA-256"), (4, hashlib.sha256(b"data").hexdigest(), "")],
)
async def test_what_was_uploaded_is_what_the_client_says(parts: Parts, size: int, sha256: str | None, words: str):
    await parts.uploads.put_whole(await parts.artifacts.create(grant(), "n"), body(b"data"))
    finished = Finished(name="n", size=size, sha256=sha256)
    if not words:
        assert (await parts.artifacts.finalize(grant(), finished)).sha256 == sha256
        return
    with pytest.raises(InvalidError, match=words):
        await parts.artifacts.finalize(grant(), finished)
    assert await parts.artifacts.find_all(grant()) == []


async def test_nothing_is_finished_that_was_not_begun_or_not_committed(parts: Parts):
    with pytest.raises(MissingError):
        await parts.artifacts.finalize(grant(), Finished(name="n", size=0, sha256=None))
    number = await parts.artifacts.create(grant(), "n")
    await parts.uploads.put_block(number, "YQ==", body(b"x"))
    with pytest.raises(InvalidError, match="not committed"):
        await parts.artifacts.finalize(grant(), Finished(name="n", size=1, sha256=None))
    with pytest.raises(MissingError):
        await parts.artifacts.finalize(grant(job="other"), Finished(name="n", size=1, sha256=None))


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "a\\b", 'a"b', "a:b", "a*", "a?", "a<", "a>", "a|", "a\nb", "\0", "x" * 257, "\ud800"],
)
async def test_names_are_held_to_the_rules(parts: Parts, name: str):
    with pytest.raises(InvalidError):
        await parts.artifacts.create(grant(), name)


async def test_an_artifact_expires_and_its_name_is_free_again(parts: Parts, world: World):
    soon = world.time.now + 86_400_000_000
    short = await store(parts, grant(), "short", expires_us=soon)
    long = await store(parts, grant(), "long", expires_us=soon * 2)
    assert short.expires_us == soon
    assert long.expires_us - long.created_us <= 90 * 86_400_000_000
    with pytest.raises(InvalidError, match="past"):
        await parts.artifacts.create(grant(), "x", expires_us=world.time.now - 1)
    world.time.days(2)
    assert await parts.artifacts.find_all(grant()) == [long]
    with pytest.raises(MissingError):
        await parts.artifacts.find(short.number)
    assert (await store(parts, grant(), "short")).number > long.number


async def test_a_repository_keeps_so_much_and_no_more(world: World):
    async with world.open(artifacts_mib=1) as parts:
        await store(parts, grant("1"), "n", b"x" * (700 << 10))
        with pytest.raises(QuotaError, match="insufficient usage"):
            await store(parts, grant("2"), "n", b"x" * (700 << 10))
        assert await parts.artifacts.find_all(grant("2")) == []
        await store(parts, grant("2", repository="acme/other"), "n", b"x" * (700 << 10))


class Watching:
    """Keeps what it is told, refuses what is `bad`, and offers what a test puts into `offered`."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.offered: list[Offer] = []

    async def keep(self, artifact: Artifact, content: Path) -> None:
        if artifact.name == "bad":
            raise QuotaError("no room for it")
        self.told.append(f"kept {artifact.name} {content.read_bytes().decode()}")

    async def drop(self, artifact: Artifact) -> None:
        self.told.append(f"dropped {artifact.name}")

    def offers(self) -> list[Offer]:
        return self.offered


async def test_who_watches_a_run_is_told_and_may_refuse(parts: Parts, world: World):
    watching = Watching()
    with world.watchers.watched(grant().tenant, "1", watching):
        await store(parts, grant("1"), "n")
        await store(parts, grant("2"), "n")
        with pytest.raises(QuotaError, match="no room"):
            await store(parts, grant("1"), "bad")
        assert [each.name for each in await parts.artifacts.find_all(grant("1"))] == ["n"]
        await parts.artifacts.delete(grant("1"), "n")
    await store(parts, grant("1"), "after")
    assert watching.told == ["kept n data", "dropped n"]


async def test_what_a_run_keeps_elsewhere_is_offered_to_its_clients(parts: Parts, world: World):
    watching, made = Watching(), []

    def writer(data: bytes) -> Callable[[BinaryIO], None]:
        def write(file: BinaryIO) -> None:
            made.append(data)
            file.write(data)

        return write

    with world.watchers.watched(grant().tenant, "1", watching):
        watching.offered = [Offer(job="a", name="n", version=1, write=writer(b"one"))]
        [listed], [again] = await asyncio.gather(*(parts.artifacts.find_all(grant("1")) for _ in range(2)))
        assert listed == again
        assert (listed.job, parts.artifacts.path(listed).read_bytes()) == ("a", b"one")
        with pytest.raises(TakenError):
            await parts.artifacts.create(grant("1"), "n")
        assert await parts.artifacts.find_all(grant("2")) == []
        watching.offered = [Offer(job="a", name="n", version=2, write=writer(b"two"))]
        [newer] = await parts.artifacts.find_all(grant("1"))
        assert parts.artifacts.path(newer).read_bytes() == b"two"
    assert made == [b"one", b"two"]
    assert world.staged() == set()
