from __future__ import annotations

from pathlib import Path

import pytest

from firebrick.image import Package
from firebrick.image.build import enough_space, what_failed
from firebrick.image.debian import _arguments, _packages, _reporter
from firebrick.image.definition import Debian
from firebrick.image.errors import HostLacksError
from firebrick.image.sandbox import subordinate_ids
from firebrick.process import ProcessError


class Recorder:
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.lines: list[str] = []

    def stage(self, text: str, *, total: float | None = None) -> None:
        self.stages.append(text)

    def advance(self, done: float, *, total: float | None = None) -> None: ...

    def line(self, text: str) -> None:
        self.lines.append(text)


def test_what_the_tool_says_becomes_stages_however_it_is_cut():
    said = b"I: running apt-get update...\nI: automatically chosen\nI: downloading packages with apt...\nW: odd\nI: creating tarball...\n"
    for cut in range(1, len(said)):
        progress = Recorder()
        report = _reporter(progress)
        report(said[:cut])
        report(said[cut:])
        assert progress.stages == ["Fetching package lists", "Fetching packages", "Writing the image"]
        assert progress.lines == ["I: automatically chosen", "W: odd"]


def test_a_definition_becomes_one_argument_list(tmp_path: Path):
    source = Debian(
        packages=("git", "curl"), suite="trixie", exclude=("/usr/share/doc/*",), include=("/usr/share/doc/*/copyright",)
    )
    argv = _arguments(source, tmp_path / "sources.list")
    assert "--include=git,curl" in argv
    assert argv.index("--dpkgopt=path-exclude=/usr/share/doc/*") < argv.index(
        "--dpkgopt=path-include=/usr/share/doc/*/copyright"
    )
    assert argv[-3:] == ["trixie", "-", tmp_path / "sources.list"]


def test_packages_are_read_from_the_list_dpkg_gave(tmp_path: Path):
    (tmp_path / "packages").write_text("git\t1:2.39.5-0+deb12u2\tamd64\nca-certificates\t20230311\tall\n")
    assert list(_packages(tmp_path / "packages")) == [
        Package(name="git", version="1:2.39.5-0+deb12u2", architecture="amd64"),
        Package(name="ca-certificates", version="20230311", architecture="all"),
    ]


def test_too_little_space_is_said_before_and_not_in_the_middle(tmp_path: Path):
    enough_space(tmp_path, 1)
    with pytest.raises(HostLacksError, match="MiB are needed") as error:
        enough_space(tmp_path, 1 << 60)
    assert "prune" in error.value.hint


def test_the_failure_of_a_tool_is_its_name_and_its_last_words():
    said = "I: running\nE: Unable to locate package x\n\nE: mmdebstrap failed to run\n"
    argv = ["unshare", "--pid", "--", "sh", "-c", 'umask 022; exec "$@"', "sh", "mmdebstrap", "--mode=root", "bookworm"]
    assert what_failed(ProcessError("long", argv=argv, returncode=25, stderr=said)) == (
        "mmdebstrap failed with status 25:\nE: Unable to locate package x\nE: mmdebstrap failed to run"
    )
    assert (
        what_failed(ProcessError("m", argv=["lz4", "-d"], returncode=1, stderr="bad"))
        == "lz4 failed with status 1:\nbad"
    )
    assert what_failed(ProcessError("it took longer than 5 s")) == "it took longer than 5 s"


def test_subordinate_ids_are_found_by_name_and_by_number(tmp_path: Path):
    file = tmp_path / "subuid"
    file.write_text("ann:100000:65536\n1002:300000:1000\nann:900000:70\nbroken line\n")
    assert subordinate_ids(file, "ann", 1001) == 65536
    assert subordinate_ids(file, "bob", 1002) == 1000
    assert subordinate_ids(file, "eve", 1003) == 0
    assert subordinate_ids(tmp_path / "none", "ann", 1001) == 0
