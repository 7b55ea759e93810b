"""How much is kept, and how long: the table `[node.results]` of `config.toml`."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]
Days = Annotated[int, msgspec.Meta(ge=1, le=400)]

# Of the protocol rather than of a host.
MOST_BLOCKS: Final = 50_000
MOST_UPLOADS: Final = 500  # open at once, of one run
MOST_ARTIFACTS: Final = 1000  # of one run
MOST_ENTRIES: Final = 10_000  # cache entries of one repository
UPLOAD_S: Final = 6 * 3600  # an upload that is not finished by then is forgotten
LINK_S: Final = 3600
DAY_S: Final = 86_400


class ResultsLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`artifacts_mib` and `cache_mib` bound what is kept of one repository, `upload_mib` what is on its way in of one; `free_mib` must stay
    free on the disk. An artifact is kept for `retention_days`, or less if it says so; a cache entry until nobody has read it for `cache_days`."""

    artifacts_mib: Positive = 20_480
    cache_mib: Positive = 10_240
    upload_mib: Positive = 10_240
    free_mib: Positive = 1024
    retention_days: Days = 90
    cache_days: Days = 7

    @property
    def artifact_bytes(self) -> int:
        return self.artifacts_mib << 20

    @property
    def cache_bytes(self) -> int:
        return self.cache_mib << 20

    @property
    def upload_bytes(self) -> int:
        return self.upload_mib << 20

    @property
    def free_bytes(self) -> int:
        return self.free_mib << 20
