"""What is asked of a server, `firebrick serve`, by the command line: one request, its answer, and an error as a sentence."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from firebrick.cli.errors import UsageError
from firebrick.cli.terminal import tame
from firebrick.errors import FirebrickError

DEFAULT_SERVER: Final = "http://127.0.0.1:8080"
_PATIENCE_S: Final = 30.0
_LONGEST_ANSWER: Final = 16 << 20

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        envvar="FIREBRICK_SERVER",
        show_envvar=False,
        help="A `firebrick serve`; also FIREBRICK_SERVER.",
    ),
]


class ServerSaysError(FirebrickError):
    """A server refused, or could not be asked. `hint` is what it says to do."""


def ask(server: str, method: str, path: str, body: dict[str, object] | None = None) -> Any:
    """The JSON a server answers with. Raises ServerSaysError; UsageError for an address that is none."""
    import httpx  # a verb that asks nobody does not wait for it

    try:
        with (
            httpx.Client(base_url=server, timeout=_PATIENCE_S) as client,
            client.stream(method, path, json=body) as answer,
        ):
            content = _read(answer.iter_bytes())
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise UsageError(
            f"{server} is no address of a server: {error}", hint=f"Say --server {DEFAULT_SERVER}."
        ) from error
    except httpx.HTTPError as error:
        raise ServerSaysError(
            f"cannot ask the server {server}: {error}", hint="Is `firebrick serve` running there?"
        ) from error
    found = _decoded(content, server)
    if answer.is_success:
        return found
    detail = found.get("detail") if isinstance(found, dict) else None
    hint = found.get("hint") if isinstance(found, dict) else None
    raise ServerSaysError(f"{server}: {detail or answer.reason_phrase}", hint=str(hint or ""))


def _read(pieces: Any) -> bytes:
    content = bytearray()
    for piece in pieces:
        content += piece
        if len(content) > _LONGEST_ANSWER:
            raise ServerSaysError(f"the server's answer is larger than {_LONGEST_ANSWER >> 20} MiB")
    return bytes(content)


def _decoded(content: bytes, server: str) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise ServerSaysError(f"{server} does not answer as a `firebrick serve` does: {error}") from error


def say(text: object) -> None:
    typer.echo(tame(str(text), colour=False))
