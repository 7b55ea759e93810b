"""What steps add to the environment of those after them, one variable a line or many at once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from firebrick.node.step.bench import Variables
from firebrick.node.step.filecommand import add_environment, add_path
from firebrick.workflow.command.file import FileCommandError


class Counted(dict[str, str]):
    """How often all of it was gone through."""

    times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()

    def keys(self):
        self.times += 1
        return super().keys()

    def items(self):
        self.times += 1
        return super().items()


def bench(env: dict[str, str] | None = None) -> SimpleNamespace:
    variables = Variables(env=env if env is not None else {})
    return SimpleNamespace(variables=variables, env=variables.env, path=())


def test_a_variable_is_added_without_a_look_at_the_others():
    env = Counted({f"n{number}": "x" for number in range(1000)})
    one = bench(env)
    for number in range(100):
        add_environment(one, {f"n{number}": "y"})
    assert one.variables.env["n99"] == "y"
    assert one.variables.env is env
    assert env.times == 0


def test_what_is_added_is_bounded_and_replacing_gives_back():
    one = bench({"LONG": "z"})
    for size in (1_000_000, 500_000, 1_000_000):
        add_environment(one, {"LONG": "x" * size})
    with pytest.raises(FileCommandError, match="1024 KiB"):
        add_environment(one, {"A": "a" * 30_000, "B": "b" * 30_000})
    assert one.variables.env.keys() == {"LONG"}
    add_environment(one, {"LONG": ""})
    add_environment(one, {"A": "a" * 500_000, "B": "b" * 500_000})


def test_directories_are_few():
    one = bench()
    add_path(one, [f"/d{number}" for number in range(1000)])
    add_path(one, ["/d7"])
    with pytest.raises(FileCommandError, match="1000 directories"):
        add_path(one, ["/more"])
    assert len(one.path) == 1000
