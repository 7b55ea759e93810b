"""How much of tools is kept: the table `[node.tools]` of `config.toml`."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]

# Of one tool, and of what one job may add: more than that no tool has.
MOST_FILES: Final = 200_000
MOST_ADDED: Final = 16
# Tools that are kept of one repository, and of all.
MOST_KEPT: Final = 1000
MOST_KEPT_OF_ALL: Final = 20_000
# Of one tool, those a job used last, and of all its tools.
MOST_VERSIONS: Final = 8
MOST_USED: Final = 64
# Records of what jobs used, of one repository and of all: those used last.
MOST_JOBS: Final = 500
MOST_JOBS_OF_ALL: Final = 5000


class ToolLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With `keep` false no tools of jobs are kept; those of an administrator are there all the same. `tool_mib` bounds one tool, `job_mib` all that a
    job begins with, `repository_mib` what is kept of one repository, `total_mib` of all; `free_mib` must stay free on the disk."""

    keep: bool = True
    tool_mib: Positive = 1024
    job_mib: Positive = 2048
    repository_mib: Positive = 4096
    total_mib: Positive = 16_384
    free_mib: Positive = 1024

    @property
    def tool_bytes(self) -> int:
        return self.tool_mib << 20

    @property
    def job_bytes(self) -> int:
        return self.job_mib << 20

    @property
    def repository_bytes(self) -> int:
        return self.repository_mib << 20

    @property
    def total_bytes(self) -> int:
        return self.total_mib << 20

    @property
    def free_bytes(self) -> int:
        return self.free_mib << 20
