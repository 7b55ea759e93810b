"""`firebrick run` and `firebrick serve` as programs, the way a user starts them."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from firebrick.home import Home
from tests.place import environment

FIREBRICK = str(Path(sys.executable).with_name("firebrick"))
RUN_LIMIT_S = 900
_START_LIMIT_S = 30


@dataclass(frozen=True)
class Ran:
    """A `firebrick run --json` that has ended."""

    status: int
    events: list[dict[str, Any]]
    stderr: str

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]

    @property
    def conclusion(self) -> str:
        return str(self.of("run_finished")[-1]["conclusion"])

    @property
    def log(self) -> str:
        return "\n".join(line["text"] for line in self.of("log_line"))

    def failed_steps(self) -> list[str]:
        names = {(event["job"], event["step"]): event["name"] for event in self.of("step_started")}
        return [
            names[event["job"], event["step"]] for event in self.of("step_finished") if event["conclusion"] == "failure"
        ]


class Runner:
    """Starts `firebrick run` in a home."""

    def __init__(self, home: Home) -> None:
        self._environment = environment(home)

    def start(self, repository: Path, *options: str) -> subprocess.Popen[str]:
        argv = [FIREBRICK, "run", "--json", "-C", str(repository), *options]
        return subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=self._environment,
        )

    def run(self, repository: Path, *options: str) -> Ran:
        with self.start(repository, *options) as process:
            return finished(process)


def finished(process: subprocess.Popen[str]) -> Ran:
    try:
        stdout, stderr = process.communicate(timeout=RUN_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Ran(process.returncode, [json.loads(line) for line in stdout.splitlines()], stderr)


class Server:
    """A running `firebrick serve`."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def submit(self, repository: Path, **fields: object) -> str:
        answer = self.client.post("/build", json={"repo_url": f"file://{repository}", "branch": "main", **fields})
        assert answer.status_code < 300, answer.text
        body = answer.json()
        assert body["build_id"].startswith("build_")
        assert body["status"] == "queued"
        return str(body["build_id"])

    def build(self, build: str) -> dict[str, Any]:
        answer = self.client.get(f"/build/{build}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def wait(self, build: str, *states: str) -> dict[str, Any]:
        """The build as it is when it has reached one of the states; any final one ends the wait."""
        deadline = time.monotonic() + RUN_LIMIT_S
        wanted = {*states, "completed", "failed"}
        while (now := self.build(build))["status"] not in wanted:
            assert time.monotonic() < deadline, f"{build} is still {now['status']}"
            time.sleep(0.1)
        return now


@contextlib.contextmanager
def serving(home: Home) -> Iterator[Server]:
    """`firebrick serve` on a free port of this host, with local repositories allowed; ended as a user would, with an interrupt."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = environment(
        home, FIREBRICK_HOST="127.0.0.1", FIREBRICK_PORT=str(port), FIREBRICK_ALLOW_LOCAL_REPOS="true"
    )
    log = home.root / "serve.log"
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [FIREBRICK, "serve"], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=variables
        ) as process,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=30, limits=httpx.Limits(max_keepalive_connections=0)
        ) as client,
    ):
        try:
            _await_health(client, process, log)
            yield Server(client)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert process.returncode in (0, 130), log.read_text()


def _await_health(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/health").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"firebrick serve does not answer:\n{log.read_text()}")
