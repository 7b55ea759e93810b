"""Real projects, each built both ways at once: by `firebrick run` and by `POST /build`."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firebrick.home import Home
from tests.scenarios.projects.programs import Ran, Runner, Server, finished

RUN_TIMEOUT_S = 900
pytestmark = [pytest.mark.machine, pytest.mark.timeout(1200)]


def build_both_ways(repository: Path, runner: Runner, server: Server) -> tuple[Ran, dict[str, Any]]:
    """The two machines share the host's processors, so together they take hardly longer than one."""
    with runner.start(repository) as process:
        build = server.submit(repository, timeout_s=RUN_TIMEOUT_S)
        ran = finished(process)
    built = server.wait(build)
    assert ran.status == 0, f"{ran.stderr}\n{ran.log[-3000:]}"
    assert ran.conclusion == "success"
    built["log"] = server.client.get(f"/build/{build}/log").text  # all of it: the build itself has only its end
    assert built["status"] == "completed", f"{built['message']}\n{built['log'][-3000:]}"
    return ran, built


def artifacts_of(ran: Ran, home: Home) -> dict[str, bytes]:
    """The artifacts of a local run, by path, after their digests were checked."""
    found = {}
    for event in ran.of("artifact_stored"):
        (path,) = home.runs.glob(f"*/artifacts/{event['path']}")
        content = path.read_bytes()
        assert len(content) == event["size"]
        assert hashlib.sha256(content).hexdigest() == event["sha256"]
        found[event["path"]] = content
        path.unlink()
    return found


def artifacts_served(build: str, server: Server) -> dict[str, bytes]:
    """The artifacts of a build, by path, downloaded and checked against the manifest."""
    manifest = server.client.get(f"/build/{build}/manifest.json").json()
    found = {}
    for entry in manifest["artifacts"]:
        content = server.client.get(f"/build/{build}/artifacts/{entry['path']}").content
        assert len(content) == entry["size"]
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        found[entry["path"]] = content
    return found


def named(artifacts: dict[str, bytes], ending: str) -> bytes:
    (content,) = [content for path, content in artifacts.items() if path.endswith(ending)]
    return content


def test_ed_is_configured_made_checked_and_used(
    example: Callable[[str], Path], runner: Runner, server: Server, home: Home
) -> None:
    ran, built = build_both_ways(example("ed"), runner, server)
    for log, artifacts in ((ran.log, artifacts_of(ran, home)), (built["log"], artifacts_served(built["id"], server))):
        assert "OK. Now you can run make." in log
        assert "tests completed successfully." in log
        # The greeting names the kernel it was written under: the machine's, not the host's.
        assert named(artifacts, "greeting.txt").startswith(b"Hello from a microVM: Linux 6.")
        assert named(artifacts, "ed").startswith(b"\x7fELF")


def test_zlib_passes_its_own_tests(example: Callable[[str], Path], runner: Runner, server: Server, home: Home) -> None:
    ran, built = build_both_ways(example("zlib"), runner, server)
    for log, artifacts in ((ran.log, artifacts_of(ran, home)), (built["log"], artifacts_served(built["id"], server))):
        assert "*** zlib test OK ***" in log
        assert "*** zlib 64-bit test OK ***" in log
        assert named(artifacts, "libz.a").startswith(b"!<arch>")


def test_a_c_extension_becomes_a_wheel(
    example: Callable[[str], Path], runner: Runner, server: Server, home: Home
) -> None:
    ran, built = build_both_ways(example("python-extension"), runner, server)
    for log, artifacts in ((ran.log, artifacts_of(ran, home)), (built["log"], artifacts_served(built["id"], server))):
        assert "Ran 4 tests" in log
        names = zipfile.ZipFile(io.BytesIO(named(artifacts, ".whl"))).namelist()
        assert "editdistance/__init__.py" in names
        assert any(re.fullmatch(r"editdistance/_distance\..*\.so", name) for name in names)
