"""`container` and `services` of a job into records."""

from __future__ import annotations

from typing import Any

from firebrick.workflow.schema.shape import Fields, Walk
from firebrick.workflow.step_reader import template_map
from firebrick.workflow.syntax import Container, Credentials, Services
from firebrick.workflow.template import Template, TemplateList


def read_container(written: Any, walk: Walk) -> Container | None:
    """One container; None where there is none: nothing is written, or the name of the image is empty."""
    if isinstance(written, Template):
        _check_image(written, walk)
        return Container(image=written) if written.raw else None
    if not isinstance(written, Fields):
        return None
    image = written.get("image")
    if image is None:
        if "image" not in written.places:
            walk.problem(written.position, "Container image cannot be empty", "image with the name of one")
        return None
    _check_image(image, walk)
    return Container(
        image=image,
        env=template_map(written.get("env")),
        ports=_list(written.get("ports")),
        volumes=_list(written.get("volumes")),
        options=written.get("options"),
        credentials=_credentials(written.get("credentials")),
        entrypoint=written.get("entrypoint"),
        command=written.get("command"),
    )


def _check_image(image: Template, walk: Walk) -> None:
    if image.raw.strip() == "docker://":
        walk.problem(image.position, "Container image cannot be empty", "the name of an image behind docker://")


def read_services(written: Any, walk: Walk) -> Services:
    if isinstance(written, Template):
        return Services(expression=written)
    if not isinstance(written, Fields):
        return Services()
    containers = {name: read_container(each, walk) for name, each in written.items()}
    return Services({name: container for name, container in containers.items() if container is not None})


def _list(written: Any) -> TemplateList:
    if isinstance(written, Template):
        return TemplateList(expression=written)
    return TemplateList(tuple(item for item in written or () if item is not None))


def _credentials(written: Any) -> Credentials | None:
    if isinstance(written, Template):
        return Credentials(expression=written)
    if not isinstance(written, Fields):
        return None
    return Credentials(username=written.get("username"), password=written.get("password"))
