"""Which driver a node runs, with which jail and which network: what is decided before anything is started."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from firebrick.home import Home
from firebrick.image.model import Image, ImageManifest, Kernel, KernelManifest
from firebrick.machine import Allow, Fake, Network, SpecError, Transport
from firebrick.node.errors import NodeError
from firebrick.node.order import Resources
from firebrick.node.pool import driver
from firebrick.node.pool.template import machine_spec
from firebrick.node.settings import Allowed, DriverName, NodeSettings, read_settings


def settings(tmp_path: Path, text: str) -> NodeSettings:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return read_settings(file)


@pytest.mark.parametrize(
    ("text", "jailed"),
    [
        ("", False),
        ('[node]\ndriver = "firecracker"', True),
        ('[node]\ndriver = "firecracker"\njail = false', False),
        ("[node]\njail = true", True),
    ],
)
def test_firecracker_is_jailed_unless_told_not_to_be(tmp_path, text, jailed):
    assert settings(tmp_path, text).jailed is jailed


@pytest.mark.parametrize(
    ("told", "uid", "kind"),
    [
        (NodeSettings(), 0, Network.USER),
        (NodeSettings(jail=True), 0, Network.NAMESPACE),
        (NodeSettings(driver=DriverName.FIRECRACKER), 0, Network.NAMESPACE),
        (NodeSettings(driver=DriverName.FIRECRACKER, jail=False), 1000, Network.USER),
    ],
)
def test_a_namespace_wherever_the_node_can_make_one(monkeypatch, told, uid, kind):
    monkeypatch.setattr(driver.os, "geteuid", lambda: uid)
    assert driver.network_kind(told) is kind


async def test_a_jail_without_root_is_told_before_anything_is_made(monkeypatch, tmp_path):
    monkeypatch.setattr(driver.os, "geteuid", lambda: 1000)
    with pytest.raises(NodeError, match="only root can make jails") as caught:
        async with driver.open_driver(Home(tmp_path / "home"), NodeSettings(jail=True)):
            pass
    assert "--no-jail" in caught.value.hint
    assert not (tmp_path / "home").exists()


def test_what_is_allowed_becomes_the_policy(tmp_path):
    told = settings(
        tmp_path,
        '[[node.allow]]\nto = "*.example.org"\nports = [443]\n[[node.allow]]\nto = "192.0.2.0/24"\ntransport = "udp"\n',
    )
    assert driver.policy_of(told).allow == (
        Allow("*.example.org", (443,)),
        Allow("192.0.2.0/24", (), Transport.UDP),
    )


def test_what_cannot_be_reached_is_told():
    told = NodeSettings(allow=(Allowed(to="not a name"),))
    with pytest.raises(SpecError, match="not a name"):
        driver.policy_of(told)


@pytest.mark.parametrize("text", ['driver = "xen"', "jail = 1", "slots = 0", "allow = [{ports = [1]}]"])
def test_a_wrong_setting_names_itself(tmp_path, text):
    with pytest.raises(NodeError, match=text.split(" ", maxsplit=1)[0]):
        settings(tmp_path, f"[node]\n{text}\n")


def test_firecracker_gets_the_kernel_as_an_elf():
    about = KernelManifest(digest="k", elf_digest="e", version="6", package="p", definition="d", created=0)
    kernel = Kernel(
        name="debian", path=Path("/k/vmlinuz"), elf=Path("/k/vmlinux"), initrd=Path("/k/i"), digest="k", manifest=about
    )
    image = Image(
        name="base",
        path=Path("/i"),
        manifest=ImageManifest(digest="i", definition="d", kind="debian", size=1, created=0),
    )
    made = {}
    for name in ("firecracker", "qemu"):
        spec = machine_spec(
            image, kernel, Resources(), Fake(name=name), network=Network.NONE, policy=driver.policy_of(NodeSettings())
        )
        made[name] = spec.kernel.name
    assert made == {"firecracker": "vmlinux", "qemu": "vmlinuz"}


async def test_networks_are_opened_once_and_not_before_somebody_wants_one(tmp_path):
    opened = []

    class DoublePool:
        async def __aenter__(self):
            opened.append("in")
            return self

        async def __aexit__(self, *_):
            opened.append("out")

        @asynccontextmanager
        async def slot(self, policy, occupant):
            yield occupant

    async with AsyncExitStack() as stack:
        late = driver.LateSlots(DoublePool, stack)
        assert opened == []
        for name in ("a", "b"):
            async with late.slot(driver.policy_of(NodeSettings()), tmp_path / name) as slot:
                assert slot == tmp_path / name
        assert opened == ["in"]
    assert opened == ["in", "out"]
