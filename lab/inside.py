"""Runs in the lab's host from its preparation on: a Python that has imported what every test run needs, and forks for each.

Under emulation, starting Python and importing pytest takes six seconds; saved with the host, it takes none. On the unix socket named by the first
argument each connection is one run: a line of JSON (`arguments` for pytest, `environment`, `directory`, `paths` for sys.path, `status`: the file to
write the exit status to), then the output goes back, until the run has ended.

Nothing of the tree under test is imported here, and no plugin that pytest wants to import itself.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import json
import os
import socket
import sys
import traceback
import unittest.mock
from typing import Any, NoReturn

import _pytest.config
import httpx
import msgspec
import pytest

_BROKEN = 70
_WARM = (asyncio, concurrent.futures, unittest.mock, httpx, msgspec)


def main(path: str) -> None:
    for name in _pytest.config.default_plugins:
        importlib.import_module(f"_pytest.{name}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(4)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("r") as lines:
                _serve(connection, json.loads(lines.readline()))


def _serve(connection: socket.socket, run: dict[str, Any]) -> None:
    child = os.fork()
    if child == 0:
        _run(connection.fileno(), run)
    _, status = os.waitpid(child, 0)
    with open(run["status"], "w") as file:  # noqa: PTH123 - pathlib would be imported for this alone
        file.write(str(os.waitstatus_to_exitcode(status)))
    # What the run left behind may hold its output for ever.
    connection.shutdown(socket.SHUT_RDWR)


def _run(output: int, run: dict[str, Any]) -> NoReturn:
    """The child: it becomes what `python3 -m pytest` would be, and ends."""
    status = _BROKEN
    try:
        os.setsid()
        for target in (1, 2):
            os.dup2(output, target)
        os.closerange(3, 1024)
        os.environ.update(run["environment"])
        os.chdir(run["directory"])
        sys.path[:1] = run["paths"]  # instead of where this file is
        sys.argv = ["pytest", *run["arguments"]]
        status = int(pytest.main(run["arguments"]))
    except BaseException:  # noqa: BLE001 - nothing of the parent may run in here
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1])
