"""Names in a guest's /etc/hosts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from firebrick.guest.client import Agent, Identity
from firebrick.guest.double import GuestDouble
from firebrick.node.hosts import add_names, edited

DEBIAN = "127.0.0.1\tlocalhost\n# a comment\n127.0.1.1\tbox box.example.org\n"


def test_names_are_added_below_what_is_there() -> None:
    text = edited(DEBIAN, {"redis": "127.1.0.1"})
    assert text == DEBIAN + "127.1.0.1\tredis\t# firebrick\n"


def test_an_empty_file_gets_localhost_too() -> None:
    lines = edited("", {"db": "127.1.0.1"}).splitlines()
    assert lines[0].split() == ["127.0.0.1", "localhost"]
    assert lines[-1].split()[:2] == ["127.1.0.1", "db"]


def test_a_name_moves_and_the_others_stay() -> None:
    text = edited(edited(DEBIAN, {"a": "127.1.0.1", "b": "127.1.0.2"}), {"a": "127.1.0.9"})
    assert [line.split()[0] for line in text.splitlines() if " a" in line.replace("\t", " ").split("#")[0]] == [
        "127.1.0.9"
    ]
    assert "127.1.0.2\tb" in text
    assert text.startswith(DEBIAN)


@given(st.text(max_size=200), st.dictionaries(st.sampled_from(["a", "b", "c.localhost"]), st.just("127.0.0.1")))
def test_doing_it_twice_changes_nothing(text: str, names: dict[str, str]) -> None:
    once = edited(text, names)
    assert edited(once, names) == once
    assert all(f"127.0.0.1\t{name}\t" in once for name in names)


async def test_the_file_of_a_guest_is_edited() -> None:
    double = GuestDouble()
    async with Agent.connect(double.connect(), Identity.fresh("x"), timeout=10) as agent:
        await add_names(agent.files, {"forge.localhost": "127.0.0.1"})
        await add_names(agent.files, {"redis": "127.1.0.1"})
        text = (await agent.files.read("/etc/hosts")).decode()
    await double.close()
    assert "127.0.0.1\tforge.localhost" in text
    assert "127.1.0.1\tredis" in text


def test_the_names_are_gone_through_once_and_not_for_each_word_of_the_file():
    class Counted(dict[str, str]):
        times = 0

        def __iter__(self):
            Counted.times += 1
            return super().__iter__()

    added = Counted({f"n{number}": "127.0.0.1" for number in range(100)})
    edited("1.2.3.4 n1 n2 n3\n" * 1000, added)
    assert Counted.times < 10
