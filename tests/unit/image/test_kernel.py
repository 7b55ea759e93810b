from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firebrick.image.bzimage import payload
from firebrick.image.errors import BuildError
from firebrick.image.kernel import Wanted, load_order, read_dependencies
from firebrick.image.tuned import _FRAGMENT, lost_options

DEP = """\
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/char/hw_random/virtio-rng.ko.xz: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/fs/squashfs/squashfs.ko:
"""


def test_modules_come_after_what_they_depend_on():
    order = load_order(Wanted(("virtio_blk", "squashfs", "virtio_rng")), read_dependencies(DEP))
    assert [path.rsplit("/", 1)[1] for path in order] == [
        "virtio_ring.ko", "virtio.ko", "virtio_blk.ko", "squashfs.ko", "virtio-rng.ko.xz",
    ]  # fmt: skip


def test_what_is_built_in_needs_no_file_and_what_is_missing_is_an_error():
    wanted = Wanted(("ext4", "squashfs"))
    assert list(load_order(wanted, read_dependencies(DEP), {"ext4"})) == ["kernel/fs/squashfs/squashfs.ko"]
    with pytest.raises(BuildError, match="no module ext4"):
        load_order(wanted, read_dependencies(DEP))


def test_a_driver_and_what_it_alone_needs_are_loaded_for_its_device():
    dependencies = read_dependencies(
        DEP + "kernel/drivers/net/virtio_net.ko: kernel/net/core/failover.ko\nkernel/net/core/failover.ko:\n"
    )
    order = load_order(Wanted(("squashfs",), {"virtio_blk": 2, "virtio_rng": 4, "virtio_net": 1}), dependencies)
    assert {path.rsplit("/", 1)[1]: devices for path, devices in order.items()} == {
        "squashfs.ko": (), "virtio_ring.ko": (2, 4), "virtio.ko": (2, 4), "virtio_blk.ko": (2,), "virtio-rng.ko.xz": (4,),
        "failover.ko": (1,), "virtio_net.ko": (1,),
    }  # fmt: skip


def test_what_is_needed_always_is_not_bound_to_a_device_that_needs_it_too():
    order = load_order(Wanted(("virtio",), {"virtio_blk": 2}), read_dependencies(DEP))
    assert list(order.values()) == [(), (), (2,)]


@given(st.permutations(["virtio_blk", "virtio", "squashfs", "virtio_ring", "virtio_rng"]))
def test_no_module_is_loaded_twice_or_early_whatever_the_order(needed: list[str]):
    dependencies = read_dependencies(DEP)
    order = list(load_order(Wanted(needed), dependencies))
    assert sorted(order) == sorted(dependencies)
    for position, module in enumerate(order):
        assert set(dependencies[module]) <= set(order[:position])


def image(content: bytes, *, sectors: int = 2, offset: int = 64) -> bytes:
    """A bzImage with `content` as its payload."""
    data = bytearray((sectors + 1) * 512 + offset)
    data[0x1F1] = sectors
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", data, 0x248, offset, len(content) + 4)
    return bytes(data) + content + struct.pack("<I", 12345)


def test_the_payload_of_a_bzimage_is_found():
    assert payload(image(b"\x02\x21\x4c\x18 and so on")) == b"\x02\x21\x4c\x18 and so on"


@pytest.mark.parametrize("broken", [b"", b"MZ" * 400, image(b"x" * 100)[:-50]])
def test_what_is_no_bzimage_is_refused(broken: bytes):
    with pytest.raises(BuildError, match=r"no .*bzImage"):
        payload(broken)


def test_options_the_source_did_not_take_are_named():
    config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_D=m\nCONFIG_EE=y\n"
    fragment = "# comment\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=y\nCONFIG_D=n\nCONFIG_E=n\nCONFIG_D=y\n"
    assert lost_options(fragment, config) == ["CONFIG_C=y", "CONFIG_D=n", "CONFIG_D=y"]


def test_the_fragment_names_each_option_once():
    options = [line.split("=")[0] for line in _FRAGMENT.read_text().splitlines() if line.startswith("CONFIG_")]
    assert len(options) == len(set(options))
