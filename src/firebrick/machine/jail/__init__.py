"""What is put around a VMM, so that a guest that breaks out of it has gained nothing.

room        the contract: where a VMM finds its files, and how it is started there
limits      what a machine may take of the host: records
group       control groups (version 2) with these limits
files       shared with a jail, or given to it
record      what is known of a jailed machine when its owner has died
bwrap       what bubblewrap is told
starter     the processes between us and a VMM
found       the seat of a jailed machine that lives on without its owner
gate        where bubblewrap waits
open        rooms without a jail
jailer      rooms of Firecracker's own jailer
bubble      rooms of QEMU, by bubblewrap
walls       a chroot in which nothing new can be made
sealed      the memory of a snapshot, as a file no jail can change
"""
