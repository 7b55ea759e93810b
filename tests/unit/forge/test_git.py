"""What git is told, and what of what it says gets out."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest

from firebrick.forge.address import Credential, parse_address
from firebrick.forge.git import _environment, last_words, redact, secret_forms

SECRET = "p@ss/w:rd"


def test_every_form_of_a_secret_is_taken_out() -> None:
    credential = Credential("me", SECRET)
    basic = b64encode(f"me:{SECRET}".encode()).decode()
    said = f"a {SECRET} b p%40ss%2Fw%3Ard c {b64encode(SECRET.encode()).decode()} d Basic {basic} e"
    assert redact(said, secret_forms(credential)) == "a *** b *** c *** d Basic *** e"


def test_a_token_alone_is_the_secret_and_a_user_beside_a_password_is_not() -> None:
    assert redact("token me", secret_forms(Credential("token", ""))) == "*** me"
    assert redact("token me", secret_forms(Credential("me", "token"))) == "*** me"


def test_addresses_lose_their_users_and_terminals_their_commands() -> None:
    assert redact("at https://u:p@h/x and https://t@h/y", ()) == "at https://***@h/x and https://***@h/y"
    assert redact("\x1b[31mred\x1b[0m\x07 \x9bx\ttab", ()) == "red x\ttab"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("remote: hello\nfatal: no such thing\n", "no such thing"),
        ("error: one\nfatal: two\nPlease make sure\n", "two"),
        ("something else\n", "something else"),
        ("", ""),
    ],
)
def test_the_reason_is_one_line(said: str, reason: str) -> None:
    assert last_words(said) == reason


def test_the_environment_leaves_nothing_to_the_host_or_the_repository() -> None:
    address = parse_address("https://me:s3cret@example.org/o/n")
    environment = _environment(address, Path("/private"))
    config = {
        environment[f"GIT_CONFIG_KEY_{i}"]: environment[f"GIT_CONFIG_VALUE_{i}"]
        for i in range(int(environment["GIT_CONFIG_COUNT"]))
    }
    assert environment["GIT_CONFIG_GLOBAL"] == environment["GIT_CONFIG_SYSTEM"] == "/dev/null"
    assert environment["HOME"] == "/private"
    assert environment["GIT_ALLOW_PROTOCOL"] == "https"
    assert config["core.hooksPath"] == "/dev/null"
    assert config["transfer.fsckObjects"] == "true"
    assert config["http.followRedirects"] == "false"
    assert config["http.https://example.org/.extraHeader"] == "Authorization: Basic " + b64encode(b"me:s3cret").decode()


def test_without_a_credential_the_first_redirect_may_be_followed() -> None:
    environment = _environment(parse_address("https://example.org/o/n"), Path("/private"))
    values = [environment[f"GIT_CONFIG_VALUE_{i}"] for i in range(int(environment["GIT_CONFIG_COUNT"]))]
    assert "initial" in values
    assert not any("Authorization" in value for value in values)
