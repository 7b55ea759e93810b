"""Names of a server, and settings as they come."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from firebrick.forge.address import Credential, parse_address
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
    assert settings.credential_for(parse_address("https://example.org/o/n")) == Credential("me", "s3cret")
    assert settings.credential_for(parse_address("https://example.com/o/n")) is None
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("repository", "user"),
    [
        ("https://example.org/o/n", "usual"),
        ("https://EXAMPLE.org:443/o/n", "usual"),
        ("http://example.org/o/n", "usual"),
        ("https://example.org:8443/o/n", "other"),
        ("http://example.org:8443/o/n", "other"),
        ("https://example.org:80/o/n", None),
        ("https://example.org:0/o/n", None),
        ("http://example.org:443/o/n", None),
        ("https://sub.example.org/o/n", None),
        ("https://both.example/o/n", "exact"),
        ("https://[::1]:81/o/n", "six"),
        ("https://[::1]/o/n", None),
        ("ssh://git@example.org/o/n", None),
        ("ssh://git@example.org:8443/o/n", None),
        ("git://example.org/o/n", None),
    ],
)
def test_a_credential_goes_to_its_port_and_to_no_other(
    bare: pytest.MonkeyPatch, repository: str, user: str | None
) -> None:
    settings = ServeSettings(
        git_credentials={
            "Example.org": SecretStr("usual:x"),
            "example.org:8443": SecretStr("other:x"),
            "both.example": SecretStr("host:x"),
            "both.example:443": SecretStr("exact:x"),
            "[::1]:81": SecretStr("six:x"),
        }
    )
    found = settings.credential_for(parse_address(repository, protocols=frozenset({"https", "http", "ssh", "git"})))
    assert (None if found is None else found.user) == user


@pytest.mark.parametrize(
    "door",
    [
        "",
        "https://example.org",
        "example.org/o",
        "me:s3cret@example.org",
        "h:0",
        "h:65536",
        "h:" + "9" * 5000,
        "h:x",
        "h:",
        "::1",
    ],
)
def test_a_credential_for_what_is_no_server_is_refused_and_not_shown(bare: pytest.MonkeyPatch, door: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        ServeSettings(git_credentials={door: SecretStr("me:t0ken")})
    [error] = refusal.value.errors(include_input=False)
    assert error["loc"] == ("git_credentials",)
    assert "s3cret" not in error["msg"], "the input is left out of what is told"
    assert "t0ken" not in str(refusal.value)


def test_local_repositories_are_one_switch(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("FIREBRICK_CLONE_PROTOCOLS", '["https", "http", "file"]')
    assert ServeSettings().protocols == {"https", "http"}
