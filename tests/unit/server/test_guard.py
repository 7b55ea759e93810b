"""Names of a server, and settings as they come."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebrick.forge.address import Credential
from firebrick.server.guard import host_of, hosts_for
from firebrick.server.settings import ServeSettings


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("localhost:8080", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]:8080", "::1"),
        ("Evil.Example:80", "evil.example"),
        ("", ""),
    ],
)
def test_the_host_in_a_header(header: str, host: str) -> None:
    assert host_of(header) == host


def test_only_a_loopback_server_minds_its_name() -> None:
    assert hosts_for("0.0.0.0", ()) is None
    assert hosts_for("build.example.org", ()) is None
    names = hosts_for("127.0.0.1", {"ci.example.org"})
    assert names is not None
    assert {"localhost", "127.0.0.1", "ci.example.org"} <= names


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in ("HOST", "PORT", "RUST_LOG", "FIREBRICK_HOST", "FIREBRICK_PORT", "FIREBRICK_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FIREBRICK_HOME", str(tmp_path))
    return monkeypatch


def test_defaults(bare: pytest.MonkeyPatch) -> None:
    settings = ServeSettings()
    assert (settings.host, settings.port, settings.log_level) == ("127.0.0.1", 8080, "info")
    assert settings.protocols == {"https", "ssh"}


def test_the_variables_of_the_rust_pipeline_are_aliases(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("HOST", "0.0.0.0")
    bare.setenv("PORT", "9000")
    bare.setenv("RUST_LOG", "hyper=debug,warn")
    settings = ServeSettings()
    assert (settings.host, settings.port, settings.log_level) == ("0.0.0.0", 9000, "warning")
    bare.setenv("FIREBRICK_PORT", "9001")
    assert ServeSettings().port == 9001
    assert ServeSettings(port=1).port == 1


def test_the_file_of_the_home_is_read_and_secrets_stay_secret(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        'max_builds = 3\nallow_local_repos = true\n[git_credentials]\n"example.org" = "me:s3cret"\n'
    )
    settings = ServeSettings()
    assert settings.capacity(machines=9).builds == 3
    assert "file" in settings.protocols
    assert settings.credential_for("example.org") == Credential("me", "s3cret")
    assert settings.credential_for("example.com") is None
    assert "s3cret" not in repr(settings)


def test_local_repositories_are_one_switch(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("FIREBRICK_CLONE_PROTOCOLS", '["https", "http", "file"]')
    assert ServeSettings().protocols == {"https", "http"}
