"""Runs as data: what is run, and all it says, for guests in memory and for real machines alike.

A file of `corpus/` is a list of scenarios about one thing. Of a scenario

- `name` is unique in its file, `about` says why where the name does not.
- `steps` are the steps of one job `build`, `jobs` the jobs of a workflow for `push`, `workflow` is all of it: a text each.
- `files` are in the workspace where a step checks it out; with `commits` it is a repository, of one commit for each of these: its `files`, its `tag`, the `branch` it
  is made on, its `submodules` by their paths, each at the last commit of a mirror or at the commit it names. `mirrors` are the other repositories there are, by their names, of commits as well. `secrets`, `variables`, `inputs`, `event`, `event_name`, `ref` are the order's.
- `cancel_at` is the line at which the run is cancelled.
- `machine: true`: it runs in a real machine too, and must say the same.

`expect` is whole: a conclusion that is not there is success, a list that is not there is empty, and `steps` that are not there are all success. Where a scenario has one job, `steps` and
`log` are that job's; else they are told for each job. `log` has all lines of its steps. An annotation is written `{error: message, file: …}`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ruamel.yaml import YAML

from firebrick.node.contract import LiveRun, RunResult
from firebrick.node.event import Annotation, CancelCause, Event, JobFinished, LogLine, StepFinished
from tests.e2e.repository import Repository, make_repository

CORPUS = Path(__file__).parent / "corpus"
_JOB = "on: push\njobs:\n  build:\n    runs-on: base\n    steps:\n"
_PLACES = ("title", "file", "line", "end_line", "column", "end_column")
_KNOWN = {
    *("name", "about", "steps", "jobs", "workflow", "files", "secrets", "event", "event_name", "ref", "cancel_at"),
    *("variables", "inputs", "machine", "expect", "commits", "mirrors"),
}
_EXPECTED = {"conclusion", "message", "jobs", "steps", "log", "annotations", "outputs", "summaries", "never"}


@dataclass(frozen=True)
class Scenario:
    id: str
    data: dict[str, Any]

    @property
    def workflow(self) -> str:
        if "workflow" in self.data:
            return self.data["workflow"]
        if "jobs" in self.data:
            return "on: push\njobs:\n" + textwrap.indent(self.data["jobs"], "  ")
        return _JOB + textwrap.indent(self.data["steps"], "      ")

    @property
    def order(self) -> dict[str, Any]:
        """Fields of the order besides its workflow and source."""
        return {name: self.data.get(name, {}) for name in ("secrets", "variables", "inputs")}

    @property
    def expect(self) -> dict[str, Any]:
        return self.data.get("expect") or {}

    def write(self, directory: Path, mirrors: Path) -> str:
        """The source, and bare repositories as a node has them; the commit of the source is `a` forty times where it is no repository."""
        heads: dict[str, str] = {}
        for name, commits in self.data.get("mirrors", {}).items():
            with TemporaryDirectory() as work:
                repository = _committed(Path(work) / "work", commits, heads)
                heads[name] = repository.git("rev-parse", "HEAD")
                repository.git("clone", "--quiet", "--mirror", ".", str(mirrors / f"{name}.git"))
        sha = "a" * 40
        if "commits" in self.data:
            sha = _committed(directory, self.data["commits"], heads).git("rev-parse", "HEAD")
        directory.mkdir(exist_ok=True)
        self._write_files(directory)
        return sha

    def _write_files(self, directory: Path) -> None:
        for name, content in self.data.get("files", {}).items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    @property
    def machine(self) -> bool:
        return self.data.get("machine", False)


def _committed(directory: Path, commits: list[dict[str, Any]], heads: dict[str, str]) -> Repository:
    """`heads` are the last commits of other repositories, which submodules may be at."""
    repository = make_repository(directory)
    for commit in commits:
        if "branch" in commit:
            repository.git("checkout", "--quiet", "-B", commit["branch"])
        repository.commit(commit.get("files", {}))
        for path, name in commit.get("submodules", {}).items():
            (directory / path).mkdir(parents=True, exist_ok=True)
            repository.git("update-index", "--add", "--cacheinfo", f"160000,{heads.get(name, name)},{path}")
            repository.git("commit", "--quiet", "--amend", "--no-edit")
        if "tag" in commit:
            repository.git("tag", "--annotate", commit["tag"], "--message", commit["tag"])
    repository.git("checkout", "--quiet", "main")
    return repository


def scenarios() -> Iterator[Scenario]:
    for path in sorted(CORPUS.glob("*.yml")):
        for data in YAML(typ="safe").load(path):
            scenario = Scenario(f"{path.stem}: {data['name']}", data)
            assert not set(data) - _KNOWN, scenario.id
            assert not set(scenario.expect) - _EXPECTED, scenario.id
            yield scenario


async def follow(run: LiveRun, cancel_at: str | None) -> tuple[list[Event], RunResult]:
    """All a run says; it is cancelled when it says `cancel_at`."""
    events = []
    async for event in run.events():
        events.append(event)
        if isinstance(event, LogLine) and event.text == cancel_at:
            run.cancel(CancelCause.USER)
    return events, await run.result()


def check(scenario: Scenario, events: list[Event], result: RunResult) -> None:
    """Compare all that was said with all that is expected."""
    expect = scenario.expect
    told = tell(events, result)
    jobs = list(told["log"])
    whole = {
        "conclusion": expect.get("conclusion", "success"),
        "message": expect.get("message", ""),
        "jobs": expect.get("jobs", dict.fromkeys(jobs, "success")),
        "steps": {job: ["success"] * len(told["steps"][job]) for job in jobs} | _each(expect, "steps", jobs),
        "log": {job: [] for job in jobs} | _each(expect, "log", jobs),
        "annotations": [_annotation(each) for each in expect.get("annotations", [])],
        "outputs": {job: {} for job in jobs} | expect.get("outputs", {}),
        "summaries": expect.get("summaries", []),
    }
    different = {key: (told[key], whole[key]) for key in whole if told[key] != whole[key]}
    assert different == {}, (different, [event for event in events if isinstance(event, JobFinished)])
    said = " ".join(repr(event) for event in events)
    assert [word for word in expect.get("never", []) if word in said] == []


def _each(expect: dict[str, Any], key: str, jobs: list[str]) -> dict[str, Any]:
    """What is expected of each job, where it is told of the only one too."""
    value = expect.get(key, {})
    return value if isinstance(value, dict) else dict.fromkeys(jobs, value)


def _annotation(written: dict[str, Any]) -> dict[str, Any]:
    (level,) = set(written) & {"error", "warning", "notice"}
    rest = {key: value for key, value in written.items() if key != level}
    assert not set(rest) - set(_PLACES), written
    return {level: written[level], **rest}


def tell(events: list[Event], result: RunResult) -> dict[str, Any]:
    """What a run said, in the words of `expect`."""
    jobs = {event.job: event.conclusion.value for event in events if isinstance(event, JobFinished)}
    steps: dict[str, list[str]] = {job: [] for job in jobs}
    log: dict[str, list[str]] = {job: [] for job in jobs}
    annotations = []
    summaries = []
    for event in events:
        match event:
            case LogLine() if event.stream == "stdout":
                log[event.job].append(event.text)
            case StepFinished():
                steps[event.job].append(event.conclusion.value)
                summaries += [event.summary] if event.summary else []
            case Annotation():
                places = {key: getattr(event, key) for key in _PLACES if getattr(event, key) not in (None, "")}
                annotations.append({event.level: event.message, **places})
    return {
        "conclusion": result.conclusion.value,
        "message": result.message,
        "jobs": jobs,
        "steps": steps,
        "log": log,
        "annotations": annotations,
        "outputs": {job: dict(each.outputs) for job, each in result.jobs.items()},
        "summaries": summaries,
    }
