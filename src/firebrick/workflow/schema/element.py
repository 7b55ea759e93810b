"""The shapes most places of a file have: a text, a choice, a number, names with their values, any tree."""

from __future__ import annotations

from firebrick.workflow.expression.parser import Allowed
from firebrick.workflow.schema.shape import Key, Kind, Leaf, Record, Shape


def text(what: str, at: Allowed | None = None, *, filled: bool = False, placed: bool = False) -> Shape:
    return Shape(what, leaves=(Leaf(Kind.FILLED if filled else Kind.TEXT, at, placed=placed),))


def choice(what: str, *choices: str) -> Shape:
    return Shape(what, leaves=(Leaf(choices=choices),))


def boolean(at: Allowed | None = None) -> Shape:
    return Shape("true or false", leaves=(Leaf(Kind.BOOLEAN, at),))


def number(what: str, at: Allowed | None = None) -> Shape:
    return Shape(what, leaves=(Leaf(Kind.NUMBER, at),))


def primitive(at: Allowed | None = None) -> Shape:
    leaves = (Leaf(Kind.BOOLEAN, at), Leaf(Kind.NUMBER, at), Leaf(Kind.TEXT, at))
    return Shape("a text, a number, true or false", leaves=leaves)


def condition(at: Allowed, otherwise: str = "success()") -> Shape:
    return Shape("a condition", leaves=(Leaf(Kind.CONDITION, at, otherwise=otherwise),))


def record(what: str, keys: dict[str, Key]) -> Shape:
    return Shape(what, records=(Record(keys),))


def names(what: str, at: Allowed, *, whole: Allowed | None = None) -> Shape:
    """A mapping of names to texts, which one expression may give as a whole where `whole` says what it may name."""
    return Shape(what, records=(Record(others=text("a text", at)),), expression=whole)


def texts(what: str, at: Allowed) -> Shape:
    """A sequence of texts, which one expression may give as a whole."""
    return Shape(what, items=text("a text that is not empty", at, filled=True), expression=at)


def one_or_more(what: str, at: Allowed | None = None, *, placed: bool = False) -> Shape:
    one = Leaf(Kind.FILLED, at, placed=placed)
    return Shape(what, leaves=(one,), items=Shape("a text that is not empty", leaves=(one,)))


def anything(at: Allowed | None = None, depth: int = 12) -> Shape:
    """Any tree of values."""
    below = anything(at, depth - 1) if depth else None
    leaves = (Leaf(Kind.BOOLEAN, at), Leaf(Kind.NUMBER, at), Leaf(Kind.NULL, at), Leaf(Kind.TEXT, at))
    return Shape("a value", leaves=leaves, items=below, records=(Record(others=below),) if below else ())


ANYTHING = anything()
EMPTY = (Leaf(Kind.NULL),)
