"""Images of containers: from a folder of layouts and archives, and from a registry, with the real tools."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from firebrick.home import Home
from firebrick.image import SILENT, BuildError, ImageStore
from firebrick.image.oci_config import read_config
from firebrick.node.container.image import Containers
from firebrick.node.errors import ContainerError
from firebrick.node.settings import NodeSettings
from firebrick.process import run
from firebrick.workflow.container.container import Login
from tests.image.registry import serving
from tests.image.tools import content, layer, make_layout

FILES = [layer(("app", b"program", 0o755, 0), ("etc", None, 0o755, 0))]
CONFIG = {
    "Entrypoint": ["/app"],
    "Cmd": ["serve", "--now"],
    "Env": ["PATH=/usr/bin:/bin", "MODE=a=b"],
    "User": "1000:1000",
    "WorkingDir": "/srv",
    "ExposedPorts": {"8080/tcp": {}, "53/udp": {}, "9000": {}},
    "Healthcheck": {"Test": ["CMD", "/app", "ping"], "Interval": 5_000_000_000, "Retries": 3},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "containers"


@pytest.fixture
def containers(home: Home, store: ImageStore, folder: Path) -> Containers:
    return Containers(home, store, NodeSettings(containers=str(folder)))


@pytest.mark.parametrize("where", ["redis/7", "docker.io/library/redis/7", "library/redis/7"])
async def test_a_layout_of_the_folder(containers: Containers, store: ImageStore, folder: Path, where: str):
    make_layout(folder / where, FILES, "anything", CONFIG)
    found = await containers.ensure("redis:7", None, SILENT)
    image = store.find_image(found.name)
    assert image is not None
    assert content(image.path, "app") == b"program"
    assert found.config.entrypoint == ("/app",)
    assert found.config.command == ("serve", "--now")
    assert found.config.env == {"PATH": "/usr/bin:/bin", "MODE": "a=b"}
    assert (found.config.user, found.config.directory, found.config.ports) == ("1000:1000", "/srv", (8080, 9000))
    assert found.config.health is not None
    assert (found.config.health.test, found.config.health.interval) == (("CMD", "/app", "ping"), 5_000_000_000)
    assert await containers.ensure("docker.io/library/redis:7", None, SILENT) == found


async def test_a_layout_of_several_images(containers: Containers, store: ImageStore, folder: Path):
    make_layout(folder / "ghcr.io/team/app", FILES, "1.2", CONFIG)
    found = await containers.ensure("ghcr.io/team/app:1.2", None, SILENT)
    assert store.find_image(found.name) is not None
    with pytest.raises(ContainerError, match="no image `ghcr.io/team/app:1.3`"):
        await containers.ensure("ghcr.io/team/app:1.3", None, SILENT)


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
async def test_an_archive_of_the_folder(containers: Containers, folder: Path, tmp_path: Path, kind: str):
    layout = make_layout(tmp_path / "layout", FILES, "latest", CONFIG)
    target = folder / "redis" / "7.tar"
    target.parent.mkdir(parents=True)
    await run(["skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout}:latest", f"{kind}:{target}"], timeout=60)
    found = await containers.ensure("redis:7", None, SILENT)
    assert (found.config.entrypoint, found.config.ports) == (("/app",), (8080, 9000))


async def test_images_of_the_store_come_first(containers: Containers):
    assert (await containers.ensure("base", None, SILENT)).name == "base"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a b", "A:1", "x" * 1000, "", "-x", "a@sha256:1", "a:\n", "docker://"]
)
async def test_what_is_no_name_of_an_image(containers: Containers, name: str):
    with pytest.raises(ContainerError, match="no name of an image"):
        await containers.ensure(name, None, SILENT)


async def test_a_registry_nobody_allowed_is_not_asked(containers: Containers, tmp_path: Path):
    with serving(make_layout(tmp_path / "layout", FILES), "team/app") as (registry, host):
        with pytest.raises(ContainerError, match="registries"):
            try:
                await containers.ensure(f"{host}/team/app:1", None, SILENT)
            except ContainerError as error:
                raise ContainerError(f"{error} {error.hint}") from error
        assert registry.asked == []


async def test_a_registry(home: Home, store: ImageStore, tmp_path: Path):
    layout = make_layout(tmp_path / "layout", FILES, "latest", CONFIG)
    with serving(layout, "team/app", ("me", "a secret")) as (registry, host):
        containers = Containers(home, store, NodeSettings(registries=(host,)))
        with pytest.raises(ContainerError, match="cannot get the image"):
            await containers.ensure(f"{host}/team/app:1", None, SILENT)
        login = Login(username="me", password="a secret")
        found = await containers.ensure(f"{host}/team/app:1", login, SILENT)
        assert found.config.ports == (8080, 9000)
        assert any("/blobs/" in path for path in registry.asked)
        registry.asked.clear()
        assert await containers.ensure(f"{host}/team/app:1", login, SILENT) == found
        assert not any("/blobs/" in path for path in registry.asked), "it was here already"
    image = store.find_image(found.name)
    assert image is not None
    assert content(image.path, "app") == b"program"
    assert [path.suffix for path in home.containers.iterdir()] == [".json"]


async def test_a_layout_that_lies_is_a_build_error(tmp_path: Path):
    layout = make_layout(tmp_path / "layout", FILES, "latest", CONFIG)
    for blob in (layout / "blobs" / "sha256").iterdir():
        blob.write_bytes(b"{}" * 3)
    with pytest.raises(BuildError):
        await read_config(layout, "latest")
    shutil.rmtree(layout / "blobs")
    with pytest.raises(BuildError):
        await read_config(layout, "latest")


def test_what_a_dead_process_was_fetching_is_swept(containers: Containers, home: Home):
    left, ours = home.containers / ".fetch-999999999-x", home.containers / ".fetch-1-x"
    left.mkdir(parents=True)
    ours.mkdir()
    containers.sweep()
    assert (left.exists(), ours.exists()) == (False, True)
