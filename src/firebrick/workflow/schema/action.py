"""The shape of an `action.yml`: what every action says, and what `runs` says of each kind."""

from __future__ import annotations

from collections.abc import Mapping

from firebrick.workflow.schema import allowed
from firebrick.workflow.schema.element import ANYTHING, EMPTY, condition, names, text
from firebrick.workflow.schema.shape import Key, Kind, Leaf, Record, Shape
from firebrick.workflow.schema.step import ACTION_STEPS

NODE_VERSIONS = ("node12", "node16", "node20", "node24")

_INPUT = Shape(
    "the description of an input",
    leaves=EMPTY,
    records=(
        Record(
            {
                "description": Key(text("a text")),
                "required": Key(Shape("true or false", leaves=(Leaf(Kind.BOOLEAN), Leaf(Kind.TEXT)))),
                "default": Key(text("a text", allowed.ACTION_INPUT)),
                "deprecationMessage": Key(text("a text")),
            },
            others=ANYTHING,
        ),
    ),
)
_OUTPUT = Shape(
    "the description of an output",
    leaves=EMPTY,
    records=(Record({"description": Key(text("a text")), "value": Key(text("a text", allowed.ACTION_OUTPUT))}),),
)


def _by_name(what: str, shape: Shape) -> Key:
    return Key(Shape(what, leaves=EMPTY, records=(Record(others=shape),)))


def _action(runs: Shape) -> Shape:
    """An action file. Keys that are none of these are for marketplaces (`author`, `branding`) and may be anything."""
    known = {
        "name": Key(text("a text")),
        "description": Key(text("a text")),
        "inputs": _by_name("inputs by name", _INPUT),
        "outputs": _by_name("outputs by name", _OUTPUT),
        "runs": Key(runs, required=True),
    }
    return Shape("an action: a mapping with runs", records=(Record(known, others=ANYTHING),))


_USING = Key(text("composite, docker, or a version of node", filled=True), required=True)


def _runs(keys: Mapping[str, Key]) -> Shape:
    return _action(Shape("what the action runs", records=(Record({"using": _USING, **keys}),)))


def _path(what: str, *, required: bool = False) -> Key:
    return Key(text(what, filled=True), required=required)


_HOOKS = {
    "pre-if": Key(condition(allowed.ACTION_HOOK_IF, "always()")),
    "post-if": Key(condition(allowed.ACTION_HOOK_IF, "always()")),
}
# What else it has to say depends on the kind.
ACTION_OF_UNKNOWN_KIND = _action(Shape("what the action runs", records=(Record({"using": _USING}, others=ANYTHING),)))
COMPOSITE_ACTION = _runs({"steps": Key(ACTION_STEPS, required=True)})
JAVASCRIPT_ACTION = _runs(
    {"main": _path("a file of the action", required=True), "pre": _path("a file"), "post": _path("a file"), **_HOOKS}
)
DOCKER_ACTION = _runs(
    {
        "image": _path("Dockerfile, or an image as docker://alpine:3", required=True),
        "entrypoint": _path("a program of the image"),
        "pre-entrypoint": _path("a program of the image"),
        "post-entrypoint": _path("a program of the image"),
        "args": Key(Shape("a sequence of texts", items=text("a text", allowed.ACTION_CONTAINER))),
        "env": Key(names("names with their values", allowed.ACTION_CONTAINER, whole=allowed.ACTION_CONTAINER)),
        **_HOOKS,
    }
)
