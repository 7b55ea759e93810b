"""The server as a process: listen, serve until told to stop, and stop in order.

SIGTERM or SIGINT closes the door and lets followers go; then builds under way are interrupted and queued again. A second signal does not wait for
connections, a third one for nothing: whatever is left then is taken up by the next start.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn

from firebrick.home import Home
from firebrick.node.contract import RunHost
from firebrick.server.api import create_app
from firebrick.server.build import Planner
from firebrick.server.builds import Builds, open_builds
from firebrick.server.clock import Clock
from firebrick.server.errors import ServerError
from firebrick.server.guard import hosts_for
from firebrick.server.plan import make_plan
from firebrick.server.settings import ServeSettings
from firebrick.web import Bounds, WebServer, web_config

_BACKLOG: Final = 1024
_GOODBYE_S: Final = 5
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class ListenError(ServerError):
    """The address cannot be listened on."""


async def serve(
    home: Home,
    node: RunHost,
    settings: ServeSettings,
    *,
    on_ready: Callable[[str], None],
    plan: Planner = make_plan,
    clock: Clock | None = None,
) -> None:
    """Serve until a signal comes. `on_ready` is called once, with the address, when requests are answered. `clock` defaults to this host's.

    Raises ListenError, HomeInUseError."""
    with listen(settings.host, settings.port) as door:
        async with open_builds(home, node, settings, plan=plan, clock=clock) as builds:
            app = create_app(builds, hosts=hosts_for(settings.host, settings.allowed_hosts))
            server = WebServer(web_config(app, Bounds(), goodbye_s=_GOODBYE_S), lambda: on_ready(url_of(door)))
            with _stopped_by_signals(server, builds):
                await server.serve(sockets=[door])


@contextmanager
def _stopped_by_signals(server: uvicorn.Server, builds: Builds) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True
        builds.close_followers()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket. Raises ListenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        door = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (while ")[
            0
        ]  # the library puts the address behind it once more
        raise ListenError(
            f"cannot listen on {host}:{port}: {why}",
            hint="Choose another with --host and --port; port 0 takes a free one.",
        ) from error
    with door:
        yield door


def url_of(door: socket.socket) -> str:
    host, port = door.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
