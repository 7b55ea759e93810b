"""`firebrick doctor` and `firebrick paths`: what is found, what is advised, what a program reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from firebrick.cli import doctor, host
from firebrick.cli.errors import UsageError
from firebrick.cli.host import Finding, Verdict
from firebrick.cli.main import app
from firebrick.home import Home
from firebrick.machine.accel import Accelerator, Choice
from firebrick.machine.errors import HostError
from firebrick.node.settings import NodeSettings

ROOT = Path(__file__).parents[3]
FINE = Finding("git", Verdict.OK, "git")
SLOW = Finding("kvm", Verdict.NOTE, "emulated", "Nothing to do.")
GONE = Finding("qemu", Verdict.MISSING, "no QEMU", "Install it.")


@pytest.fixture
def findings(monkeypatch):
    found = [FINE, SLOW]

    async def examine(home):
        return found

    monkeypatch.setattr(doctor, "examine", examine)
    return found


def test_a_host_that_lacks_nothing_needed_is_fine(findings):
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0
    assert done.output.splitlines() == ["✓ git: git", "! kvm: emulated (Nothing to do.)", "Machines can run here."]


def test_what_is_missing_is_the_exit_status(findings):
    findings.append(GONE)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "✗ qemu: no QEMU (Install it.)" in done.output


def test_a_program_reads_the_same(findings):
    findings.append(GONE)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 1
    told = json.loads(done.output)
    assert told["ok"] is False
    assert told["findings"][1] == {"name": "kvm", "verdict": "note", "found": "emulated", "advice": "Nothing to do."}


def test_a_missing_tool_is_told_with_its_package(monkeypatch):
    monkeypatch.setattr(
        host, "find_program", lambda name: None if name in ("mksquashfs", "depmod") else f"/usr/bin/{name}"
    )
    found = host.image_tools()
    assert found.verdict is Verdict.NOTE
    assert found.found == "no mksquashfs (images); no depmod (kernels)"
    assert found.advice.endswith("apt-get install --no-install-recommends kmod squashfs-tools")


def test_every_package_advised_is_one_that_setup_installs():
    known = {line.partition("#")[0].strip() for line in (ROOT / "debian-packages.txt").read_text().splitlines()}
    advised = {package for tools in (host._IMAGE_TOOLS, host._FOREIGN_IMAGE_TOOLS) for package, _ in tools.values()}
    assert advised <= known


def test_a_home_that_cannot_be_written_is_missing(monkeypatch):
    monkeypatch.setattr(host.os, "access", lambda path, mode: False)
    found = host.home_directory(Home(Path("/nowhere/at/all")))
    assert (found.verdict, "FIREBRICK_HOME" in found.advice) == (Verdict.MISSING, True)


@pytest.mark.parametrize(("accelerator", "verdict"), [(Accelerator.KVM, Verdict.OK), (Accelerator.TCG, Verdict.NOTE)])
async def test_why_kvm_is_used_or_not_is_told_in_words(monkeypatch, tmp_path, accelerator, verdict):
    async def version(cache):
        return "7.2"

    async def choose(self):
        return Choice(accelerator=accelerator, reason="KVM is like that.")

    monkeypatch.setattr(host, "qemu_version", version)
    monkeypatch.setattr(host.Acceleration, "choose", choose)
    qemu, kvm = await host.virtual_machines(Home(tmp_path))
    assert (qemu.verdict, kvm.verdict, kvm.found) == (Verdict.OK, verdict, "KVM is like that.")


async def test_a_host_without_qemu_is_told_what_to_install(monkeypatch, tmp_path):
    async def version(cache):
        raise HostError("there is no QEMU", hint="Install it.")

    async def probe():
        return Choice(accelerator=Accelerator.KVM, reason="KVM is like that.")

    monkeypatch.setattr(host, "qemu_version", version)
    monkeypatch.setattr(host, "probe", probe)
    assert await host.virtual_machines(Home(tmp_path)) == [
        Finding("qemu", Verdict.MISSING, "there is no QEMU", "Install it."),
        Finding("kvm", Verdict.OK, "KVM is like that."),
    ]


def test_settings_that_cannot_be_read_are_missing(tmp_path):
    (tmp_path / "config.toml").write_text('[node]\ndriver = "xen"\n')
    settings, [found] = doctor._settings(Home(tmp_path))
    assert (settings, found.name, found.verdict) == (NodeSettings(), "settings", Verdict.MISSING)
    assert "config.toml" in found.found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_queued = 0\n", "a setting is not as it must be: max_queued: "),
        ('[repositories."https://example.org/o/n"]\nsecret = {}\n', "a setting is not as it must be: repositories."),
        ("[node]\nnetwork = true\n", "lets every build reach what listens on this host's loopback"),
    ],
)
def test_mistakes_in_the_settings_of_a_server_are_told_as_it_tells_them(tmp_path, monkeypatch, text, words):
    monkeypatch.setenv("FIREBRICK_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text(text)
    node, said = doctor._settings(Home(tmp_path))
    [found] = doctor._server(Home(tmp_path), node, said)
    assert (found.name, found.verdict) == ("server settings", Verdict.NOTE)
    assert words in found.found
    done = CliRunner().invoke(app, ["serve"])
    assert isinstance(done.exception, UsageError)
    assert (found.found, found.advice) == (str(done.exception), done.exception.hint)


@pytest.mark.parametrize("name", ["CLONE_PROTOCOLS", "GIT_CREDENTIALS"])
def test_what_is_no_json_in_the_environment_is_told_without_its_text(tmp_path, monkeypatch, name):
    monkeypatch.setenv("FIREBRICK_HOME", str(tmp_path))
    monkeypatch.setenv(f"FIREBRICK_{name}", '{"example.org": "me:s3cret"')
    [found] = doctor._server(Home(tmp_path), NodeSettings(), [])
    assert (found.name, found.verdict) == ("server settings", Verdict.NOTE)
    assert name.lower() in found.found
    assert "s3cret" not in found.found + found.advice
    done = CliRunner().invoke(app, ["serve"])
    assert isinstance(done.exception, UsageError)
    assert done.exception.__cause__ is None


def test_the_settings_of_a_server_that_are_well(tmp_path, monkeypatch):
    monkeypatch.setenv("FIREBRICK_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text('port = 81\n[repositories."https://example.org/o/n"]\nschedules = true\n')
    [found] = doctor._server(Home(tmp_path), NodeSettings(), [])
    assert found == Finding("server settings", Verdict.OK, "127.0.0.1:81, 1 repository")


@pytest.mark.parametrize("content", [b"[[", b"\xff"])
def test_a_file_that_cannot_be_read_is_told_once(tmp_path, monkeypatch, content):
    monkeypatch.setenv("FIREBRICK_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_bytes(content)
    node, said = doctor._settings(Home(tmp_path))
    assert [finding.name for finding in said] == ["settings"]
    assert doctor._server(Home(tmp_path), node, said) == []


def test_an_empty_home_has_nothing_stored(tmp_path):
    kernels, images = host.stored(Home(tmp_path))
    assert (kernels.verdict, images.verdict) == (Verdict.NOTE, Verdict.NOTE)
    assert images.advice == "firebrick image build base toolchain"


def test_paths_are_those_of_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("FIREBRICK_HOME", str(tmp_path))
    told = json.loads(CliRunner().invoke(app, ["paths", "--json"]).output)
    assert told["root"] == str(tmp_path)
    assert told["images"] == str(tmp_path / "images")
    assert "not made yet" in CliRunner().invoke(app, ["paths"]).output


def test_every_place_of_the_home_is_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("FIREBRICK_HOME", str(tmp_path))
    told = json.loads(CliRunner().invoke(app, ["paths", "--json"]).output)
    assert set(told) == {"root", *(name for name, kind in vars(Home).items() if isinstance(kind, property))}
