from pathlib import Path

import pytest

from firebrick.machine import FirecrackerSettings, SpecError
from firebrick.machine.firecracker.settings import PREFIX


def read(**given) -> FirecrackerSettings:
    return FirecrackerSettings.from_environment({PREFIX + name: str(value) for name, value in given.items()})


def test_nothing_said_is_the_default():
    assert read() == FirecrackerSettings()
    assert read(VCPU="", KERNEL="") == FirecrackerSettings()


def test_all_of_it(tmp_path: Path):
    for name in ("fc", "jailer", "kernel", "rootfs", "initrd"):
        (tmp_path / name).touch()
    settings = read(
        BIN=tmp_path / "fc",
        KERNEL=tmp_path / "kernel",
        ROOTFS=tmp_path / "rootfs",
        SOCKET_DIR=tmp_path / "sockets",
        STATE_DIR=tmp_path / "state",
        VCPU=4,
        MEM_MIB=512,
    )
    assert settings.jailer == str(tmp_path / "jailer")
    assert settings.socket_dir == tmp_path / "sockets"
    assert settings.state_dir == tmp_path / "state"
    spec = settings.spec(tmp_path / "initrd", hostname="x")
    assert (spec.kernel, spec.root, spec.vcpus, spec.memory_mib) == (tmp_path / "kernel", tmp_path / "rootfs", 4, 512)
    assert settings.spec(tmp_path / "initrd", vcpus=2).vcpus == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VCPU", "0"),
        ("VCPU", "33"),
        ("VCPU", "two"),
        ("VCPU", "²"),
        ("MEM_MIB", "63"),
        ("MEM_MIB", "-1"),
        ("KERNEL", "/there/is/none"),
        ("ROOTFS", "/"),
        ("STATE_DIR", "relative"),
        ("SOCKET_DIR", "/dev/null"),
    ],
)
def test_a_bad_value_names_its_variable(name, value):
    with pytest.raises(SpecError, match=PREFIX + name) as caught:
        read(**{name: value})
    assert caught.value.hint


def test_no_kernel_is_told():
    with pytest.raises(SpecError, match="without a kernel"):
        FirecrackerSettings().spec(Path("/i"))
