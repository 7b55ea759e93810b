"""What can go wrong on a node, outside the work it runs."""

from __future__ import annotations

from firebrick.errors import FirebrickError


class NodeError(FirebrickError):
    """Anything a node could not do."""


def told(error: BaseException) -> str:
    """The error as one text: its sentence, and its hint where it has one."""
    return f"{error}. {error.hint}" if isinstance(error, FirebrickError) and error.hint else str(error)


class SettingsError(NodeError):
    """The table [node] of config.toml cannot be read, or says what no node can do."""


class LabelError(NodeError):
    """`runs-on` names no image this node knows."""


class WorkflowSourceError(NodeError):
    """A workflow that the run calls cannot be had, or is not to be called on this node."""


class ContainerError(NodeError):
    """The image of a container cannot be had, or a service did not become ready."""


class SourceError(NodeError):
    """The source tree of the order cannot be read or is larger than allowed."""


class StepError(NodeError):
    """A step cannot be carried out as it is written (a missing input of an action, a bad glob)."""


class ActionError(NodeError):
    """An action cannot be had, is not allowed, or is no action."""


class OriginError(NodeError):
    """Where a repository comes from is not told, or not allowed."""


class CheckoutError(NodeError):
    """A repository cannot be brought into the workspace as the step asks."""


class NoNodeError(NodeError):
    """No running node answers, or none has the machine asked for."""


class ToolError(NodeError):
    """A tool of the tool cache cannot be kept, or cannot be had."""


class ToolLostError(ToolError):
    """A machine cannot be given the tool with this path."""

    def __init__(self, message: str, path: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path
