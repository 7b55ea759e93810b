"""Machines under Firecracker, on hosts with KVM.

settings    where its programs are, and what machines get that say nothing else
version     what each release can do
config      a spec as the requests that make the machine: pure
api         the requests' way: HTTP over a unix socket
pipe        FIFOs the VMM writes to: console, log, metrics
vsock       the way to the agent
exits       how a machine ended: pure
boot        a running VMM in its room
save        a snapshot's files: out of the room, and into the next one
vm          one machine
driver      the driver
"""

from firebrick.machine.firecracker.driver import Firecracker
from firebrick.machine.firecracker.settings import FirecrackerSettings
from firebrick.machine.firecracker.vm import FirecrackerMachine

__all__ = ["Firecracker", "FirecrackerMachine", "FirecrackerSettings"]
