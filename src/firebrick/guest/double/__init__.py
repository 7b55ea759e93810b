"""A guest without a machine: the agent's end of the protocol in Python, in memory. For tests, demonstrations and the fake driver."""

from firebrick.guest.double.agent import GuestDouble
from firebrick.guest.double.disk import MemoryDisk, Refusal
from firebrick.guest.double.pipe import pipe
from firebrick.guest.double.task import Killed, Program, Task

__all__ = ["GuestDouble", "Killed", "MemoryDisk", "Program", "Refusal", "Task", "pipe"]
