"""Tools that are brought as directories and archives."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from firebrick.node.errors import ToolError
from firebrick.node.tool.archive import bring

MIB = 1 << 20


def member(name: str, **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in values.items():
        setattr(info, key, value)
    return info


def archive(path: Path, *members: tarfile.TarInfo, compression: str = "xz") -> Path:
    with tarfile.open(path, f"w:{compression}") as made:
        for info in members:
            made.addfile(info, io.BytesIO(b"x" * info.size))
    return path


def test_a_release_is_taken_from_its_one_directory(tmp_path: Path):
    release = archive(
        tmp_path / "node-v20.tar.xz",
        member("node-v20/bin/node", size=7, mode=0o4755),
        member("node-v20/bin/npm", type=tarfile.SYMTYPE, linkname="../lib/npm.js"),
        member("node-v20/lib/npm.js", size=3, mode=0o644),
    )
    place = bring(release, tmp_path / "out", most_bytes=MIB)
    assert place == tmp_path / "out/node-v20"
    assert stat.S_IMODE((place / "bin/node").stat().st_mode) == 0o755
    assert os.readlink(place / "bin/npm") == "../lib/npm.js"


def test_an_archive_of_more_is_the_tool_itself(tmp_path: Path):
    release = archive(tmp_path / "go.tar.gz", member("bin/go", size=1), member("VERSION", size=1), compression="gz")
    assert bring(release, tmp_path / "out", most_bytes=MIB) == tmp_path / "out"


@pytest.mark.parametrize(
    "members",
    [
        (member("../up", size=1),),
        (member("a/../../up", size=1),),
        (member("link", type=tarfile.SYMTYPE, linkname="/etc"), member("link/passwd", size=1)),
        (member("link", type=tarfile.SYMTYPE, linkname="../.."),),
        (member("link", type=tarfile.LNKTYPE, linkname="../../etc/passwd"),),
        (member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),),
        (member("pipe", type=tarfile.FIFOTYPE),),
        (member("a", size=MIB), member("b", size=MIB)),
    ],
)
def test_an_archive_that_is_hostile_is_refused(tmp_path: Path, members: tuple[tarfile.TarInfo, ...]):
    (tmp_path / "in").mkdir()
    with pytest.raises(ToolError, match="cannot take the tool"):
        bring(archive(tmp_path / "in/bad.tar.xz", *members), tmp_path / "in/out", most_bytes=2 * MIB - 1)
    assert sorted(os.listdir(tmp_path)) == ["in"]
    assert sorted(os.listdir(tmp_path / "in")) == ["bad.tar.xz", "out"]


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_archive_is_told(tmp_path: Path, content: bytes):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ToolError, match="cannot take the tool") as told:
        bring(tmp_path / "file", tmp_path / "out", most_bytes=MIB)
    assert "tar archive" in told.value.hint


def test_a_directory_is_copied_without_set_id_bits(tmp_path: Path):
    source = tmp_path / "tool"
    (source / "bin").mkdir(parents=True)
    (source / "bin/run").write_bytes(b"program")
    (source / "bin/run").chmod(0o6755)
    os.utime(source / "bin/run", (1e9, 1e9))
    (source / "link").symlink_to("/nowhere")
    place = bring(source, tmp_path / "out", most_bytes=MIB)
    found = (place / "bin/run").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime) == (0o755, 1e9)
    assert os.readlink(place / "link") == "/nowhere"


@pytest.mark.parametrize(
    "make", [lambda tool: os.mkfifo(tool / "pipe"), lambda tool: (tool / "big").write_bytes(b"x" * (MIB + 1))]
)
def test_a_directory_that_is_no_tool_is_refused(tmp_path: Path, make: Callable[[Path], object]):
    (tmp_path / "tool").mkdir()
    make(tmp_path / "tool")
    with pytest.raises(ToolError, match="a tool (has|is files)"):
        bring(tmp_path / "tool", tmp_path / "out", most_bytes=MIB)


def test_what_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(ToolError, match="No such file"):
        bring(tmp_path / "missing", tmp_path / "out", most_bytes=MIB)
