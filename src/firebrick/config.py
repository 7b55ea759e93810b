"""The settings every part reads: environment first, then a TOML file, then defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from firebrick.home import Home

__all__ = ["Home", "Settings"]


class Settings(BaseSettings):
    """Settings of a host. `FIREBRICK_<NAME>` in the environment wins over `config.toml` in the home."""

    model_config = SettingsConfigDict(env_prefix="FIREBRICK_", extra="ignore")

    home: Path = Path("~/.firebrick")
    host: Annotated[str, Field(validation_alias=AliasChoices("FIREBRICK_HOST", "HOST", "host"))] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, validation_alias=AliasChoices("FIREBRICK_PORT", "PORT", "port"))] = 8080

    @property
    def layout(self) -> Home:
        return Home(self.home)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        home = env_settings().get("home") or init_settings().get("home") or "~/.firebrick"
        file = TomlConfigSettingsSource(settings_cls, Home(Path(home)).config_file)
        return init_settings, env_settings, file
