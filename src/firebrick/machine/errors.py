"""What can go wrong with a machine."""

from __future__ import annotations

from firebrick.errors import FirebrickError


class MachineError(FirebrickError):
    """Anything that went wrong with a machine."""


class SpecError(MachineError):
    """The specification asks for something no machine, or not this driver, can be."""


class HostError(MachineError):
    """The host lacks something a machine needs: a program, a permission, space."""


class BootError(MachineError):
    """The machine ended, or stayed silent too long, before its agent answered. `console` holds its last output."""

    def __init__(self, message: str, *, hint: str = "", console: str = "") -> None:
        super().__init__(message, hint=hint)
        self.console = console


class MachineGoneError(MachineError):
    """The machine ended while it was being used. `cause` says how."""


class StateError(MachineError):
    """The operation is not possible in the state the machine is in."""


class SnapshotError(MachineError):
    """A snapshot could not be taken, is damaged, or does not fit this host."""


class AdoptionError(MachineError):
    """A machine cannot be taken over: somebody has it, or nobody can."""
