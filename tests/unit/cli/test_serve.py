"""What `firebrick serve` says, and when it refuses to start."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from firebrick.cli import serve as verb
from firebrick.cli.errors import UsageError
from firebrick.cli.serve import LogFormat, configure_logging
from firebrick.node.node import Node
from firebrick.server.settings import ServeSettings


@pytest.fixture
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    structlog.reset_defaults()


def fail() -> None:
    credential = "hunter2-" + "LOCAL"  # joined here: the source line shows in the traceback, the value must not
    raise ValueError(f"of {len(credential)} letters")


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("form", [LogFormat.TEXT, LogFormat.JSON])
@pytest.mark.parametrize("library", [False, True])
def test_a_logged_exception_shows_no_variables(
    form: LogFormat, library: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    configure_logging("info", form)
    try:
        fail()
    except ValueError:
        (logging.getLogger("some.library") if library else structlog.get_logger()).exception("it went wrong")
    said = capsys.readouterr().err
    assert "it went wrong" in said
    assert "ValueError: of 13 letters" in said
    assert "hunter2-LOCAL" not in said


@pytest.mark.parametrize(("acknowledged", "starts"), [("", False), ("network_reaches_loopback = true\n", True)])
def test_builds_get_a_network_only_where_it_is_known_what_it_reaches(
    tmp_path, monkeypatch: pytest.MonkeyPatch, acknowledged: str, starts: bool
) -> None:
    (tmp_path / "config.toml").write_text(f"[node]\nnetwork = true\n{acknowledged}")
    monkeypatch.setenv("FIREBRICK_HOME", str(tmp_path))

    class OpenedError(Exception):
        pass

    def opened(*_: object, **__: object) -> None:
        raise OpenedError

    monkeypatch.setattr(Node, "open", opened)
    monkeypatch.setattr(verb, "configure_logging", lambda *_: None)
    assert ServeSettings().layout.root == tmp_path
    with pytest.raises(OpenedError if starts else UsageError) as refusal:
        verb.serve(host=None, port=None, log_format=LogFormat.TEXT)
    if not starts:
        assert "loopback" in str(refusal.value)
        assert "network_reaches_loopback = true" in refusal.value.hint  # type: ignore[attr-defined]


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("form", [LogFormat.TEXT, LogFormat.JSON])
def test_what_callers_send_does_nothing_to_the_terminal_it_is_logged_on(
    form: LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "/\x1b]0;PWN\x07\x1b[2Jx\x9b2J\nforged"
    configure_logging("info", form)
    structlog.get_logger().info("request", path=hostile)
    structlog.get_logger().error("request failed", exc_info=ValueError(hostile))
    said = capsys.readouterr().err
    assert "request failed" in said
    assert not set(said) & {"\x1b", "\x07", "\x9b"}


@pytest.mark.parametrize("text", [b"port = \n", b"\xff"])
def test_settings_that_are_no_toml_are_wrong_usage(tmp_path, monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    (tmp_path / "config.toml").write_bytes(text)
    monkeypatch.setenv("FIREBRICK_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="cannot read .*config.toml") as raised:
        verb.serve()
    assert raised.value.hint == "The file must be TOML."
