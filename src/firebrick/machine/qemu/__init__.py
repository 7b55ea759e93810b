"""The driver of QEMU.

exits         how a machine ended: pure
sockets       the machine's own, listened to and connected to by short names
surroundings  what a machine has around it: a network slot, a jail
outputs       what QEMU and its guest write, for who started it or for whoever attends to it
vm            one machine
start         QEMU, started with all it inherits, or found running
driver        the driver
"""

from firebrick.machine.qemu.driver import Qemu
from firebrick.machine.qemu.vm import QemuMachine

__all__ = ["Qemu", "QemuMachine"]
