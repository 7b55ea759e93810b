"""The directory of one build, `<home>/builds/<id>`: what is in it, and what of it outlives the build.

log.jsonl       the log                             kept
artifacts/      what jobs left                      kept; emptied before each attempt
manifest.json   what is in artifacts/               kept
jobs.json       how the jobs ended                  kept
event.json      the payload of its event            kept
source/         the clone                           gone before the build is reported as ended
credential      of the repository, mode 0600        the same
earlier/        what an earlier attempt has left    the same: jobs.json, manifest.json and artifacts/ of it
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from firebrick.forge.address import Credential
from firebrick.home import Home
from firebrick.node.earlier import Earlier, EarlierFile
from firebrick.server.artifact import read_manifest
from firebrick.server.record import Outcome
from firebrick.server.whole import forget, write_whole
from firebrick.tree import remove as remove_tree
from firebrick.workflow.outcome import SKIPPED, SUCCESS, WAITING, JobOutcome


class Place:
    """Where a build is on disk. Calls that remove trees may take a while: make them in a thread."""

    def __init__(self, home: Home, build_id: str) -> None:
        self.root: Path = home.builds / build_id

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

    def beside(self, build_id: str) -> Place:
        """That of another build of the same home."""
        place = Place.__new__(Place)
        place.root = self.root.with_name(build_id)
        return place

    def create(self, credential: Credential | None, payload: bytes | None = None, earlier: Place | None = None) -> None:
        """Make the directory; a credential has to outlive a crash of the server, so it is kept beside the clone it is for. `payload` is that of
        the event, as JSON; `earlier` is where an attempt was whose jobs that did not fail stay as they are.

        Where it cannot all be written, nothing is left."""
        self.root.mkdir(mode=0o700, parents=True)
        try:
            if credential is not None:
                self._keep_credential(credential)
            if payload is not None:
                self._payload.write_bytes(payload)
            if earlier is not None:
                self._take_over(earlier)
        except BaseException:
            self.remove()
            raise

    @property
    def _payload(self) -> Path:
        return self.root / "event.json"

    def payload(self) -> bytes | None:
        """That of the event, as JSON; None where none was sent."""
        try:
            return self._payload.read_bytes()
        except FileNotFoundError:
            return None

    # --- attempts that follow each other ---

    @property
    def _jobs(self) -> Path:
        return self.root / "jobs.json"

    @property
    def _earlier(self) -> Path:
        return self.root / "earlier"

    def keep_jobs(self, jobs: Mapping[str, JobOutcome]) -> None:
        """How the jobs of the attempt ended, by key."""
        write_jobs(self._jobs, jobs)

    def jobs(self) -> dict[str, JobOutcome]:
        """How they ended; none where that is not known."""
        return read_jobs(self._jobs)

    def earlier(self) -> Earlier:
        """What is to stay as an earlier attempt has left it."""
        manifest = read_manifest(self._earlier / "manifest.json")
        files = [
            EarlierFile(job=each.job, name=each.name, path=each.path, size=each.size, sha256=each.sha256)
            for each in (manifest.artifacts if manifest is not None else ())
        ]
        jobs = read_jobs(self._earlier / "jobs.json")
        return Earlier(jobs=jobs, files=files, directory=self._earlier / "artifacts")

    def _take_over(self, other: Place) -> None:
        """The same files: they are never written to again."""
        jobs = {key: ended for key, ended in other.jobs().items() if ended.result in (SUCCESS, SKIPPED)}
        self._earlier.mkdir(mode=0o700)
        if other.manifest.exists():
            shutil.copytree(other.artifacts, self._earlier / "artifacts", symlinks=True, copy_function=_link)
            shutil.copyfile(other.manifest, self._earlier / "manifest.json")
        write_jobs(self._earlier / "jobs.json", jobs)

    def park(self) -> None:
        """Put what this attempt has left to where the next one looks for it. Killed in the middle, one or the other is there."""
        jobs = {key: ended for key, ended in self.jobs().items() if ended.result != WAITING}
        draft = self.root / "earlier.partial"
        remove_tree(draft)
        draft.mkdir(mode=0o700)
        shutil.copytree(self.artifacts, draft / "artifacts", symlinks=True, copy_function=_link)
        shutil.copyfile(self.manifest, draft / "manifest.json")
        write_jobs(draft / "jobs.json", jobs)
        remove_tree(self._earlier)
        draft.rename(self._earlier)

    def forget_earlier(self) -> None:
        """No other attempt of this build comes. Idempotent."""
        remove_tree(self._earlier)
        remove_tree(self.root / "earlier.partial")

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
        write_whole(self._outcome, msgspec.json.encode((attempt, outcome)))

    def kept_outcome(self, attempt: int) -> Outcome | None:
        """How this attempt ended, if it did."""
        try:
            kept, outcome = msgspec.json.decode(self._outcome.read_bytes(), type=tuple[int, Outcome])
        except FileNotFoundError:
            return None
        return outcome if kept == attempt else None

    def forget_outcome(self) -> None:
        """The store knows it. Idempotent."""
        forget(self._outcome)

    def clear_source(self) -> None:
        """Remove the clone. Idempotent."""
        remove_tree(self.source)
        remove_tree(self.source.with_name("source.home"))

    def clear_attempt(self) -> None:
        """Remove what an attempt made, for the next. Idempotent."""
        self.clear_source()
        self.forget_outcome()
        remove_tree(self.artifacts)
        forget(self.manifest)
        forget(self._jobs)

    def forget_credential(self) -> None:
        """Remove the credential: no other attempt comes. Idempotent."""
        self._credential.unlink(missing_ok=True)

    def forget_inputs(self) -> None:
        """Remove what an ended build does not need any more. Idempotent."""
        self.forget_credential()
        self.forget_earlier()

    def remove(self) -> None:
        """Remove everything. Idempotent."""
        remove_tree(self.root)


def _link(source: str, target: str) -> None:
    os.link(source, target, follow_symlinks=False)


def write_jobs(file: Path, jobs: Mapping[str, JobOutcome]) -> None:
    write_whole(file, msgspec.json.encode({key: (ended.result, ended.outputs) for key, ended in jobs.items()}))


def read_jobs(file: Path) -> dict[str, JobOutcome]:
    try:
        kept = msgspec.json.decode(file.read_bytes(), type=dict[str, tuple[str, dict[str, str]]])
    except FileNotFoundError:
        return {}
    return {key: JobOutcome(result, outputs) for key, (result, outputs) in kept.items()}
