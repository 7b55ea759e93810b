"""What machines are called."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from firebrick.machine import Fake, MachineSpec, SpecError
from firebrick.machine.place import Place

SPEC = MachineSpec(kernel=Path("k"), initrd=Path("i"), hostname="web")


def place(name: str) -> Place:
    return Place(Fake(), Path("home"), Path("home/machines", name), detached=False)


@pytest.mark.parametrize(
    ("directory", "name"),
    [("1f00", "web-1f00"), ("my vm_é", "web-my-vm--"), ("d" * 200, "web-" + "d" * 40)],
)
def test_every_directory_makes_a_name_a_host_can_have(directory: str, name: str) -> None:
    assert place(directory).fresh_identity(SPEC, None).hostname == name
    assert re.fullmatch(r"[A-Za-z0-9.-]{1,64}", name)


@pytest.mark.parametrize("name", ["a b", "a_b", "é", "x" * 65, "a\n"])
def test_a_name_the_agent_would_refuse_is_refused_first(name: str) -> None:
    with pytest.raises(SpecError, match="cannot call a machine") as raised:
        place("1f00").fresh_identity(SPEC, name)
    assert "at most 64" in raised.value.hint
    assert place("1f00").fresh_identity(SPEC, "x" * 64).hostname == "x" * 64
