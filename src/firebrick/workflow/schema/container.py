"""The shapes of `container` and `services` of a job."""

from __future__ import annotations

from firebrick.workflow.schema import allowed
from firebrick.workflow.schema.element import names, text, texts
from firebrick.workflow.schema.shape import Key, Kind, Leaf, Record, Shape

_CREDENTIALS = Shape(
    "username and password",
    records=(
        Record(
            {
                "username": Key(text("a text", allowed.CONTAINER_CREDENTIALS, filled=True)),
                "password": Key(text("a text", allowed.CONTAINER_CREDENTIALS, filled=True)),
            }
        ),
    ),
    expression=allowed.CONTAINER_CREDENTIALS,
)
_KEYS = {
    "image": Key(text("the name of an image", allowed.JOB, filled=True)),
    "env": Key(names("names with their values", allowed.JOB_OUTPUTS, whole=allowed.JOB)),
    "ports": Key(texts("a sequence of ports", allowed.JOB)),
    "volumes": Key(texts("a sequence of volumes", allowed.JOB)),
    "options": Key(text("options of docker create", allowed.JOB)),
    "credentials": Key(_CREDENTIALS),
}
_IMAGE = "the name of an image, or image with its options"
CONTAINER = Shape(_IMAGE, leaves=(Leaf(Kind.TEXT, allowed.JOB),), records=(Record(_KEYS),))
_SERVICE = Shape(
    _IMAGE,
    leaves=(Leaf(Kind.FILLED, allowed.JOB),),
    records=(
        Record(
            {
                **_KEYS,
                "entrypoint": Key(text("a program", allowed.JOB)),
                "command": Key(text("a command line", allowed.JOB)),
            }
        ),
    ),
)
SERVICES = Shape("containers by name", records=(Record(others=_SERVICE),), expression=allowed.JOB)
