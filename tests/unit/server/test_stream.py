"""A response lets go of what it reads from as soon as the client has gone."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from firebrick.server.log import LogReader, open_log, read_text
from firebrick.server.stream import TextStream


async def test_a_log_is_closed_when_its_reader_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_log(tmp_path / "log", limit_mib=1, on_flush=lambda: None) as log:
        log.say("x" * 100_000)
    closed: list[LogReader] = []
    real = LogReader.close
    monkeypatch.setattr(LogReader, "close", lambda reader: (closed.append(reader), real(reader))[1])

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            raise OSError("the client has gone")

    response = TextStream(pieces := read_text(tmp_path / "log"))
    with pytest.raises(OSError, match="has gone"):
        await response.stream_response(send)
    assert len(closed) == 1
    assert pieces.ag_frame is None  # type: ignore[attr-defined]
    assert response.media_type == "text/plain"
