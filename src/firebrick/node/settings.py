"""What a node may be told in the `[node]` table of `config.toml`. Read with msgspec alone: a run shall not wait for more.

[node]
machines = 4                # alive at once; default: one per core, as far as the memory goes
default_image = "toolchain"
network = true              # outgoing connections for jobs
driver = "firecracker"      # or "qemu", the default
jail = true                 # default: yes under Firecracker, no under QEMU; needs root

containers = "/srv/containers"      # OCI layouts and archives: <repository>/<tag>.tar and others
registries = ["docker.io"]  # where other images may be fetched from; none by default

[[node.allow]]              # what jobs with a network namespace of their own may reach; nothing else
to = "*.example.org"
ports = [443]

[node.labels]               # runs-on label -> image; `*` matches anything
"ubuntu-24.*" = "noble"
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from firebrick.node.errors import SettingsError
from firebrick.node.tool.limits import ToolLimits
from firebrick.results.limits import ResultsLimits

_MEMORY_PER_MACHINE: Final = 1 << 30  # forks share most of theirs: half of the default size is what one really takes

# What `checkpoint` may say; N is the number of a step.
CHECKPOINTS: Final = r"^(none|asked|step|before:[1-9][0-9]{0,3})$"

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class DriverName(StrEnum):
    QEMU = "qemu"
    FIRECRACKER = "firecracker"


class Keep(StrEnum):
    """When a machine is kept for `firebrick debug`: where a step failed; there, and after the last step of a job that had none; never."""

    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    NEVER = "never"


class Allowed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[node.allow]]`: a network, an address or a name, and which of its ports; none means all."""

    to: str
    ports: tuple[int, ...] = ()
    transport: Literal["tcp", "udp"] = "tcp"


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`log_limit_mib` bounds what one job may log, `artifact_limit_mib` what it may leave behind, `source_limit_mib` what is put into its
    workspace. `jail` None is the driver's own: Firecracker in its jailer, QEMU without; `slots` are networks made ahead; with `page_server` a
    restored Firecracker machine gets its memory page by page. A cancelled step gets SIGINT, `interrupt_s` later SIGTERM, `terminate_s` later SIGKILL; the steps that still run
    after a cancellation have `cancel_s` together. With `network` a job reaches what listens on the host's loopback, as 10.0.2.2;
    `network_reaches_loopback` says that this is known, and a server of builds does not start without it. `containers` is a folder of OCI layouts and
    archives, for images of containers and services; what is not there is fetched from the `registries`, if it is in one of them, by this host; `containers_limit_mib` bounds one such image, unpacked.
    An action's Dockerfile may take `build_minutes` to build; the images that come of them may take `built_limit_mib` together, and `containers_limit_mib` each.
    Actions of other repositories come from `actions`, a folder of bare repositories, and else from the forge at `actions_url`;
    `actions_limit_mib` bounds one of them, `actions_cache_mib` those that are kept. `results`: how much artifacts and caches may take, and how long they are kept; `tools`: how much is kept for the tool caches of jobs. What is kept (`keep`) stays for
    `keep_minutes`, as long as all of it is no more than `keep_mib` and `keep_count`. `checkpoint` is before which steps one is taken: `none`, every
    one (`step`), one of them (`before:N`, from 1), or those a workflow asks it for (`asked`, see `firebrick.node.kept.keeper`). `job_started` and
    `job_completed` are scripts in the machine that every job runs before its first step and after its last one."""

    machines: Positive | None = None
    default_image: str = "toolchain"
    labels: Mapping[str, str] = {}
    network: bool = False
    network_reaches_loopback: bool = False
    log_limit_mib: Positive = 256
    artifact_limit_mib: Positive = 4096
    source_limit_mib: Positive = 4096
    interrupt_s: Seconds = 7.5
    terminate_s: Seconds = 2.5
    cancel_s: Seconds = 300.0
    templates_kept: Positive = 8
    driver: DriverName = DriverName.QEMU
    jail: bool | None = None
    page_server: bool = False
    slots: Positive = 2
    containers: str | None = None
    registries: tuple[str, ...] = ()
    containers_limit_mib: Positive = 16_384
    built_limit_mib: Positive = 16_384
    build_minutes: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    allow: tuple[Allowed, ...] = ()
    keep: Keep = Keep.ON_FAILURE
    keep_minutes: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    keep_mib: Positive = 8192
    keep_count: Positive = 64
    checkpoint: Annotated[str, msgspec.Meta(pattern=CHECKPOINTS)] = "asked"
    job_started: str = ""
    job_completed: str = ""
    actions: str = ""
    actions_url: str = ""
    actions_allow: tuple[str, ...] = ()
    actions_pinned: bool = False
    actions_limit_mib: Positive = 512
    actions_cache_mib: Positive = 8192
    results: ResultsLimits = ResultsLimits()
    tools: ToolLimits = ToolLimits()

    @property
    def jailed(self) -> bool:
        return self.jail if self.jail is not None else self.driver is DriverName.FIRECRACKER

    @property
    def capacity(self) -> int:
        return self.machines or default_capacity()


def read_settings(config: Path) -> NodeSettings:
    """The `[node]` table of the file; defaults where the file or the table is missing.

    Raises SettingsError where the file is no TOML or says something the node does not know."""
    try:
        table = tomllib.loads(config.read_text()).get("node", {})
        settings = msgspec.convert(table, NodeSettings)
    except FileNotFoundError:
        return NodeSettings()
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"cannot read {config}: {error}", hint="The file must be TOML.") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"cannot read {config}: it is not text in UTF-8", hint="The file must be TOML.") from error
    except msgspec.ValidationError as error:
        raise SettingsError(f"cannot use the [node] table of {config}: {error}", hint=_advice(str(error))) from error
    if settings.allow:
        _check_allow(config, settings)
    return settings


def _check_allow(config: Path, settings: NodeSettings) -> None:
    """Known before an image is made for a job that could not begin. What it takes is imported for those who allow something."""
    from firebrick.machine.errors import SpecError
    from firebrick.node.pool.driver import policy_of

    try:
        policy_of(settings)
    except SpecError as error:
        raise SettingsError(f"cannot use [[node.allow]] of {config}: {error}", hint=error.hint) from error


def _advice(problem: str) -> str:
    if problem.endswith("`$.checkpoint`"):
        return "`checkpoint` is none, asked, step, or before:N with the number of a step."
    if "unknown field" in problem and "$" not in problem:
        return f"It may hold {', '.join(sorted(NodeSettings.__struct_fields__))}."
    return "What each setting may be is in docs/reference/settings.md."


def default_capacity() -> int:
    """One machine per core, as far as the memory goes, and at least one."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory // _MEMORY_PER_MACHINE))
