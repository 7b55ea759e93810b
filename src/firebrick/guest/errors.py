"""What can go wrong between the host and the agent."""

from __future__ import annotations

from firebrick.errors import FirebrickError


class GuestError(FirebrickError):
    """Anything that went wrong while speaking with a guest."""


class ChannelError(GuestError):
    """The connection to the agent has ended or cannot be used. `__cause__` says why, where that is known."""


class ProtocolError(GuestError):
    """The other end sent something the protocol does not allow. It ends the connection."""


class VersionError(GuestError):
    """Host and agent speak no common version of the protocol."""


class StreamClosedError(GuestError):
    """Something was sent to a process, file or port that has ended and reads no more."""


class MessageTooLargeError(GuestError):
    """A request does not fit into one message of the protocol, 64 KiB."""


class OutputTooLargeError(GuestError):
    """A guest sent more than the caller allowed."""


class TreeError(GuestError):
    """A directory tree could not be sent, or was refused: it would leave its target, exceeds a limit, or is damaged."""


class CommandError(GuestError):
    """A command that had to succeed did not. `code` or `signal` say how it ended, `stderr` is the end of its error output."""

    def __init__(self, message: str, *, code: int | None, signal: int | None, stderr: bytes, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.signal = signal
        self.stderr = stderr


class AgentError(GuestError):
    """The agent refused a request or failed at it. `code` is the protocol's word for the reason; `errno` is Linux's, where there is one."""

    def __init__(self, message: str, *, code: str, errno: int | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.errno = errno


class IdentityMissingError(AgentError):
    """The machine has not got its identity yet."""


class BadRequestError(AgentError):
    """The agent could not make sense of the request."""


class FileMissingError(AgentError):
    """A file, directory or program does not exist in the guest."""


class FileExistsInGuestError(AgentError):
    """Something is in the way at the path."""


class NotADirectoryInGuestError(AgentError):
    """A component of the path is no directory."""


class IsADirectoryInGuestError(AgentError):
    """The path is a directory, and the operation is for files."""


class DirectoryNotEmptyError(AgentError):
    """The directory still holds something."""


class PermissionDeniedError(AgentError):
    """The guest's kernel refused the operation."""


class NoSpaceError(AgentError):
    """The guest's disk or memory is full."""


class TooLargeError(AgentError):
    """A size in the request exceeds what the agent takes."""


class BusyError(AgentError):
    """The agent cannot do this now."""


class UnsupportedError(AgentError):
    """The agent, or the guest's kernel, cannot do this at all."""


class StreamResetError(AgentError):
    """The request was given up before it was done."""


class NoSuchUserError(AgentError):
    """The user is not known in the guest."""


class NotExecutableError(AgentError):
    """The file exists and cannot be run."""


class PreparationError(AgentError):
    """What was to be done before a command could not be done: the command was not started."""


class GuestIOError(AgentError):
    """An input/output error in the guest."""


_BY_CODE: dict[str, tuple[type[AgentError], str]] = {
    "no_identity": (IdentityMissingError, ""),
    "bad_request": (BadRequestError, ""),
    "not_found": (FileMissingError, ""),
    "exists": (FileExistsInGuestError, ""),
    "not_a_directory": (NotADirectoryInGuestError, ""),
    "is_a_directory": (IsADirectoryInGuestError, ""),
    "not_empty": (DirectoryNotEmptyError, "Remove it recursively if what it holds may go."),
    "permission": (PermissionDeniedError, "Check the mode and owner in the guest, or act as root."),
    "no_space": (NoSpaceError, "Give the machine more scratch space or memory."),
    "too_large": (TooLargeError, ""),
    "busy": (BusyError, ""),
    "unsupported": (UnsupportedError, ""),
    "reset": (StreamResetError, ""),
    "no_such_user": (NoSuchUserError, "Name a user of the guest's /etc/passwd, or a numeric uid or uid:gid."),
    "not_executable": (NotExecutableError, "Check its mode, its format and its interpreter."),
    "unprepared": (PreparationError, ""),
    "io": (GuestIOError, ""),
}


def agent_error(code: str, message: str, errno: int | None) -> AgentError:
    """The exception for an `error` message. A code this host does not know becomes a plain AgentError."""
    kind, hint = _BY_CODE.get(code, (AgentError, ""))
    return kind(message, code=code, errno=errno, hint=hint)
