"""The page about production hosts, command by command, on a host like the one it speaks of: this lab.

Its reader has downloaded a release of Firecracker; here that is the lab's. Packages are installed already.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from firebrick.machine.seat import FIRST_ID
from lab.binaries import VERSION
from lab.ground import Ground
from tests.docs.page import Block, blocks
from tests.docs.shell import Shell, shell
from tests.lab.conftest import Evidence
from tests.lab.node import ALLOWED, left, world
from tests.place import ROOT

PAGE = ROOT / "docs/how-to/production-host.md"
NOT_HERE = ("sudo apt-get install ", "sudo update-grub")
_START_S = 180.0
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def reader(
    ground: Ground, users_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Shell, Path]]:
    """A root shell in the directory where the release was unpacked."""
    if not Path("/usr/local/bin/firebrick").exists() or not Path("/opt/home").is_dir():
        pytest.skip("the page changes its host: it is tried in the lab alone")
    release = tmp_path / f"release-v{VERSION}-x86_64"
    release.mkdir()
    (release / f"firecracker-v{VERSION}-x86_64").symlink_to(ground.firecracker)
    (release / f"jailer-v{VERSION}-x86_64").symlink_to(ground.jailer)
    Path("/etc/modules-load.d").mkdir(exist_ok=True)  # of the init system, which the lab has none of
    Path("/etc/resolv.conf").write_text(f"nameserver {ALLOWED}\n")
    served = tmp_path / "served"
    served.mkdir()
    variables = {"HOME": str(users_home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    with world(served), shell(tmp_path, variables) as typed:
        yield typed, tmp_path


def test_the_page_takes_a_reader_to_jailed_machines(
    reader: tuple[Shell, Path], users_home: Path, evidence: Evidence
) -> None:
    typed, directory = reader
    said: list[tuple[str, str]] = []
    evidence.add("said.txt", lambda: "\n".join(f"$ {command}\n{text}" for command, text in said))
    assert type_all(typed, blocks(PAGE), directory, said) == []
    words = {command.split(" --image")[0]: text for command, text in said}

    assert words["stat --file-system --format %T /sys/fs/cgroup"] == "cgroup2fs\n"
    doctor = words["firebrick doctor"]
    for name in ("kvm", "firecracker", "jailer", "jails", "limits", "tap", "page server", "neighbours", "settings"):
        assert f"\n✓ {name}: " in doctor, doctor
    first, again, paged, plain = [text for command, text in said if command.startswith("firebrick run ")]
    assert "| hello" in first
    assert re.search(r"^\| HTTP/1.. 200 ", first, re.MULTILINE), first
    assert " ok, " in again
    assert "| hello" in paged
    assert "without its jail" in plain

    jailed = next(text for command, text in said if command.startswith("grep -E '^(Uid"))
    fields = dict(line.split(":\t") for line in jailed.splitlines())
    number = int(fields["Uid"].split()[0]) - FIRST_ID
    assert number >= 0
    assert (fields["CapEff"], fields["NoNewPrivs"], fields["Seccomp"]) == ("0" * 16, "1", "2")
    assert set(words["grep -h '^Seccomp:' /proc/$pid/task/*/status"].split()) == {"Seccomp:", "2"}
    assert f"firebrick/fb{number}/memory.max <==\n{(256 + 64) << 20}\n" in words_of(said, "head $group")
    for line in words_of(said, "for kind in").splitlines():
        _, theirs, ours = line.split()
        assert theirs != ours
    assert words["ip netns identify $pid"] == f"fb{number}\n"
    ruleset = words["nsenter --net=/proc/$pid/ns/net nft list ruleset"]
    assert "counter egress_dropped" in ruleset
    assert "10.0.2.15" in ruleset
    assert words_of(said, "ls ~/.firebrick/machines").count("\n") > 3
    assert words["pgrep --exact firecracker || echo none"] == "none\n"
    assert not [
        word for word in words_of(said, "ls -A ~/.firebrick").split() if re.fullmatch(r"fb\d+|[0-9a-f]{12}", word)
    ]
    assert left(users_home / ".firebrick") == {}


def words_of(said: list[tuple[str, str]], beginning: str) -> str:
    return next(text for command, text in said if command.startswith(beginning))


def type_all(typed: Shell, page: list[Block], directory: Path, said: list[tuple[str, str]]) -> list[str]:
    """Every command of the page; what it says goes to the end of `said`. Returns those that failed, with what they said."""
    failed = []
    for block in page:
        if block.language not in ("console", "sh"):
            continue
        for command in block.commands():
            if command.startswith(NOT_HERE):
                continue
            if "background" in block.options:
                typed.start(command, directory / "background.log")
                wait_for_step(directory / "background.log")
            else:
                try:
                    said.append((command, typed.run(command)))
                except AssertionError as error:
                    said.append((command, f"FAILED {error}"))
                    failed.append(str(error))
    return failed


def wait_for_step(log: Path) -> None:
    """Until a reader would see the step run."""
    deadline = time.monotonic() + _START_S
    while "-- step 2: " not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
