from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firebrick.image.cpio import CpioWriter
from firebrick.image.errors import ImageError
from firebrick.image.initramfs import build_initramfs, initramfs_key, read_agent, write_once


def read_cpio(data: bytes) -> dict[str, tuple[int, bytes]]:
    """What the kernel would read: name -> (mode, content). Written from the format's description, not from the writer."""
    entries: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert at % 4 == 0
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, length = fields[6], fields[11]
        name = data[at + 110 : at + 110 + length - 1].decode()
        assert data[at + 110 + length - 1] == 0
        start = -(-(at + 110 + length) // 4) * 4
        if name == "TRAILER!!!":
            assert len(data) == start
            return entries
        assert name not in entries
        entries[name] = (fields[1], data[start : start + size])
        at = -(-(start + size) // 4) * 4


@given(st.dictionaries(st.from_regex(r"[a-z]{1,30}", fullmatch=True), st.binary(max_size=50), max_size=8))
def test_what_is_written_can_be_read(files: dict[str, bytes]):
    archive = CpioWriter.empty()
    for name, content in files.items():
        archive.file(name, content)
    assert {name: content for name, (_, content) in read_cpio(archive.finish()).items()} == files


def test_the_initramfs_is_what_the_agent_expects(tmp_path: Path):
    for name in ("virtio.ko", "vsock.ko"):
        (tmp_path / name).write_text(name)
    entries = read_cpio(build_initramfs(b"the agent", tmp_path, ["virtio.ko", "vsock.ko 19"]))
    assert entries["init"] == (0o100755, b"the agent")
    assert entries["modules"] == (0o100644, b"/lib/virtio.ko\n/lib/vsock.ko 19\n")
    assert entries["lib/vsock.ko"] == (0o100644, b"vsock.ko")
    for name in ("dev", "proc", "sys", "root", "scratch"):
        assert entries[name] == (0o40755, b"")
    assert entries["dev/console"][0] == 0o20600
    assert list(entries).index("lib") < list(entries).index("lib/virtio.ko")


def test_the_initramfs_is_the_same_every_time(tmp_path: Path):
    (tmp_path / "a.ko").write_bytes(b"1")
    assert build_initramfs(b"x", tmp_path, ["a.ko"]) == build_initramfs(b"x", tmp_path, ["a.ko"])


def test_the_key_is_of_all_that_goes_in():
    keys = {
        initramfs_key("k", b"a", ["m", "n"]),
        initramfs_key("l", b"a", ["m", "n"]),
        initramfs_key("k", b"b", ["m", "n"]),
        initramfs_key("k", b"a", ["n", "m"]),
        initramfs_key("k", b"a", ["m", "n 3"]),
        initramfs_key("k", b"a", []),
    }
    assert len(keys) == 6
    assert initramfs_key("k", b"a", ["m", "n"]) in keys


def test_a_missing_agent_says_how_to_get_one(tmp_path: Path):
    with pytest.raises(ImageError, match="cannot be read") as error:
        read_agent(tmp_path / "none")
    assert "make agent" in error.value.hint


def test_a_file_appears_complete_and_leaves_nothing_else(tmp_path: Path):
    write_once(tmp_path / "x", b"1")
    write_once(tmp_path / "x", b"2")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"2"
    with pytest.raises(FileNotFoundError):
        write_once(tmp_path / "no" / "x", b"1")
