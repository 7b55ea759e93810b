"""Which images of the store a workflow may name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from firebrick.home import Home
from firebrick.image import SILENT, ImageStore
from firebrick.node.container import Containers, parse_reference
from firebrick.node.errors import ContainerError
from firebrick.node.settings import NodeSettings

PRIVATE = parse_reference("registry.example/team/app:1.2").image


def containers(tmp_path: Path, *made: str, defined: tuple[str, ...] = ()) -> Containers:
    found = {name: SimpleNamespace(name=name) for name in made}
    store = SimpleNamespace(list_definitions=lambda: list(defined), find_image=found.get)
    return Containers(Home(tmp_path), cast("ImageStore", store), NodeSettings())


async def test_images_with_a_definition_and_those_made_by_hand_may_be_named(tmp_path: Path):
    ours = containers(tmp_path, "made-1.2", defined=("defined", "by-0123456789ab"))
    for name in ("made-1.2", "defined", "by-0123456789ab"):
        assert (await ours.ensure(name, None, SILENT)).name == name


@pytest.mark.parametrize("name", [PRIVATE, "0123456789ab", "0" * 63])
async def test_one_that_was_fetched_is_had_by_its_reference_alone(tmp_path: Path, name: str):
    """Whoever knows what it is called would have it without its password."""
    with pytest.raises(ContainerError, match="there is no image"):
        await containers(tmp_path, name).ensure(name, None, SILENT)
