"""The header of an empty overlay."""

import struct

import pytest

from firebrick.machine import qcow2


@pytest.mark.parametrize("size", [16 << 20, 1 << 30, (1 << 30) + 512, 16 << 40])
def test_every_used_cluster_is_counted_once(tmp_path, size):
    path = tmp_path / "o.qcow2"
    qcow2.write_empty(path, size)
    data = path.read_bytes()
    magic, version = struct.unpack_from(">4sI", data)
    assert (magic, version) == (b"QFI\xfb", 3)
    assert struct.unpack_from(">Q", data, 24) == (size,)
    (entries,) = struct.unpack_from(">I", data, 36)
    assert (entries - 1) * (512 << 20) < size <= entries * (512 << 20)
    clusters = len(data) >> qcow2.CLUSTER_BITS
    counts = struct.unpack_from(f">{clusters + 1}H", data, 2 << qcow2.CLUSTER_BITS)
    assert counts == (1,) * clusters + (0,)


def test_an_existing_file_is_not_overwritten(tmp_path):
    path = tmp_path / "o.qcow2"
    path.write_bytes(b"data")
    with pytest.raises(FileExistsError):
        qcow2.write_empty(path, 1 << 30)
