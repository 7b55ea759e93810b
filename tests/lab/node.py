"""`firebrick` as somebody starts it on a host with Firecracker, a server to reach or not to reach, and what is left of machines on the host."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from firebrick.machine.seat import FIRST_ID, MOST

ALLOWED, OTHER = "192.88.99.7", "192.88.99.9"  # of nobody any more, and public: a name may have such an address
SMALL = ("--image", "base", "--vcpus", "1", "--memory", "256", "--scratch", "256")
_WORLD = "world"
_GROUPS = Path("/sys/fs/cgroup/firebrick")
_NAMESPACES = Path("/run/netns")


def firebrick(*words: str) -> list[str]:
    return [sys.executable, "-m", "firebrick.cli.main", *words]


def run(*words: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(firebrick("run", *words), capture_output=True, text=True, check=False, **options)


@contextlib.contextmanager
def world(directory: Path) -> Iterator[None]:
    """Somewhere else on the network: a namespace with a server on port 80 of two addresses, which has what is in `directory`, and knows names."""
    for line in (
        f"netns add {_WORLD}",
        f"link add {_WORLD} type veth peer name eth0 netns {_WORLD}",
        f"addr add 192.88.99.1/24 dev {_WORLD}",
        f"link set {_WORLD} up",
        f"-n {_WORLD} addr add {ALLOWED}/24 dev eth0",
        f"-n {_WORLD} addr add {OTHER}/24 dev eth0",
        f"-n {_WORLD} link set eth0 up",
        f"-n {_WORLD} route add default via 192.88.99.1",
    ):
        subprocess.run(["ip", *line.split()], check=True)
    there = ["ip", "netns", "exec", _WORLD]
    http = [*there, sys.executable, "-m", "http.server", "--directory", directory, "80"]
    names = [
        *there,
        "dnsmasq",
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--local=/mirror.example.org/",
        f"--address=/mirror.example.org/{ALLOWED}",
    ]
    try:
        with subprocess.Popen(http, stderr=subprocess.DEVNULL) as server, subprocess.Popen(names) as resolver:
            try:
                _wait_for_server()
                yield
            finally:
                server.kill()
                resolver.kill()
    finally:
        subprocess.run(["ip", "netns", "del", _WORLD], check=True)


def _wait_for_server() -> None:
    again = ("--retry", "30", "--retry-delay", "1", "--retry-connrefused")
    subprocess.run(["curl", "-fsS", *again, "--stderr", "-", "-o", "/dev/null", f"http://{ALLOWED}/"], check=True)


def left(home: Path) -> dict[str, list[str]]:
    """What there is of machines on the host, by kind; nothing where everything is gone."""
    found = {
        "processes": _processes(),
        "groups": [path.name for path in _GROUPS.iterdir() if path.is_dir()] if _GROUPS.is_dir() else [],
        "namespaces": [name for name in os.listdir(_NAMESPACES) if name != _WORLD],
        "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(home) in line],
        "machines": os.listdir(home / "machines") if (home / "machines").is_dir() else [],
        "nodes": os.listdir(home / "nodes") if (home / "nodes").is_dir() else [],
        "tables": [line for line in _tables() if "firebrick" in line],
    }
    return {kind: what for kind, what in found.items() if what}


def processes(name: str) -> list[int]:
    return [int(pid) for pid in _output("pgrep", "--exact", name).split()]


def _processes() -> list[str]:
    """Those of every seat, the resolver of its network included, and every VMM."""
    found = []
    for line in _output("ps", "-eo", "uid=,stat=,args=").splitlines():
        uid, state, args = line.split(None, 2)
        if (int(uid) in range(FIRST_ID, FIRST_ID + 2 * MOST) or "/firecracker " in args) and state[0] != "Z":
            found.append(args)  # what has ended waits for its parent, which for orphans is these tests
    return found


def _tables() -> list[str]:
    return _output("nft", "list", "tables").splitlines()


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout
