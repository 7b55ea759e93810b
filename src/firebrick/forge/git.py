"""git, set up so that neither the repository nor the server at the other end decides anything on this host.

Nothing of the user's or the system's configuration is read; no hook, filter, helper, pager, editor, askpass or file system monitor can run;
only the protocol of the address is spoken; objects are checked as they arrive; memory, file size and processor time are bounded by the kernel.
Secrets go in through the environment, never as arguments, and are taken out of everything git says.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from firebrick.forge.address import Address, Credential
from firebrick.forge.errors import AccessError, CloneError, CloneLimitError, ForgeError, RefNotFoundError
from firebrick.process import Completed, OutputLimitError, ProcessError, ProgramNotFoundError, run

FETCH: Final = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--no-auto-gc")
_MEMORY_BYTES: Final = 2 << 30
_PASSED_ON: Final = (
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "SSH_AUTH_SOCK"),
)
_CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_ENVIRONMENT: Final[Mapping[str, str]] = {
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_PAGER": "cat",
    "GIT_EDITOR": "false",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oClearAllForwardings=yes -oPermitLocalCommand=no -oConnectTimeout=20",
    "GIT_SSH_VARIANT": "ssh",
}

_CONFIG: Final[Mapping[str, str]] = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.attributesFile": os.devnull,
    "core.excludesFile": os.devnull,
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "core.bigFileThreshold": "16m",
    "credential.helper": "",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "fetch.unpackLimit": "1",
    "transfer.fsckObjects": "true",
    "transfer.bundleURI": "false",
    # Old and honest repositories have these; none of them reaches a path or a configuration.
    "fetch.fsck.zeroPaddedFilemode": "ignore",
    "fetch.fsck.missingSpaceBeforeDate": "ignore",
    "fetch.fsck.missingSpaceBeforeEmail": "ignore",
    "fetch.fsck.missingNameBeforeEmail": "ignore",
    "fetch.fsck.missingEmail": "ignore",
    "fetch.fsck.badTimezone": "ignore",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "pack.threads": "2",
    "checkout.workers": "1",
    "advice.detachedHead": "false",
    "init.defaultBranch": "main",
    "http.lowSpeedLimit": "100",
    "http.lowSpeedTime": "60",
}


class Git:
    """git for one repository: its tree at `directory`, its other end at `address`. `max_bytes` bounds each file it writes. `config` is a file with
    more configuration, which a local other end reads as well."""

    def __init__(
        self,
        address: Address,
        directory: Path,
        *,
        home: Path,
        max_bytes: int,
        cpu_s: int,
        config: Path | None = None,
    ) -> None:
        self._address = address
        self._directory = directory
        self._environment = _environment(address, home)
        if config is not None:
            self._environment["GIT_CONFIG_GLOBAL"] = os.fspath(config)
        self._secrets = secret_forms(address.credential)
        self._limits = (
            f"--as={_MEMORY_BYTES + max_bytes}",
            f"--fsize={max_bytes}",
            f"--cpu={cpu_s}",
            "--core=0",
        )

    async def run(self, *arguments: str, limit: int = 1 << 16, data: bytes | None = None) -> str:
        """Run `git -C <directory> …`, with `data` for its input, and return what it prints. Raises a ForgeError that says what `firebrick` was doing
        and why git failed."""
        return (await self._run(arguments, limit, data)).text

    async def read(self, *arguments: str, limit: int = 64 << 20, data: bytes | None = None) -> bytes:
        """The same, for what need not be text."""
        return (await self._run(arguments, limit, data)).stdout

    async def commit(self, name: str) -> str | None:
        """The commit of this name, if it is here."""
        try:
            return (
                await self.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
            ).strip()
        except CloneError:
            return None

    async def _run(self, arguments: Sequence[str], limit: int, data: bytes | None) -> Completed:
        # Without the signal git is told that a file has become too large, and says so, where it would just die.
        limits = ("env", "--ignore-signal=XFSZ", "prlimit", *self._limits)
        argv = [*limits, "git", "-C", os.fspath(self._directory), *arguments]
        try:
            return await run(argv, env=self._environment, input=data, limit=limit)
        except ProgramNotFoundError as error:
            raise CloneError(str(error), hint="Install the packages git and util-linux.") from None
        except OutputLimitError:
            raise CloneError(f"git {arguments[0]} of {self._address.url} printed more than {limit} bytes") from None
        except ProcessError as error:
            failure = self._explain(arguments[0], error)
        # Out here it has no context: that holds what git printed, which may hold what must not be seen.
        raise failure

    def _explain(self, verb: str, error: ProcessError) -> ForgeError:
        said = redact(error.stderr, self._secrets)
        reason = last_words(said)
        about = f"{self._address.url}: {reason}" if reason else f"{self._address.url}: git {verb} failed"
        for signs, kind, hint in _REASONS:
            if any(sign in said for sign in signs):
                return kind(f"cannot clone {about}", hint=hint)
        if error.returncode is not None and error.returncode < 0:
            return CloneLimitError(f"cannot clone {self._address.url}: git {verb} was stopped at a limit of this host")
        return CloneError(f"cannot clone {about}")


_REASONS: Final[Sequence[tuple[Sequence[str], type[ForgeError], str]]] = (
    (
        (
            "couldn't find remote ref",
            "not our ref",
            "no such remote ref",
            "Server does not allow request for unadvertised",
        ),
        RefNotFoundError,
        "Check the branch and the commit; the commit must still be reachable from a branch.",
    ),
    (
        (
            "Out of memory",
            "out of memory",
            "memory exhausted",
            "File too large",
            "mmap failed",
            "died of signal",
            "unable to write",
        ),
        CloneLimitError,
        "It needs more memory, larger files or more time than a clone may take; `clone_max_mib` and `clone_timeout_s` set that.",
    ),
    (
        (
            "Authentication failed",
            "could not read Username",
            "could not read Password",
            "Permission denied",
            "error: 403",
        ),
        AccessError,
        "For a private repository put the credential into `git_credentials` of config.toml, or set up a key for ssh.",
    ),
    (
        ("not found", "does not appear to be a git repository", "does not exist", "error: 404", "Repository not found"),
        AccessError,
        "Check the address, and whether the repository is private.",
    ),
    (
        ("fsck", "fatal: invalid path", "contains '.git'", "hasDot", "gitmodules"),
        CloneError,
        "The repository holds objects no honest git writes; it is refused as a whole.",
    ),
)


def _environment(address: Address, home: Path) -> dict[str, str]:
    config = dict(_CONFIG)
    allowed = {"http": "http:https"}.get(address.scheme, address.scheme)
    # A redirected server would get the credential too: git sends extra headers wherever it is sent.
    config["http.followRedirects"] = "initial" if address.credential is None else "false"
    if address.credential is not None:
        config[f"http.{address.origin}/.extraHeader"] = f"Authorization: Basic {_basic(address.credential)}"
    numbered = {"GIT_CONFIG_COUNT": str(len(config))}
    for index, (key, value) in enumerate(config.items()):
        numbered |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    private = {"HOME": os.fspath(home), "XDG_CONFIG_HOME": os.fspath(home), "GIT_ALLOW_PROTOCOL": allowed}
    return {**passed_on, **_ENVIRONMENT, **private, **numbered}


def _basic(credential: Credential) -> str:
    return b64encode(f"{credential.user}:{credential.password}".encode()).decode()


def secret_forms(credential: Credential | None) -> tuple[str, ...]:
    """Every form in which the secret of a credential may be echoed, longest first. A user name beside a password is no secret."""
    if credential is None:
        return ()
    secret = credential.password or credential.user
    forms = {secret, quote(secret, safe=""), quote(secret), b64encode(secret.encode()).decode(), _basic(credential)}
    return tuple(sorted((f for f in forms if f), key=len, reverse=True))


def redact(text: str, secrets: Sequence[str]) -> str:
    """`text` without the secrets, without what follows `user:` in an address, and without control characters but newline and tab."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = re.sub(r"(?<=://)[^/@\s]+@", "***@", text)
    return _CONTROL.sub("", text.replace("\r", "\n"))


def last_words(said: str) -> str:
    """The one line of git's error output that says why: the last `fatal:` or `error:`, else the last line. At most 500 characters."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [
        line for line in lines if line.startswith(("fatal:", "error:", "remote: error", "remote: fatal"))
    ] or lines
    return telling[-1].removeprefix("fatal: ")[:500] if telling else ""
