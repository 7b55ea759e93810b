"""The rules of environments: who is let in, who waits and until when, who is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from firebrick.server.environment import Environment, Ruling, environment_orders, rule
from firebrick.server.gate import Gate
from firebrick.server.settings import ServeSettings

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MAIN = "refs/heads/main"


def gate(approved: bool | None = None, minutes: float = 0, comment: str = "") -> Gate:
    asked = NOW - timedelta(minutes=minutes)
    return Gate(build="b", environment="production", waits=True, asked_at=asked, approved=approved, comment=comment)


def production(**rules: object) -> Environment:
    return Environment(name="production", **rules)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("environment", "ref", "known", "word"),
    [
        (production(), "refs/pull/1/merge", None, ""),
        (production(branches=("main",)), MAIN, None, ""),
        (production(branches=("main",)), "refs/heads/mainly", None, "refused"),
        (production(branches=("**",)), "refs/tags/v1", None, "refused"),
        (production(branches=("**",)), "a" * 40, None, "refused"),
        (production(branches=()), MAIN, None, "refused"),
        (production(branches=("release/*", "!release/old")), "refs/heads/release/old", None, "refused"),
        (production(approval=True), MAIN, None, "waits"),
        (production(approval=True), MAIN, gate(), "waits"),
        (production(approval=True), MAIN, gate(approved=True), ""),
        (production(approval=True), MAIN, gate(approved=False), "refused"),
        (production(), MAIN, gate(approved=False), "refused"),
        (production(approval=True, branches=("x",)), MAIN, gate(approved=True), "refused"),
        (production(wait_minutes=10), MAIN, None, "waits"),
        (production(wait_minutes=10), MAIN, gate(minutes=9.9), "waits"),
        (production(wait_minutes=10), MAIN, gate(minutes=10), ""),
        (production(wait_minutes=10, approval=True), MAIN, gate(minutes=99), "waits"),
        (production(wait_minutes=10, approval=True), MAIN, gate(approved=True, minutes=1), "waits"),
    ],
)
def test_who_may_be_in(environment: Environment, ref: str, known: Gate | None, word: str) -> None:
    ruling = rule(environment, ref, known, NOW)
    assert ("waits" if ruling.waits else "refused" if ruling.refusal else "") == word


def test_what_is_said() -> None:
    until = NOW + timedelta(minutes=10)
    assert rule(production(wait_minutes=10), MAIN, None, NOW) == Ruling(
        waits="Waiting for the environment production until 2026-01-01 12:10:00 UTC.", until=until
    )
    rejected = rule(production(), MAIN, gate(approved=False, comment="no"), NOW)
    assert rejected.refusal == "The deployment to production was rejected: no"


def test_what_is_not_trusted_gets_no_secrets() -> None:
    environment = production(secrets={"KEY": "s3cret"}, variables={"A": "b"})
    for trusted, secrets in ((True, {"KEY": "s3cret"}), (False, {})):
        order = environment_orders([environment], MAIN, [], NOW, trusted=trusted)["production"]
        assert (order.secrets, order.variables) == (secrets, {"A": "b"})
    assert "s3cret" not in repr(environment)


def test_the_case_of_a_name_does_not_count() -> None:
    known = Gate(build="b", environment="Production", waits=True, asked_at=NOW, approved=True)
    assert environment_orders([production(approval=True)], MAIN, [known], NOW, trusted=True)["production"].waits == ""


def test_repositories_of_the_settings() -> None:
    said = {"secrets": {"KEY": "s3cret"}, "environments": {"production": {"branches": ["main"]}}}
    settings = ServeSettings(repositories={"https://Example.org/o/n.git": said})  # type: ignore[arg-type]
    assert settings.repository_for("example.org/o/n").plain_secrets == {"KEY": "s3cret"}
    assert settings.repository_for("example.org/o/other").plain_secrets == {}
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    "said",
    [
        {"no address": {}},
        {"https://example.org/o/n": {"secret": {}}},
        {"https://example.org/o/n": {"secrets": {"not a name": "x"}}},
        {"https://example.org/o/n": {"environments": {"": {}}}},
        {"https://example.org/o/n": {"environments": {"p": {"branches": ["[a"]}}}},
        {"https://example.org/o/n": {"environments": {"p": {"wait_minutes": -1}}}},
    ],
)
def test_settings_that_cannot_be_meant(said: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ServeSettings(repositories=said)  # type: ignore[arg-type]
