"""The settings of `firebrick serve`, in the environment as `FIREBRICK_<NAME>` or in `config.toml` by their names."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated, Final, Literal

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, field_validator

from firebrick.config import Settings
from firebrick.forge.address import DEFAULT_PROTOCOLS, Address, Credential, parse_address, parse_door
from firebrick.forge.errors import AddressError
from firebrick.forge.limits import CloneLimits
from firebrick.server.repository import RepositorySettings
from firebrick.server.scheduler import Capacity

Count = Annotated[int, Field(ge=1)]
_EVERY: Final = frozenset({"https", "ssh", "http", "git", "file"})
Level = Literal["debug", "info", "warning", "error"]


def _level(value: object) -> object:
    """Also what Rust programs take: `target=level` parts among levels, of which only a bare level means anything here."""
    words = [word.strip().lower() for word in str(value).split(",") if "=" not in word]
    level = {"trace": "debug", "warn": "warning"}.get(words[-1], words[-1]) if words else "info"
    return level or "info"


class ServeSettings(Settings):
    """`max_builds`, `max_vcpus` and `max_memory_mib` bound what all running builds take together; unset, they follow from the node and the host.

    `max_attempts` is how often a build is started when the server dies under it. `git_credentials` maps `host` or
    `host:port` to `user:token`, see `credential_for`; `repositories` addresses to what is said of them."""

    database_url: str | None = None
    max_builds: Count | None = None
    max_vcpus: Count | None = None
    max_memory_mib: Annotated[int, Field(ge=64)] | None = None
    max_queued: Count = 10_000
    max_attempts: Count = 3
    log_max_mib: Count = 64
    clone_max_mib: Count = 2048
    clone_max_entries: Count = 500_000
    clone_timeout_s: Annotated[float, Field(gt=0)] = 300.0
    clone_protocols: frozenset[str] = DEFAULT_PROTOCOLS
    allow_local_repos: bool = False
    allowed_hosts: frozenset[str] = frozenset()
    git_credentials: Annotated[dict[str, SecretStr], Field(default_factory=dict)]
    repositories: Annotated[dict[str, RepositorySettings], Field(default_factory=dict)]
    schedule_poll_s: Annotated[float, Field(gt=0)] = 300.0
    log_level: Annotated[
        Level,
        BeforeValidator(_level),
        Field(validation_alias=AliasChoices("FIREBRICK_LOG_LEVEL", "RUST_LOG", "log_level")),
    ] = "info"
    shutdown_s: Annotated[float, Field(gt=0)] = 20.0

    @property
    def protocols(self) -> frozenset[str]:
        return self.clone_protocols | {"file"} if self.allow_local_repos else self.clone_protocols - {"file"}

    @property
    def clone_limits(self) -> CloneLimits:
        return CloneLimits(self.clone_max_mib, self.clone_max_entries, self.clone_timeout_s)

    def capacity(self, machines: int) -> Capacity:
        """What running builds may take together on a node of so many machines. Processors may be shared by four, memory may not."""
        cores = len(os.sched_getaffinity(0))
        memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
        return Capacity(
            builds=self.max_builds or machines,
            vcpus=self.max_vcpus or 4 * cores,
            memory_mib=self.max_memory_mib or max(2048, memory_mib * 9 // 10),
        )

    def repository_for(self, place: str) -> RepositorySettings:
        """What is said of the repository at `host/owner/name`; nothing where it is not named."""
        return next(
            (said for address, said in self.repositories.items() if self.address_of(address).place == place),
            RepositorySettings(),
        )

    def address_of(self, repository: str) -> Address:
        """The address of a repository of the settings, with the credential for it. Raises AddressError."""
        address = parse_address(repository, protocols=_EVERY)
        return replace(address, credential=address.credential or self.credential_for(address))

    @field_validator("git_credentials", mode="after")
    @classmethod
    def _doors(cls, said: dict[str, SecretStr]) -> dict[str, SecretStr]:
        try:
            return {parse_door(door): secret for door, secret in said.items()}
        except AddressError as error:
            raise ValueError(f"{error}. {error.hint}") from error

    @field_validator("repositories", mode="after")
    @classmethod
    def _addresses(cls, said: dict[str, RepositorySettings]) -> dict[str, RepositorySettings]:
        for address in said:
            try:
                parse_address(address, protocols=_EVERY)
            except AddressError as error:
                raise ValueError(str(error)) from error
        return said

    def credential_for(self, address: Address) -> Credential | None:
        """What is configured for its host and port, else for its host if the port is the one its protocol has by itself; None for what is not HTTP. No
        secret of one port goes to another."""
        secret = next((self.git_credentials[door] for door in address.doors if door in self.git_credentials), None)
        if secret is None:
            return None
        user, _, password = secret.get_secret_value().partition(":")
        return Credential(user, password)
