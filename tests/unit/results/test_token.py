from __future__ import annotations

import json
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import jwt
import pytest

from firebrick.results.errors import DeniedError, ResultsError, UnauthenticatedError
from firebrick.results.link import Right, check_link, signed
from firebrick.results.token import read_grant, read_key, sign_grant
from firebrick.results.variables import runtime_variables
from tests.unit.results.conftest import MAIN, PULL, SIDE, grant

KEY, OTHER = b"k" * 32, b"o" * 32


def test_a_token_is_read_as_it_was_granted():
    given = grant("run: 7", "build (a, b:c)")
    assert read_grant(KEY, sign_grant(KEY, given, lifetime_s=60)) == given


@pytest.mark.parametrize("write", [None, MAIN, PULL])
def test_the_cache_scopes_are_where_clients_look_for_them(write: str | None):
    given = grant(read=(SIDE, MAIN), write=write)
    token = sign_grant(KEY, given, lifetime_s=60)
    assert read_grant(KEY, token) == given
    listed = json.loads(jwt.decode(token, options={"verify_signature": False})["ac"])
    permissions = {each["Scope"]: each["Permission"] for each in listed}
    assert permissions == {SIDE: 1, MAIN: 1} | ({} if write is None else {write: 3 if write == MAIN else 2})


def test_clients_find_run_and_job_in_a_token_whatever_their_names_are():
    token = sign_grant(KEY, grant("run: 7", "build (a b)"), lifetime_s=60)
    scope = jwt.decode(token, options={"verify_signature": False})["scp"]
    assert scope.split(" ") == [scope]
    assert scope.split(":") == ["Actions.Results", "run%3A%207", "build%20%28a%20b%29"]


@pytest.mark.parametrize(
    "token",
    [
        sign_grant(OTHER, grant(), lifetime_s=60),
        sign_grant(KEY, grant(), lifetime_s=-120),
        jwt.encode({"scp": "x"}, KEY, algorithm="HS256"),
        jwt.encode({"scp": "x", "iss": "firebrick", "exp": time.time() + 60}, KEY, algorithm="HS256"),
        jwt.encode({"scp": "x", "iss": "other", "exp": time.time() + 60}, KEY, algorithm="HS256"),
        jwt.encode({"scp": "Actions.Results:1:build", "iss": "firebrick"}, "", algorithm="none"),
        "",
        "a.b.c",
    ],
)
def test_any_other_token_is_refused(token: str):
    with pytest.raises(UnauthenticatedError):
        read_grant(KEY, token)


def test_the_key_is_made_once_and_is_the_owners_alone(tmp_path: Path):
    path = tmp_path / "deep/key"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: read_key(path), range(32)))
    assert len(keys) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["key"]


def test_a_key_that_was_cut_is_not_used(tmp_path: Path):
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(ResultsError, match="5 bytes"):
        read_key(tmp_path / "key")


def query(link: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(link).query))


def test_a_link_is_good_for_one_path_and_one_right_until_its_time_is_over():
    link = query(signed(KEY, "/blob/uploads/1", Right.WRITE, lifetime_s=60))
    check_link(KEY, "/blob/uploads/1", Right.WRITE, link)
    later = link | {"se": str(int(link["se"]) + 1)}
    over = query(signed(KEY, "/blob/uploads/1", Right.WRITE, lifetime_s=-5))
    for path, right, asked in (
        ("/blob/uploads/2", Right.WRITE, link),
        ("/blob/uploads/1", Right.READ, link),
        ("/blob/uploads/1", Right.WRITE, later),
        ("/blob/uploads/1", Right.WRITE, over),
        ("/blob/uploads/1", Right.WRITE, {}),
        ("/blob/uploads/1", Right.WRITE, link | {"sig": "é"}),
    ):
        with pytest.raises(DeniedError):
            check_link(KEY, path, right, asked)
    with pytest.raises(DeniedError):
        check_link(OTHER, "/blob/uploads/1", Right.WRITE, link)


def test_actions_are_shown_a_forge_their_clients_accept():
    hidden = runtime_variables("token", grant(), port=81, server_url="https://git.example.org")
    shown = runtime_variables("token", grant(write=None), port=81)
    assert hidden["GITHUB_SERVER_URL"] == "http://forge.localhost:81"
    assert hidden["ACTIONS_CACHE_URL"] == "http://forge.localhost:81/"
    assert "GITHUB_SERVER_URL" not in shown
    assert (hidden["ACTIONS_CACHE_MODE"], shown["ACTIONS_CACHE_MODE"]) == ("write", "read")
