"""What the settings say of one repository: secrets and variables of its workflows, environments, schedules."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from firebrick.server.environment import Environment
from firebrick.workflow.event.pattern import PatternError, parse_pattern


def _pattern(text: str) -> str:
    try:
        parse_pattern(text)
    except PatternError as error:
        raise ValueError(str(error)) from error
    return text


Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,254}$")]
EnvironmentName = Annotated[str, Field(min_length=1, max_length=255)]


class EnvironmentSettings(BaseModel):
    """`approval`: somebody must let each build in. `branches` are patterns as of `on.push.branches`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    secrets: dict[Name, SecretStr] = Field(default_factory=dict)
    variables: dict[Name, str] = Field(default_factory=dict)
    approval: bool = False
    wait_minutes: Annotated[float, Field(ge=0, le=43_200)] = 0.0
    branches: list[Annotated[str, AfterValidator(_pattern)]] | None = None

    def named(self, name: str) -> Environment:
        return Environment(
            name=name,
            secrets=_plain(self.secrets),
            variables=self.variables,
            approval=self.approval,
            wait_minutes=self.wait_minutes,
            branches=None if self.branches is None else tuple(self.branches),
        )


class RepositorySettings(BaseModel):
    """The secret GITHUB_TOKEN is `github.token`. With `schedules` the workflows of the default branch are started by the clock."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    secrets: dict[Name, SecretStr] = Field(default_factory=dict)
    variables: dict[Name, str] = Field(default_factory=dict)
    environments: dict[EnvironmentName, EnvironmentSettings] = Field(default_factory=dict)
    schedules: bool = False

    @property
    def plain_secrets(self) -> dict[str, str]:
        return _plain(self.secrets)

    @property
    def has_secrets(self) -> bool:
        """Whether any build of the repository may be given one."""
        return bool(self.secrets) or any(each.secrets for each in self.environments.values())

    @property
    def known_environments(self) -> tuple[Environment, ...]:
        return tuple(settings.named(name) for name, settings in self.environments.items())


def _plain(secrets: dict[str, SecretStr]) -> dict[str, str]:
    return {name: secret.get_secret_value() for name, secret in secrets.items()}
