"""What a node is asked to do: run one workflow on one source tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from firebrick.forge.address import Address
from firebrick.node.earlier import Earlier
from firebrick.node.kept.rerun import Rerun
from firebrick.workflow.expression.value import Value
from firebrick.workflow.syntax import Workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A checked-out tree on the host and what it is. The node only reads it. `repository` is `owner/name`, what it is called; `tenant` says whose
    artifacts and caches are its own: where it was cloned from. Empty: those of runs on this directory. `remote` is where more of its history can be
    had, where `path` is not all of it."""

    path: Path
    repository: str
    ref: str
    sha: str
    event_name: str = "push"
    event: Mapping[str, object] = field(default_factory=dict)
    tenant: str = ""
    remote: Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """What else differs from machine to machine, told: where its clock starts, in seconds since 1970, its hostname, and what its random numbers
    and its machine-id are made of. The kernel mixes more into random numbers than that."""

    time_s: int
    hostname: str
    seed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Of each machine of the run. `timeout_s` bounds the whole run. `network`: outgoing connections, besides what the node's settings allow.
    `fixed` is who each machine is, where that is to be the same each time."""

    vcpus: int = 2
    memory_mib: int = 2048
    scratch_mib: int = 8192
    timeout_s: float = 600.0
    network: bool = False
    fixed: Fixed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentOrder:
    """What jobs in one environment have besides what all have. Those of an environment that `waits` (why) do not begin in this run, and end as
    `waiting`; those of one with a `refusal` fail with it."""

    secrets: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    waits: str = ""
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """One run: `artifact_dir` is where artifacts are put (made if missing), `jobs` narrows the run to these (and their needs),
    `image` overrides what `runs-on` says, `collect` are globs of files to bring out of the workspace of every job that succeeded. `inputs` and
    `variables` are the contexts `inputs` and `vars`. `caller` is the run's own workflow where `workflow` is one that it calls. With
    `rerun` it is one job of another run, from a checkpoint on; with `earlier` the next attempt of another. `number` counts attempts from 1.
    `origin` is what the run is called in all of them, where that is not `id`. `environments` are by name, which has no case."""

    id: str
    workflow: Workflow
    source: Source
    artifact_dir: Path
    resources: Resources = Resources()
    jobs: frozenset[str] = frozenset()
    image: str | None = None
    collect: tuple[str, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    rerun: Rerun | None = None
    inputs: Mapping[str, Value] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    caller: Workflow | None = None
    earlier: Earlier = field(default_factory=Earlier)
    number: int = 1
    origin: str = ""
    environments: Mapping[str, EnvironmentOrder] = field(default_factory=dict)
