"""`firebrick serve`: the build service on this host's node."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import MutableMapping
from enum import StrEnum
from io import StringIO
from typing import Annotated, Any, TextIO

import structlog
import typer
from structlog.typing import ExcInfo

from firebrick.cli.node import DriverOption, JailOption, told_settings, warn
from firebrick.cli.settings import check_network, server_settings
from firebrick.cli.terminal import tame, tame_block
from firebrick.node.node import Node
from firebrick.node.settings import NodeSettings
from firebrick.server.serve import serve as serve_builds
from firebrick.server.settings import ServeSettings


class LogFormat(StrEnum):
    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: FIREBRICK_HOST, HOST, or 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port; 0 takes a free one. Default: FIREBRICK_PORT, PORT, or 8080."),
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="Lines for people, or JSON; auto: text on a terminal.")
    ] = LogFormat.AUTO,
    driver: DriverOption = None,
    jail: JailOption = None,
) -> None:
    """Serve the build API over HTTP, and run the builds on this host."""
    settings = server_settings(host=host, port=port)
    configure_logging(settings.log_level, log_format)
    asyncio.run(_serve(settings, told_settings(settings.layout, driver, jail)))


async def _serve(settings: ServeSettings, node_settings: NodeSettings) -> None:
    home = settings.layout

    def announce(url: str) -> None:
        print(f"Firebrick serves builds on {url} (home {home.root})", flush=True)  # noqa: T201 - this is the command line

    check_network(home, node_settings)
    async with Node.open(home, settings=node_settings, warn=warn) as node:
        await serve_builds(home, node, settings, on_ready=announce)


def configure_logging(level: str, form: LogFormat) -> None:
    """Send events to stderr, from `level` up."""
    text = form is LogFormat.TEXT or (form is LogFormat.AUTO and sys.stderr.isatty())
    renderer = _text_renderer() if text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _tamed if text else structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    logging.basicConfig(handlers=[_Onward()], level=logging.WARNING)


class _Onward(logging.Handler):
    """Passes on what libraries log, so that all lines have one form."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info
        )


def _tamed(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Paths and addresses come from whoever calls; JSON has escapes for what is in them, a terminal obeys it."""
    return {key: tame(value, colour=False) if isinstance(value, str) else value for key, value in event.items()}


def _traceback(out: TextIO, error: ExcInfo) -> None:
    said = StringIO()
    structlog.dev.plain_traceback(said, error)
    out.write(tame_block(said.getvalue()))


def _text_renderer() -> structlog.dev.ConsoleRenderer:
    # Plain tracebacks: the others show what variables hold, and one of them may hold a credential.
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_traceback)
