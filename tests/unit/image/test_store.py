"""The store on images that are put there by hand: what it finds, what it refuses to remove. Real builds are in tests/image."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from firebrick.home import Home
from firebrick.image import (
    DamagedError,
    Image,
    ImageManifest,
    ImageStore,
    InUseError,
    KernelManifest,
    UnknownImageError,
    UnknownKernelError,
)
from firebrick.image.definition import load_definition
from firebrick.image.kernel import debian_definition
from firebrick.image.shelf import Shelf


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(Home(tmp_path / "home"), agent=tmp_path / "agent")


async def put(store: ImageStore, name: str, content: bytes, definition: str = "0") -> Image:
    digest = hashlib.sha256(content).hexdigest()
    shelf = Shelf(store.home.images, ImageManifest)
    async with shelf.staged() as staging:
        (staging / "root.squashfs").write_bytes(content)
        manifest = ImageManifest(
            digest=digest, definition=definition, kind="debian", size=len(content), created=time.time()
        )
        shelf.publish(staging, digest, manifest)
    shelf.point(name, digest)
    image = store.find_image(name)
    assert image is not None
    return image


def define(store: ImageStore, name: str, text: str = '[debian]\npackages = ["git"]\n') -> str:
    store.definitions.mkdir(parents=True, exist_ok=True)
    file = store.definitions / f"{name}.toml"
    file.write_text(text)
    return load_definition(file).digest()


async def test_an_image_is_found_by_name_and_by_digest(store: ImageStore):
    image = await put(store, "mine", b"content")
    assert image.path.read_bytes() == b"content"
    assert store.find_image(image.digest[:12]) == Image(
        name=image.digest[:12], path=image.path, manifest=image.manifest
    )
    for unknown in ("other", "", "..", "../images", image.digest[:4], "names/mine"):
        assert store.find_image(unknown) is None


async def test_an_image_whose_definition_has_not_changed_is_not_built(store: ImageStore):
    image = await put(store, "mine", b"content", define(store, "mine"))
    assert await store.ensure_image("mine") == image
    assert await store.ensure_image(store.definitions / "mine.toml") == image


async def test_the_same_definition_under_another_name_is_the_same_image(store: ImageStore):
    image = await put(store, "mine", b"content", define(store, "mine"))
    define(store, "yours")
    yours = await store.ensure_image("yours")
    assert (yours.name, yours.path) == ("yours", image.path)
    assert [i.name for i in store.list_images()] == ["mine", "yours"]


async def test_an_image_whose_definition_is_elsewhere_is_found_by_name(store: ImageStore):
    image = await put(store, "built-from-a-path", b"content")
    assert await store.ensure_image("built-from-a-path") == image
    with pytest.raises(UnknownImageError) as error:
        await store.ensure_image("nobody-knows")
    assert "base, toolchain" in error.value.hint


async def test_a_used_image_is_not_removed_until_its_user_is_gone(store: ImageStore, tmp_path: Path):
    image = await put(store, "mine", b"content")
    template = tmp_path / "template"
    template.mkdir()
    store.claim(image, template)
    store.claim(image, template)
    assert store.users(image.digest) == [template]
    with pytest.raises(InUseError, match=str(template)):
        await store.remove_image("mine")
    assert store.find_image("mine") == image
    template.rmdir()
    await store.remove_image("mine")
    assert store.find_image("mine") is None
    assert not image.path.exists()
    with pytest.raises(UnknownImageError):
        await store.remove_image("mine")


async def test_removing_one_of_two_names_keeps_the_image(store: ImageStore):
    image = await put(store, "one", b"content")
    await put(store, "two", b"content")
    await store.remove_image("one")
    assert store.find_image("one") is None
    assert image.path.exists()
    await put(store, "three", b"content")
    await store.remove_image(image.digest)
    assert store.list_images() == []
    assert not image.path.exists()


async def test_prune_removes_what_has_neither_name_nor_user(store: ImageStore, tmp_path: Path):
    old, used, new = [await put(store, "mine", word) for word in (b"old", b"used", b"new")]
    store.claim(used, tmp_path)
    gone = await store.prune_images()
    assert [image.digest for image in gone] == [old.digest]
    assert [image.digest for image in store.list_images()] == [new.digest, used.digest]


async def test_damage_is_seen_by_size_and_by_digest(store: ImageStore):
    image = await put(store, "mine", b"content")
    await store.verify_image(image)
    image.path.chmod(0o644)
    image.path.write_bytes(b"CONTENT")
    with pytest.raises(DamagedError, match="is damaged"):
        await store.verify_image(image)
    image.path.write_bytes(b"short")
    with pytest.raises(DamagedError, match="is damaged"):
        store.find_image("mine")
    await store.remove_image("mine")
    assert store.list_images() == []


async def put_kernel(store: ImageStore, modules: dict[str, bytes]) -> None:
    shelf = Shelf(store.home.kernels, KernelManifest)
    async with shelf.staged() as staging:
        (staging / "vmlinuz").write_bytes(b"kernel")
        (staging / "modules").mkdir()
        for name, content in modules.items():
            (staging / "modules" / name).write_bytes(content)
        manifest = KernelManifest(
            digest="d",
            elf_digest="e",
            version="6.1",
            package="p",
            definition=debian_definition(),
            created=0,
            modules=tuple(modules),
        )
        shelf.publish(staging, "key", manifest)
    shelf.point("debian", "key")


async def test_the_initramfs_follows_the_agent(store: ImageStore, tmp_path: Path):
    await put_kernel(store, {"a.ko": b"module a"})
    (tmp_path / "agent").write_bytes(b"agent 1")
    first = await store.ensure_kernel()
    assert first.path.read_bytes() == b"kernel"
    assert b"agent 1" in first.initrd.read_bytes()
    assert b"module a" in first.initrd.read_bytes()
    made = first.initrd.stat().st_mtime_ns
    again = await store.ensure_kernel("debian")
    assert (again, again.initrd.stat().st_mtime_ns) == (first, made)
    (tmp_path / "agent").write_bytes(b"agent 2")
    second = await store.ensure_kernel()
    assert second.digest != first.digest
    assert b"agent 2" in second.initrd.read_bytes()
    assert first.initrd.exists()


async def test_kernels_nobody_knows(store: ImageStore):
    assert store.find_kernel("debian") is None
    assert store.find_kernel("../x") is None
    assert store.list_kernels() == {}
    with pytest.raises(UnknownKernelError, match="`bsd`"):
        await store.ensure_kernel("bsd")
