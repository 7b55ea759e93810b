"""What is said on the command line of how a node runs its machines."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import msgspec
import typer

from firebrick.cli.errors import UsageError
from firebrick.cli.terminal import tame
from firebrick.home import Home
from firebrick.node.settings import CHECKPOINTS, DriverName, Keep, NodeSettings, read_settings

DriverOption = Annotated[
    DriverName | None,
    typer.Option(
        "--driver", help="What runs the machines. Default: `driver` in the table `node` of config.toml, or qemu."
    ),
]
JailOption = Annotated[
    bool | None,
    typer.Option(
        "--jail/--no-jail",
        help="Whether a VMM is jailed, which needs root. Default: `jail` in the table `node` of config.toml, or what the driver is meant for.",
        show_default=False,
    ),
]
KeepOption = Annotated[
    Keep | None,
    typer.Option(
        "--keep",
        help="When a machine is kept for `firebrick debug`. Default: `keep` in the table `node` of config.toml, or on-failure.",
    ),
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        metavar="none|asked|step|before:N",
        help="Before which steps a checkpoint is taken for `firebrick rerun`. Default: `checkpoint` in the table `node` of config.toml, or asked: where the workflow asks.",
    ),
]


def told_settings(home: Home, driver: DriverName | None, jail: bool | None, **more: object) -> NodeSettings:
    """The node's settings of the home, with what was said beside them; None is not said. Raises SettingsError, UsageError."""
    said = {name: value for name, value in {"driver": driver, "jail": jail, **more}.items() if value is not None}
    checkpoint = said.get("checkpoint")
    if isinstance(checkpoint, str) and not re.fullmatch(CHECKPOINTS, checkpoint):
        raise UsageError(
            f"--checkpoint {checkpoint} is none of none, asked, step and before:N",
            hint="N is the number of a step, from 1 to 9999.",
        )
    told = msgspec.structs.replace(read_settings(home.config_file), **said)
    try:
        return msgspec.convert(msgspec.to_builtins(told), NodeSettings)
    except msgspec.ValidationError as error:
        raise UsageError(f"that cannot be said of a node: {error}", hint="`--help` says what can.") from error


def warn(text: str) -> None:
    print(f"warning: {tame(text, colour=False)}", file=sys.stderr, flush=True)  # noqa: T201 - this is the command line
