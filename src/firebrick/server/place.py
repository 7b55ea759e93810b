"""The directory of one build, `<home>/builds/<id>`: what is in it, and what of it outlives the build.

log.jsonl       the log                             kept
artifacts/      what jobs left                      kept; emptied before each attempt
manifest.json   what is in artifacts/               kept
source/         the clone                           gone before the build is reported as ended
credential      of the repository, mode 0600        the same
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from firebrick.forge.address import Credential
from firebrick.home import Home
from firebrick.server.record import Outcome
from firebrick.tree import remove as remove_tree


class Place:
    """Where a build is on disk. Calls that remove trees may take a while: make them in a thread."""

    def __init__(self, home: Home, build_id: str) -> None:
        self.root = home.builds / build_id

    @property
    def log(self) -> Path:
        return self.root / "log.jsonl"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def _credential(self) -> Path:
        return self.root / "credential"

    def create(self, credential: Credential | None) -> None:
        """Make the directory; a credential has to outlive a crash of the server, so it is kept beside the clone it is for.
        Where it cannot be written, nothing is left."""
        self.root.mkdir(mode=0o700, parents=True)
        if credential is None:
            return
        try:
            self._keep_credential(credential)
        except BaseException:
            self.remove()
            raise

    def _keep_credential(self, credential: Credential) -> None:
        fd = os.open(self._credential, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode((credential.user, credential.password)))

    def credential(self) -> Credential | None:
        try:
            user, password = msgspec.json.decode(self._credential.read_bytes(), type=tuple[str, str])
        except FileNotFoundError:
            return None
        return Credential(user, password)

    @property
    def _outcome(self) -> Path:
        return self.root / "outcome.json"

    def keep_outcome(self, attempt: int, outcome: Outcome) -> None:
        """Note how an attempt ended, so that its work is not done again should the server die before the store knows it."""
        partial = self._outcome.with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode((attempt, outcome)))
        partial.replace(self._outcome)

    def kept_outcome(self, attempt: int) -> Outcome | None:
        """How this attempt ended, if it did."""
        try:
            kept, outcome = msgspec.json.decode(self._outcome.read_bytes(), type=tuple[int, Outcome])
        except FileNotFoundError:
            return None
        return outcome if kept == attempt else None

    def forget_outcome(self) -> None:
        """The store knows it. Idempotent."""
        self._outcome.unlink(missing_ok=True)
        self._outcome.with_suffix(".partial").unlink(missing_ok=True)

    def clear_source(self) -> None:
        """Remove the clone. Idempotent."""
        remove_tree(self.source)
        remove_tree(self.source.with_name("source.home"))

    def clear_attempt(self) -> None:
        """Remove what an attempt made, for the next. Idempotent."""
        self.clear_source()
        self.forget_outcome()
        remove_tree(self.artifacts)
        self.manifest.unlink(missing_ok=True)
        self.manifest.with_suffix(".partial").unlink(missing_ok=True)

    def forget_credential(self) -> None:
        """Remove the credential: no other attempt comes. Idempotent."""
        self._credential.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove everything. Idempotent."""
        remove_tree(self.root)
