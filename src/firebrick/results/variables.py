"""The variables by which actions find the services, and take them for GitHub's."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from firebrick.results.token import Grant

# A name below `.localhost` is one the clients accept as not being somebody's own GitHub, which they would refuse.
HOST: Final = "forge.localhost"
_ACCEPTED: Final = (".ghe.com", ".localhost")


def runtime_variables(token: str, grant: Grant, *, port: int, server_url: str = "https://github.com") -> dict[str, str]:
    """What a job's actions are given, its `run` steps are not. `token` is the grant, signed. The guest reaches the services on `port` of its own
    loopback, and knows it as `forge.localhost`. `server_url` is the forge of the run: clients would refuse another than GitHub, so they are shown
    none."""
    origin = f"http://{HOST}:{port}"
    variables = {
        "ACTIONS_RUNTIME_TOKEN": token,
        "ACTIONS_RUNTIME_URL": f"{origin}/",
        "ACTIONS_RESULTS_URL": f"{origin}/",
        "ACTIONS_CACHE_URL": f"{origin}/",
        "ACTIONS_CACHE_SERVICE_V2": "true",
        "ACTIONS_CACHE_MODE": "read" if grant.write is None else "write",
    }
    if not _is_accepted(server_url):
        variables |= {"GITHUB_SERVER_URL": origin, "GITHUB_API_URL": f"{origin}/api/v3"}
    return variables


def _is_accepted(server_url: str) -> bool:
    host = (urlsplit(server_url).hostname or "").lower()
    return host == "github.com" or host.endswith(_ACCEPTED)
