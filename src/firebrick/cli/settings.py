"""The settings of a server, as `firebrick serve` reads them and `firebrick doctor` judges them: what is wrong with them is told in the same words."""

from __future__ import annotations

import tomllib

from pydantic import ValidationError
from pydantic_settings import SettingsError

from firebrick.cli.errors import UsageError
from firebrick.home import Home
from firebrick.machine import Network
from firebrick.node.pool.driver import network_kind
from firebrick.node.settings import NodeSettings
from firebrick.server.settings import ServeSettings


def server_settings(**given: object) -> ServeSettings:
    """From the environment and config.toml, with what was `given` beside them; None is not given. Raises UsageError."""
    try:
        return ServeSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        # Not the error itself: it repeats the values, and a credential may be among them.
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        hint = f"Look into the environment (FIREBRICK_...) and {Home.find().config_file}."
        raise UsageError(f"a setting is not as it must be: {wrong}", hint=hint) from None
    except SettingsError as error:
        # Lists and tables of the environment are JSON. `from None`: the cause holds the text, and a credential may be in it.
        raise UsageError(
            f"a setting cannot be read: {error}", hint="In the environment (FIREBRICK_...) it must be JSON."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        what = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise UsageError(f"cannot read {Home.find().config_file}: {what}", hint="The file must be TOML.") from error


def check_network(home: Home, node: NodeSettings) -> None:
    """Whether builds of strangers may have the network these settings give to jobs. Raises UsageError."""
    shared = network_kind(node) is Network.USER
    if node.network and shared and not node.network_reaches_loopback:
        raise UsageError(
            f"`network = true` in {home.config_file} lets every build reach what listens on this host's loopback, this server included",
            hint="Take it out; or, as root, set `jail = true`, which gives each a network of its own; or, where nothing there needs protection, set `network_reaches_loopback = true` in [node] as well.",
        )
