"""Which images of the store a workflow may name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from firebrick.home import Home
from firebrick.image import SILENT, ImageStore
from firebrick.node.container.image import Containers, parse_reference
from firebrick.node.errors import ContainerError
from firebrick.node.settings import NodeSettings
from firebrick.process import Completed, ProcessError
from firebrick.workflow.container.container import Login

PRIVATE = parse_reference("registry.example/team/app:1.2").image


HUB = NodeSettings(registries=("docker.io",), containers_limit_mib=3)


def containers(
    tmp_path: Path, *made: str, defined: tuple[str, ...] = (), settings: NodeSettings | None = None
) -> Containers:
    found = {name: SimpleNamespace(name=name) for name in made}

    async def ensure_image(name: str, **_: object) -> SimpleNamespace:
        return SimpleNamespace(name=name, digest=f"digest of {name}")

    store = SimpleNamespace(list_definitions=lambda: list(defined), find_image=found.get, ensure_image=ensure_image)
    return Containers(Home(tmp_path), cast("ImageStore", store), settings or NodeSettings())


async def test_images_with_a_definition_and_those_made_by_hand_may_be_named(tmp_path: Path):
    ours = containers(tmp_path, "made-1.2", defined=("defined", "by-0123456789ab"))
    for name in ("made-1.2", "defined", "by-0123456789ab"):
        assert (await ours.ensure(name, None, SILENT)).name == name


@pytest.mark.parametrize("name", [PRIVATE, "0123456789ab", "0" * 63])
async def test_one_that_was_fetched_is_had_by_its_reference_alone(tmp_path: Path, name: str):
    """Whoever knows what it is called would have it without its password."""
    with pytest.raises(ContainerError, match="there is no image"):
        await containers(tmp_path, name).ensure(name, None, SILENT)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What programs were to be run; the copy of an image fails."""
    argvs: list[list[str]] = []

    async def run(argv: list[str], **_options: object) -> Completed:
        argvs.append(argv)
        if "copy" in argv:
            raise ProcessError("it failed", stderr="fatal: file too large")
        return Completed(tuple(argv), 0, b"{}", b"")

    monkeypatch.setattr("firebrick.node.container.image.run", run)
    return argvs


async def test_the_logins_of_the_user_of_the_node_are_nobody_elses(tmp_path: Path, asked: list[list[str]]):
    with pytest.raises(ContainerError, match="file too large"):
        await containers(tmp_path, settings=HUB).ensure("redis:7", None, SILENT)
    inspect, copy = asked
    assert "--no-creds" in inspect
    assert "--src-no-creds" in copy
    asked.clear()
    with pytest.raises(ContainerError, match="file too large"):
        await containers(tmp_path, settings=HUB).ensure("redis:7", Login(username="me", password="a secret"), SILENT)
    for argv in asked:
        assert "--authfile" in argv
        assert not any("no-creds" in word or "secret" in word for word in argv)


async def test_what_a_registry_gives_is_bounded_and_below_the_home(tmp_path: Path, asked: list[list[str]]):
    with pytest.raises(ContainerError):
        await containers(tmp_path, settings=HUB).ensure("redis:7", None, SILENT)
    copy = asked[1]
    assert f"--fsize={3 << 20}" in copy[: copy.index("skopeo")]
    assert any(word.startswith(f"--tmpdir={tmp_path}") for word in copy[: copy.index("copy")])
    assert list(Home(tmp_path).containers.iterdir()) == []
