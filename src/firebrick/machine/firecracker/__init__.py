"""Machines under Firecracker, on hosts with KVM.

settings    where its programs are, and what machines get that say nothing else
version     what each release can do
config      a spec as the requests that make the machine: pure
wishes      what it cannot be asked: pure
api         the requests' way: HTTP over a unix socket
pipe        FIFOs the VMM writes to: console, log, metrics
vsock       the way to the agent
exits       how a machine ended: pure
unix        connecting to the sockets it makes
vmm         a running Firecracker in its room
disks       files: into the room, and out of it for a snapshot
vm          one machine
driver      the driver
"""

from firebrick.machine.firecracker.driver import Firecracker
from firebrick.machine.firecracker.settings import FirecrackerSettings
from firebrick.machine.firecracker.vm import FirecrackerMachine

__all__ = ["Firecracker", "FirecrackerMachine", "FirecrackerSettings"]
