"""ACTIONS_RUNTIME_TOKEN: what one job may do with the services, signed by this host.

A JSON Web Token, because clients read the run's and the job's id out of its `scp`, and some the cache scopes out of its `ac`. The other claims are
ours: no client minds them."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import jwt
import msgspec

from firebrick.results.errors import ResultsError, UnauthenticatedError

_ALGORITHM: Final = "HS256"
_ISSUER: Final = "firebrick"
_KEY_BYTES: Final = 32
_LEEWAY_S: Final = 60
_READ: Final = 1
_WRITE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One job of one run of `repository` (`owner/name`). `tenant` is whom that name belongs to and all that is kept: where the repository is, not what
    it calls itself; what one tenant keeps, no other sees. `read` and `write` are the scopes of `firebrick.results.scope`."""

    tenant: str
    repository: str
    run: str
    job: str
    read: tuple[str, ...]
    write: str | None

    @property
    def run_id(self) -> str:
        """The run as clients name it: `:` and spaces separate in a token."""
        return quote(self.run, safe="")

    @property
    def job_id(self) -> str:
        return quote(self.job, safe="")


def sign_grant(key: bytes, grant: Grant, *, lifetime_s: float) -> str:
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": _ISSUER,
        "iat": now,
        "exp": now + int(lifetime_s),
        "scp": f"Actions.Results:{grant.run_id}:{grant.job_id}",
        "tenant": grant.tenant,
        "repository": grant.repository,
        "run": grant.run,
        "job": grant.job,
        "ac": _access(grant),
    }
    return jwt.encode(claims, key, algorithm=_ALGORITHM)


def read_grant(key: bytes, token: str) -> Grant:
    """What the token grants. Raises UnauthenticatedError where it is not ours or its time is over."""
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            issuer=_ISSUER,
            leeway=_LEEWAY_S,
            options={"require": ["exp", "iss", "scp"]},
        )
        return Grant(
            tenant=claims["tenant"],
            repository=claims["repository"],
            run=claims["run"],
            job=claims["job"],
            **_scopes(claims["ac"]),
        )
    except jwt.ExpiredSignatureError as error:
        raise UnauthenticatedError("the time of this token is over", hint="It is good while its job runs.") from error
    except (jwt.InvalidTokenError, KeyError, TypeError, msgspec.MsgspecError) as error:
        raise UnauthenticatedError("this token is none of this host's") from error


class _Scope(msgspec.Struct, rename="pascal"):
    """A cache scope in a token, as GitHub writes it: 1 is to read, 2 to write."""

    scope: str
    permission: int


def _access(grant: Grant) -> str:
    scopes = dict.fromkeys(grant.read, _READ)
    if grant.write is not None:
        scopes[grant.write] = scopes.get(grant.write, 0) | _WRITE
    return msgspec.json.encode([_Scope(*pair) for pair in scopes.items()]).decode()


def _scopes(access: str) -> dict[str, Any]:
    scopes = msgspec.json.decode(access, type=list[_Scope])
    write = (each.scope for each in scopes if each.permission & _WRITE)
    return {"read": tuple(each.scope for each in scopes if each.permission & _READ), "write": next(write, None)}


def read_key(path: Path) -> bytes:
    """The secret of this host's tokens and links, made at the first call; whoever else makes it at the same moment, all get the same.

    Raises ResultsError for a file that holds no such secret."""
    with contextlib.suppress(FileNotFoundError):
        return _checked(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staging = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    fd = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(staging)
    finally:
        staging.unlink()
    return _checked(path)


def _checked(path: Path) -> bytes:
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise ResultsError(
            f"{path} holds {len(key)} bytes, not a secret of {_KEY_BYTES}",
            hint="Remove it: a new one is made, and tokens of running jobs end.",
        )
    return key
