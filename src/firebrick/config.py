"""Where Firebrick keeps its things, and the settings every part reads: environment first, then a TOML file, then defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource


class Home:
    """The layout below `FIREBRICK_HOME`. Every path the program writes to is a property here."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def kernels(self) -> Path:
        return self.root / "kernels"

    @property
    def templates(self) -> Path:
        return self.root / "templates"

    @property
    def machines(self) -> Path:
        return self.root / "machines"

    @property
    def builds(self) -> Path:
        return self.root / "builds"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def database(self) -> Path:
        return self.root / "firebrick.db"

    @property
    def node_socket(self) -> Path:
        return self.root / "node.sock"

    @property
    def config_file(self) -> Path:
        return self.root / "config.toml"


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
